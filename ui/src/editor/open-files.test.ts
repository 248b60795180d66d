import { undo } from "@codemirror/commands";
import { indentUnit } from "@codemirror/language";
import { EditorView } from "@codemirror/view";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Draft } from "../bindings/Draft";
import type { FileContent } from "../bindings/FileContent";
import { CommandError, report } from "../lib/ipc/error";
import type { WriteCondition, WrittenText } from "../lib/ipc/commands";
import { contentOf, type Disk, type OpenFile, OpenFiles, reasonToOnlyRead } from "./open-files.svelte";

const read = (more: Partial<FileContent>): FileContent => ({
  content: "text",
  encoding: "utf-8",
  charset: null,
  picture: null,
  size: 4,
  truncated: false,
  revision: "1",
  ...more,
});

/** A disk of texts whose revisions count the writes to each. */
class Files implements Disk {
  readonly texts = new Map<string, FileContent>();
  readonly kept = new Map<string, Draft>();
  readonly asked: string[] = [];
  readonly written: Array<{ path: string; text: WrittenText; condition: WriteCondition }> = [];
  #revision = 0;

  put(path: string, content: string, more: Partial<FileContent> = {}): this {
    this.texts.set(path, read({ content, revision: String(++this.#revision), ...more }));
    return this;
  }

  async read(path: string): Promise<FileContent> {
    this.asked.push(path);
    const file = this.texts.get(path);
    if (!file) throw new CommandError(report("FILE_NOT_FOUND", "gone", "Look at the tree."));
    return file;
  }

  async write(path: string, text: WrittenText, condition: WriteCondition): Promise<string> {
    this.written.push({ path, text, condition });
    const before = this.texts.get(path);
    const holds = "missing" in condition ? !before : !("revision" in condition) || before?.revision === condition.revision;
    if (!holds) throw new CommandError(report("CONFLICT", "changed", "Look at it."));
    this.put(path, text.content, { charset: before?.charset ?? null, encoding: before?.encoding ?? "utf-8" });
    return String(this.#revision);
  }

  drafts = async () => [...this.kept.values()];
  keepDraft = async (draft: Draft) => void this.kept.set(draft.path, draft);
  dropDraft = async (path: string) => void this.kept.delete(path);
}

const entry = (path: string) => ({ path, name: path });

async function opened(files: Files, ...paths: string[]): Promise<OpenFiles> {
  const open = new OpenFiles(files);
  for (const path of paths) await open.open(entry(path));
  return open;
}

function only(open: OpenFiles): OpenFile {
  const [file] = open.files;
  if (!file) throw new Error("nothing is open");
  return file;
}

/** Types at a place as a user does, in a view of its own. */
function type(file: OpenFile, at: number, text: string): void {
  inView(file, (view) => view.dispatch({ changes: { from: at, insert: text }, selection: { anchor: at + text.length }, userEvent: "input.type" }));
}

function inView<T>(file: OpenFile, act: (view: EditorView) => T): T {
  const parent = document.createElement("div");
  document.body.append(parent);
  const end = file.edited!.show(parent);
  const view = EditorView.findFromDOM(parent)!;
  const result = act(view);
  end();
  parent.remove();
  return result;
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const picture = { media_type: "image/png", width: 2, height: 3, drawable: true };
const bomb = { ...picture, width: 23_000, height: 23_000, drawable: false };
const latin = { name: "windows-1252", lossy: false, marked: false, exact: true };

describe("what a file shows as", () => {
  it.each([
    [read({}), { kind: "text", text: "text", size: 4, truncated: false, charset: null }],
    [read({ truncated: true, size: 9 }), { kind: "text", text: "text", size: 9, truncated: true, charset: null }],
    [read({ encoding: "decoded", charset: latin }), { kind: "text", text: "text", size: 4, truncated: false, charset: latin }],
    [
      read({ encoding: "base64", content: "AAEC", size: 3 }),
      { kind: "binary", size: 3, bytes: Uint8Array.of(0, 1, 2), truncated: false },
    ],
    [
      read({ encoding: "base64", content: "QQ==", picture }),
      { kind: "image", source: "data:image/png;base64,QQ==", picture, size: 4 },
    ],
    [read({ encoding: "base64", truncated: true, size: 7, picture }), { kind: "picture", picture, size: 7 }],
    [read({ encoding: "base64", picture: bomb }), { kind: "picture", picture: bomb, size: 4 }],
  ])("%#", (file, content) => expect(contentOf(file)).toEqual(content));
});

it.each<[Partial<FileContent>, string | null]>([
  [{}, null],
  [{ encoding: "decoded", charset: latin }, null],
  [{ truncated: true }, "only its beginning was read"],
  [{ encoding: "decoded", charset: { ...latin, lossy: true } }, "some of its bytes make no sense in windows-1252 and show as \ufffd"],
  [{ encoding: "decoded", charset: { ...latin, exact: false } }, "some of its bytes would be others when it is written in windows-1252"],
  [{ content: `a${"\u0301".repeat(31)}` }, "it has more marks on one character than can be shown"],
])("what cannot be written back as it was is for reading only, and says why: %#", async (more, reason) => {
  const files = new Files().put("a", "text", more);
  const file = only(await opened(files, "a"));
  expect(file.content.kind === "text" && reasonToOnlyRead(file.content)).toBe(reason);
  expect(file.edited?.readOnly).toBe(reason !== null);
});

describe("an encoding", () => {
  it("is chosen for one file, and the last choice is what is shown", async () => {
    const answers: Array<(content: FileContent) => void> = [];
    const asked: Array<string | null> = [];
    const files = new Files();
    const open = new OpenFiles(
      Object.assign(files, {
        read: (_: string, charset: string | null) => {
          asked.push(charset);
          return new Promise<FileContent>((resolve) => answers.push(resolve));
        },
      }),
    );
    const opening = open.open(entry("a"));
    const file = only(open);
    const choosing = open.choose(file, "gbk");
    answers[1]?.(read({ content: "chosen" }));
    answers[0]?.(read({ content: "recognised" }));
    await Promise.all([opening, choosing]);
    expect([asked, file.content]).toMatchObject([[null, "gbk"], { text: "chosen" }]);
  });

  it("is kept by a save, and no other is chosen while text is unsaved", async () => {
    const files = new Files().put("a", "text", { encoding: "decoded", charset: { ...latin, marked: true } });
    const open = await opened(files, "a");
    const file = only(open);
    type(file, 4, "s");
    await open.choose(file, "gbk");
    expect([file.charset, file.edited?.content]).toEqual([null, "texts"]);
    await open.save(file);
    expect(files.written).toEqual([{ path: "a", text: { content: "texts", charset: { name: "windows-1252", marked: true } }, condition: { revision: "1" } }]);
  });
});

describe("tabs", () => {
  it("open once each, and close to the neighbour", async () => {
    const files = new Files().put("a", "").put("b", "").put("c", "");
    const open = await opened(files, "a", "b", "c", "b");
    expect(open.files.map((file) => file.name)).toEqual(["a", "b", "c"]);
    expect(files.asked).toEqual(["a", "b", "c", "b"]);
    open.close("b");
    expect(open.active?.name).toBe("c");
    open.close("c");
    open.close("a");
    expect([open.active, open.files]).toEqual([null, []]);
  });

  it("are there again after a reload; what makes no sense is forgotten", async () => {
    const files = new Files().put("a", "").put("b", "");
    const before = await opened(files, "a", "b");
    before.activePath = "a";
    const after = new OpenFiles(files);
    await after.restore(before.remembered());
    expect([after.files.map((file) => file.name), after.active?.name]).toEqual([["a", "b"], "a"]);
    for (const nonsense of [null, "", "{", "7", '{"files":[null]}', '{"files":[{"path":1,"name":"x"}]}']) {
      const none = new OpenFiles(files);
      await none.restore(nonsense);
      expect(none.remembered()).toBeNull();
    }
  });

  it("a file that cannot be read says so in its tab", async () => {
    const open = await opened(new Files(), "a");
    expect(open.active?.content).toMatchObject({ kind: "failed", failure: { message: "gone" } });
  });

  it("keep undo, cursor and text while others are looked at", async () => {
    const open = await opened(new Files().put("a", "text").put("b", ""), "a", "b");
    const file = only(open);
    type(file, 4, "ual");
    const cursor = inView(file, (view) => {
      expect(view.state.doc.toString()).toBe("textual");
      return view.state.selection.main.head;
    });
    inView(file, undo);
    expect([cursor, file.edited?.content, file.unsaved]).toEqual([7, "text", false]);
  });
});

describe("a save", () => {
  it("writes what was edited over the revision that was read, and nothing where nothing was", async () => {
    const files = new Files().put("a", "\ufeffone\r\ntwo\r\n");
    const open = await opened(files, "a");
    const file = only(open);
    await open.save(file);
    type(file, 3, "!");
    expect(file.unsaved).toBe(true);
    await open.save(file);
    await open.save(file);
    expect(files.written).toEqual([{ path: "a", text: { content: "\ufeffone!\r\ntwo\r\n", charset: null }, condition: { revision: "1" } }]);
    type(file, 0, "x");
    await open.save(file);
    expect([files.texts.get("a")?.content, file.unsaved, file.revision]).toEqual(["\ufeffxone!\r\ntwo\r\n", false, "3"]);
  });

  it("says why it failed, and keeps what is typed meanwhile unsaved", async () => {
    const files = new Files().put("a", "text");
    const open = await opened(files, "a");
    const file = only(open);
    type(file, 4, "s");
    const write = files.write.bind(files);
    files.write = () => Promise.reject(new CommandError(report("DISK_FULL", "no space", "Make some.")));
    await open.save(file);
    expect([file.failure?.error, file.unsaved]).toEqual(["DISK_FULL", true]);
    files.write = async (...args) => {
      type(file, 0, "more ");
      return write(...args);
    };
    await open.save(file);
    expect([file.failure, file.unsaved, files.texts.get("a")?.content]).toEqual([null, true, "texts"]);
  });
});

it("a project's wishes about indentation and the last line are obeyed", async () => {
  const files = new Files()
    .put("/workspace/.editorconfig", "root = true\n[*.py]\nindent_style = tab\ninsert_final_newline = true")
    .put("/workspace/src/a.py", "if x:\r\n    y")
    .put("/workspace/src/a.js", "x");
  const open = await opened(files, "/workspace/src/a.py", "/workspace/src/a.js");
  await vi.runAllTimersAsync();
  for (const file of open.files) {
    type(file, 0, "z");
    await open.save(file);
  }
  expect(files.written.map(({ text }) => text.content)).toEqual(["zif x:\r\n    y\r\n", "zx"]);
  expect(open.files.map((file) => inView(file, (view) => view.state.facet(indentUnit)))).toEqual(["\t", "    "]);
});

describe("a file that changed underneath", () => {
  it("is taken quietly where nothing was edited; the cursor stays in what is the same", async () => {
    const files = new Files().put("a", "one\ntwo\nthree\n");
    const open = await opened(files, "a");
    const file = only(open);
    inView(file, (view) => view.dispatch({ selection: { anchor: 9 } }));
    files.put("a", "zero\none\ntwo\nthree\n");
    await open.look(file);
    const shown = inView(file, (view) => [view.state.doc.toString(), view.state.selection.main.head]);
    expect([shown, file.trouble, file.unsaved]).toEqual([["zero\none\ntwo\nthree\n", 14], null, false]);
  });

  async function conflict(): Promise<{ files: Files; open: OpenFiles; file: OpenFile }> {
    const files = new Files().put("a", "text");
    const open = await opened(files, "a");
    const file = only(open);
    type(file, 4, "s");
    files.put("a", "theirs");
    await open.save(file);
    expect(file.trouble).toMatchObject({ kind: "changed", disk: { content: "theirs" } });
    expect(files.texts.get("a")?.content).toBe("theirs");
    return { files, open, file };
  }

  it("is overwritten when the user says so, but only what was seen", async () => {
    const { files, open, file } = await conflict();
    files.put("a", "theirs again");
    await open.overwrite(file);
    expect(file.trouble).toMatchObject({ kind: "changed", disk: { content: "theirs again" } });
    await open.overwrite(file);
    expect([files.texts.get("a")?.content, file.trouble, file.unsaved]).toEqual(["texts", null, false]);
  });

  it("is taken when the user says so, which can be undone", async () => {
    const { files, open, file } = await conflict();
    open.takeTheirs(file);
    expect([file.edited?.content, file.trouble, file.unsaved]).toEqual(["theirs", null, false]);
    inView(file, undo);
    expect([file.edited?.content, file.unsaved]).toEqual(["texts", true]);
    await open.save(file);
    expect(files.texts.get("a")?.content).toBe("texts");
  });

  it("into what is here, or was here before, is no conflict", async () => {
    const files = new Files().put("a", "text");
    const open = await opened(files, "a");
    const file = only(open);
    type(file, 4, "s");
    files.put("a", "text");
    await open.look(file);
    expect([file.trouble, file.unsaved, file.revision]).toEqual([null, true, "2"]);
    files.put("a", "texts");
    await open.look(file);
    expect([file.trouble, file.unsaved, file.revision]).toEqual([null, false, "3"]);
  });

  it("by its removal keeps the text, and a save makes it again", async () => {
    const files = new Files().put("a", "text");
    const open = await opened(files, "a");
    const file = only(open);
    files.texts.delete("a");
    await open.look(file);
    expect([file.trouble, file.edited?.content]).toEqual([{ kind: "deleted" }, "text"]);
    await open.save(file);
    expect([files.written.at(-1)?.condition, files.texts.get("a")?.content, file.trouble]).toEqual([{ missing: true }, "text", null]);
  });

  it("into something that is no text is taken quietly, or asked about", async () => {
    const files = new Files().put("a", "text").put("b", "text");
    const open = await opened(files, "a", "b");
    const [quiet, edited] = open.files;
    type(edited!, 0, "x");
    for (const path of ["a", "b"]) files.put(path, "AAEC", { encoding: "base64" });
    await open.look(quiet!);
    await open.look(edited!);
    expect([quiet?.content.kind, edited?.content.kind, edited?.trouble?.kind]).toEqual(["binary", "text", "changed"]);
    open.takeTheirs(edited!);
    expect([edited?.content.kind, edited?.unsaved]).toEqual(["binary", false]);
  });
});

describe("closing a tab with unsaved text asks", () => {
  it.each([
    ["save", "texts", 0],
    ["discard", "text", 0],
    ["cancel", "text", 1],
  ] as const)("%s", async (choice, onDisk, left) => {
    const files = new Files().put("a", "text");
    const open = await opened(files, "a");
    type(only(open), 4, "s");
    await vi.runAllTimersAsync();
    open.close("a");
    expect([open.closing?.path, open.files.length]).toEqual(["a", 1]);
    await open.answerClosing(choice);
    await vi.runAllTimersAsync();
    expect([files.texts.get("a")?.content, open.files.length, files.kept.size, open.closing]).toEqual([onDisk, left, left, null]);
  });

  it("and stays open where the save finds a conflict", async () => {
    const files = new Files().put("a", "text");
    const open = await opened(files, "a");
    type(only(open), 4, "s");
    files.put("a", "theirs");
    open.close("a");
    await open.answerClosing("save");
    expect([open.files.length, only(open).trouble?.kind]).toEqual([1, "changed"]);
  });
});

describe("text that was not saved", () => {
  /** Returns the disk after an app that has ended with this text unsaved. */
  async function left(before: string, insert: string): Promise<Files> {
    const files = new Files().put("a", before);
    const file = only(await opened(files, "a"));
    type(file, 4, insert);
    await vi.runAllTimersAsync();
    expect(files.kept.size).toBe(1);
    return files;
  }

  async function resumed(files: Files): Promise<{ open: OpenFiles; file: OpenFile }> {
    const open = new OpenFiles(files);
    await open.restore(null);
    return { open, file: only(open) };
  }

  it("is kept a moment after it was typed, and dropped when it is saved", async () => {
    const files = new Files().put("a", "text");
    const open = await opened(files, "a");
    type(only(open), 4, "s");
    expect(files.kept.size).toBe(0);
    await vi.advanceTimersByTimeAsync(400);
    expect(files.kept.get("a")).toEqual({ path: "a", name: "a", content: "texts", charset: null, revision: "1" });
    await open.save(only(open));
    await vi.runAllTimersAsync();
    expect(files.kept.size).toBe(0);
  });

  it("is kept every two seconds while somebody goes on typing, and at once when asked", async () => {
    const files = new Files().put("a", "");
    const open = await opened(files, "a");
    for (let typed = 0; typed < 7; typed += 1) {
      type(only(open), 0, "x");
      await vi.advanceTimersByTimeAsync(300);
    }
    expect(files.kept.get("a")?.content).toBe("xxxxxxx");
    type(only(open), 0, "y");
    open.flush();
    await vi.advanceTimersByTimeAsync(0);
    expect(files.kept.get("a")?.content).toBe("yxxxxxxx");
  });

  it("is there again, marked, over the same file, and can be undone", async () => {
    const files = await left("text\r\n", "s");
    const { open, file } = await resumed(files);
    expect([open.activePath, file.edited?.content, file.unsaved, file.trouble]).toEqual(["a", "texts\r\n", true, null]);
    inView(file, undo);
    expect(file.unsaved).toBe(false);
    await vi.runAllTimersAsync();
    expect(files.kept.size).toBe(0);
  });

  it("never overwrites what the file has become", async () => {
    const files = (await left("text", "s")).put("a", "theirs");
    const { open, file } = await resumed(files);
    expect([file.edited?.content, file.trouble?.kind]).toEqual(["texts", "changed"]);
    await open.look(file);
    await open.save(file);
    expect([files.texts.get("a")?.content, file.trouble?.kind, files.kept.size]).toEqual(["theirs", "changed", 1]);
    await open.overwrite(file);
    expect(files.texts.get("a")?.content).toBe("texts");
  });

  it("is there again where its file has gone, or cannot be read, or is no text", async () => {
    const files = await left("text", "s");
    const before = files.texts.get("a")!;
    files.texts.delete("a");
    expect((await resumed(files)).file).toMatchObject({ unsaved: true, trouble: { kind: "deleted" } });
    files.put("a", "AAEC", { encoding: "base64" });
    expect((await resumed(files)).file).toMatchObject({ unsaved: true, trouble: { kind: "changed" } });
    const reading = files.read.bind(files);
    files.read = () => Promise.reject(new Error("no connection"));
    const { open, file } = await resumed(files);
    expect([file.edited?.content, file.unsaved, file.trouble]).toEqual(["texts", true, null]);
    files.read = reading;
    files.texts.set("a", before);
    await open.look(file);
    expect([file.unsaved, file.trouble]).toEqual([true, null]);
  });

  it("is forgotten where the file has it by now", async () => {
    const files = (await left("text", "s")).put("a", "texts");
    const { file } = await resumed(files);
    await vi.runAllTimersAsync();
    expect([file.unsaved, file.trouble, files.kept.size]).toEqual([false, null, 0]);
  });

  it("is said when it cannot be kept", async () => {
    const files = new Files().put("a", "text");
    const file = only(await opened(files, "a"));
    files.keepDraft = () => Promise.reject(new CommandError(report("DISK_FULL", "no space", "Make some.")));
    type(file, 4, "s");
    await vi.runAllTimersAsync();
    expect(file.draft.failure?.error).toBe("DISK_FULL");
  });
});

it("a slow first read does not overwrite a later one, nor what was saved meanwhile", async () => {
  const answers: Array<(content: FileContent) => void> = [];
  const files = new Files();
  files.read = () => new Promise((resolve) => answers.push(resolve));
  const open = new OpenFiles(files);
  const first = open.open(entry("p"));
  const second = open.open(entry("p"));
  answers[1]?.(read({ content: "new", revision: "2" }));
  answers[0]?.(read({ content: "old" }));
  await Promise.all([first, second]);
  expect(open.active?.content).toMatchObject({ text: "new" });
  const file = only(open);
  type(file, 3, "!");
  const third = open.look(file);
  files.write = () => Promise.resolve("3");
  await open.save(file);
  answers[2]?.(read({ content: "new", revision: "2" }));
  await third;
  expect([file.revision, file.unsaved, file.edited?.content]).toEqual(["3", false, "new!"]);
});

it("a file whose time alone has changed is saved at once", async () => {
  const files = new Files().put("/workspace/a", "one");
  const open = await opened(files, "/workspace/a");
  const file = only(open);
  type(file, 0, "mine ");
  files.put("/workspace/a", "one");
  await open.save(file);
  expect([file.unsaved, file.trouble, files.texts.get("/workspace/a")?.content]).toEqual([false, null, "mine one"]);
  expect(files.written).toHaveLength(2);
});

describe("what is moved in the tree", () => {
  it("is followed with its unsaved text, which is saved where the file is now", async () => {
    const files = new Files().put("/workspace/a", "one");
    const open = await opened(files, "/workspace/a");
    const file = only(open);
    type(file, 0, "mine ");
    await file.draft.settled();
    expect([...files.kept.keys()]).toEqual(["/workspace/a"]);
    files.texts.set("/workspace/b", files.texts.get("/workspace/a")!);
    files.texts.delete("/workspace/a");
    await open.follow("/workspace/a", "/workspace/b", "b");
    expect([file.path, file.name, file.unsaved, open.activePath]).toEqual(["/workspace/b", "b", true, "/workspace/b"]);
    expect([...files.kept]).toEqual([["/workspace/b", expect.objectContaining({ path: "/workspace/b", content: "mine one" })]]);
    await open.save(file);
    expect(files.texts.get("/workspace/b")?.content).toBe("mine one");
    expect(files.texts.has("/workspace/a")).toBe(false);
    await file.draft.settled();
    expect([...files.kept]).toEqual([]);
  });

  it("takes along what is open in a folder, and nothing whose name only begins like it", async () => {
    const files = new Files().put("/workspace/a/x", "1").put("/workspace/ab", "2");
    const open = await opened(files, "/workspace/a/x", "/workspace/ab");
    await open.follow("/workspace/a", "/workspace/c/a", null);
    expect(open.files.map(({ path, name }) => [path, name])).toEqual([
      ["/workspace/c/a/x", "/workspace/a/x"],
      ["/workspace/ab", "/workspace/ab"],
    ]);
    expect(open.activePath).toBe("/workspace/ab");
  });
});

describe("a place in a file", () => {
  it("is shown as soon as there is a text, whoever has asked for it last", async () => {
    const files = new Files().put("/a", "one\ntwo three\n");
    const answers: Array<() => void> = [];
    const open = new OpenFiles({
      read: (path) => new Promise((resolve) => answers.push(() => void files.read(path).then(resolve))),
      write: (...args) => files.write(...args),
      drafts: files.drafts,
      keepDraft: files.keepDraft,
      dropDraft: files.dropDraft,
    });
    const opening = open.openAt(entry("/a"), { line: 2, column: 4, length: 5 }, false);
    // As when files may have changed just then: the second answer holds, and comes later.
    const looking = open.look(only(open));
    answers.shift()?.();
    await opening;
    expect(only(open).edited).toBeNull();
    answers.shift()?.();
    await looking;
    const parent = document.createElement("div");
    const end = only(open).edited?.show(parent);
    const selected = () => EditorView.findFromDOM(parent)?.state.selection.main;
    expect([selected()?.from, selected()?.to]).toEqual([8, 13]);
    // In a text that is there at once, also where there is no such place any more.
    void open.openAt(entry("/a"), { line: 99, column: 99, length: 9 }, false);
    expect([selected()?.from, selected()?.to]).toEqual([14, 14]);
    void open.openAt(entry("/a"), { line: 1, column: 0, length: 99 }, false);
    expect([selected()?.from, selected()?.to]).toEqual([0, 3]);
    end?.();
  });
});
