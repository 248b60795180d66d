import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { failure } from "../../test/sessions";
import type { LogNews } from "../bindings/LogNews";
import { CommandError } from "../lib/ipc/error";
import { ContainerLog, type LogCommands, MOST_CHARACTERS, MOST_LINES, partsOf } from "./log.svelte";

class Rust implements LogCommands {
  readonly acknowledged: number[] = [];
  readonly ended: number[] = [];
  hear: (news: LogNews) => void = () => {};
  before: string | null = null;
  refusal: CommandError | null = null;
  #last = 0;

  watchLog = async (_id: string | null | undefined, _tail: number, hear: (news: LogNews) => void) => {
    if (this.refusal) throw this.refusal;
    this.hear = hear;
    if (this.before !== null) hear({ kind: "text", text: this.before });
    return { watch_id: ++this.#last };
  };

  ackLog = async (watch: number) => {
    this.acknowledged.push(watch);
  };

  endWatch = async (watch: number) => {
    this.ended.push(watch);
  };
}

let rust: Rust;
let log: ContainerLog;

beforeEach(() => {
  vi.useFakeTimers();
  rust = new Rust();
  log = new ContainerLog(rust);
});

afterEach(() => {
  vi.useRealTimers();
});

async function print(...texts: string[]) {
  for (const text of texts) rust.hear({ kind: "text", text });
  await vi.advanceTimersByTimeAsync(200);
}

function texts(): string[] {
  return log.lines.map((line) => line.text);
}

it("shows what is printed and acknowledges each piece, also what came before the answer", async () => {
  rust.before = "one\ntwo\n";
  await log.open("a");
  expect(log.loading).toBe(true);
  await vi.advanceTimersByTimeAsync(200);
  expect(texts()).toEqual(["one", "two"]);
  expect(rust.acknowledged).toEqual([1]);
  await print("three\n", "\nfive\n");
  expect(texts()).toEqual(["one", "two", "three", "", "five"]);
  expect(rust.acknowledged).toEqual([1, 1, 1]);
  expect(log.loading).toBe(false);
});

it("says that nothing was printed, and not that it is being read for ever", async () => {
  await log.open("a");
  await vi.advanceTimersByTimeAsync(200);
  expect(log.loading).toBe(false);
  expect(log.lines).toEqual([]);
});

it("keeps the last lines within both bounds and says that others are gone", async () => {
  await log.open("a");
  await print(Array.from({ length: MOST_LINES + 3 }, (_, index) => `${index}\n`).join(""));
  expect(log.lines).toHaveLength(MOST_LINES);
  expect(log.lines[0]?.text).toBe("3");
  expect(log.cut).toBe(true);
  for (let count = 0; count < 30; count += 1) await print(`${"x".repeat(99_999)}\n`);
  expect(log.lines.reduce((sum, line) => sum + line.text.length, 0)).toBeLessThanOrEqual(MOST_CHARACTERS);
  expect(log.lines.length).toBeGreaterThan(10);
});

it("reads the next session's log from its beginning, and hears no more of the one before", async () => {
  await log.open("a");
  await print("of a\n");
  const late = rust.hear;
  await log.open("b");
  expect(rust.ended).toEqual([1]);
  late({ kind: "text", text: "still of a\n" });
  await print("of b\n");
  expect(texts()).toEqual(["of b"]);
  log.close();
  expect(rust.ended).toEqual([1, 2]);
  expect(log.lines).toEqual([]);
});

it("says that the container does not run, and why a log cannot be read", async () => {
  await log.open("a");
  rust.hear({ kind: "text", text: "last words\n" });
  rust.hear({ kind: "ended", error: null });
  expect(texts(), "nothing is waited for any more").toEqual(["last words"]);
  expect(log.ended).toBe(true);
  rust.refusal = new CommandError(failure("SESSION_NOT_READY"));
  await log.open("a");
  expect(log.failure?.error).toBe("SESSION_NOT_READY");
  expect(log.loading).toBe(false);
});

it("finds the newest line first and goes round", async () => {
  await log.open("a");
  await print("GET /a\nPOST /b\nget /c\n");
  expect(log.seek("get")?.text).toBe("get /c");
  expect(log.go(1)?.text).toBe("GET /a");
  expect(log.go(-1)?.text).toBe("get /c");
  await print("Get /d\n");
  expect(log.go(1)?.text).toBe("Get /d");
  expect(log.seek("nothing")).toBeNull();
  expect(log.matches).toEqual([]);
  log.seek("post");
  log.onlyMatching = true;
  expect(log.shown.map((line) => line.text)).toEqual(["POST /b"]);
  expect(log.text()).toBe("POST /b\n");
  log.seek("");
  expect(log.shown, "nothing is sought: all is shown").toHaveLength(4);
});

it.each([
  ["plain", "", ["plain"]],
  ["a needle in Needles", "needle", ["a ", "needle", " in ", "Needle", "s"]],
  ["aaa", "aa", ["", "aa", "a"]],
  ["no match", "x", ["no match"]],
  // The small letter of İ is two characters.
  ["İstanbul is", "is", ["İstanbul is"]],
])("cuts %j at %j", (text, query, parts) => expect(partsOf(text, query)).toEqual(parts));
