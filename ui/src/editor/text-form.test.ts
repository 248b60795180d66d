import { history, redo, undo } from "@codemirror/commands";
import { EditorState, type TransactionSpec } from "@codemirror/state";
import { describe, expect, it } from "vitest";

import { keepEndings, putTogether, takeApart } from "./text-form";

/** A text that is edited step by step. */
class Edited {
  readonly #form;
  #state: EditorState;

  constructor(content: string) {
    const parts = takeApart(content);
    this.#form = parts.form;
    this.#state = EditorState.create({ doc: parts.doc, extensions: [history(), keepEndings(parts)] });
  }

  change(spec: TransactionSpec): this {
    this.#state = this.#state.update(spec).state;
    return this;
  }

  run(command: typeof undo): this {
    command({ state: this.#state, dispatch: (transaction) => (this.#state = transaction.state) });
    return this;
  }

  get content(): string {
    return putTogether(this.#state, this.#form);
  }
}

const WORDS = ["", "a", "\n", "\r\n", "\r", "\ufeff", "b c", "\t", "é", "😀", "\u2028", "\0"];

describe("a file that is opened and not edited is as it was", () => {
  it.each(["", "\n", "\ufeff", "\ufeffa\r\n", "a\rb\r", "a\nb\r\nc\rd", "\r\n\r\r\n\n", "no end", "a\u2028b\u0085c\n"])("%j", (content) => {
    expect(new Edited(content).content).toBe(content);
  });

  it("whatever it is made of", () => {
    for (let seed = 1; seed <= 2_000; seed += 1) {
      let content = "";
      for (let rest = seed * 2_654_435_761; rest >= 1; rest /= WORDS.length) content += WORDS[Math.floor(rest) % WORDS.length] ?? "";
      expect(new Edited(content).content).toBe(content);
    }
  });
});

describe("a file that is edited differs there only", () => {
  const insert = (from: number, text: string): TransactionSpec => ({ changes: { from, insert: text } });
  it.each<[string, TransactionSpec, string]>([
    ["a\r\nb\r\n", insert(1, "x"), "ax\r\nb\r\n"],
    ["a\r\nb\r\n", insert(1, "\n"), "a\r\n\r\nb\r\n"],
    ["\ufeffa\n", insert(0, "x"), "\ufeffxa\n"],
    ["a\nb\r\nc\nd\n", insert(3, "x"), "a\nbx\r\nc\nd\n"],
    ["a\nb\r\nc\nd\n", insert(4, "x"), "a\nb\r\nxc\nd\n"],
    ["a\nb\r\nc\nd\n", insert(3, "\n"), "a\nb\n\r\nc\nd\n"],
    ["a\nb\r\nc\nd\n", { changes: { from: 3, to: 4 } }, "a\nbc\nd\n"],
    ["a\nb\r\nc\nd\n", { changes: { from: 0, to: 2 } }, "b\r\nc\nd\n"],
    ["a\nb\rc\nd\n", { changes: { from: 3, to: 4, insert: "\n" } }, "a\nb\rc\nd\n"],
    ["a\nb\rc\nd\n", { changes: { from: 3, to: 4, insert: "x\n" } }, "a\nbx\nc\nd\n"],
  ])("%#", (content, spec, expected) => expect(new Edited(content).change(spec).content).toBe(expected));
});

it("what is undone ends its lines as before, and what is done again as then", () => {
  const content = "a\nb\r\nc\nd\re\n";
  const edited = new Edited(content);
  edited.change({ changes: { from: 1, to: 9 }, userEvent: "delete" });
  expect(edited.content).toBe("a\n");
  expect(edited.run(undo).content).toBe(content);
  expect(edited.run(redo).content).toBe("a\n");
  expect(edited.run(undo).content).toBe(content);
});
