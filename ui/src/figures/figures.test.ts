import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { failure } from "../../test/sessions";
import type { Figures } from "../bindings/Figures";
import type { FiguresNews } from "../bindings/FiguresNews";
import type { Usage } from "../bindings/Usage";
import { CommandError } from "../lib/ipc/error";
import { type FigureCommands, SessionFigures, SPAN_MS } from "./figures.svelte";

const FIGURES: Figures = { cpu: 3, cpu_limit: 200, memory: 1_000, memory_limit: 2_000, pids: 4, pids_limit: 100 };
const USAGE: Usage = { size_bytes: 1, stored_bytes: 2, at_least: false, modified_ms: null, free_bytes: 3, disk_bytes: 100, other_volumes: [] };

/** Watches that are under way, by the session's id, as the Rust side has them. */
class Rust implements FigureCommands {
  readonly asked: string[] = [];
  readonly ended: number[] = [];
  hear: (news: FiguresNews) => void = () => {};
  answer: () => Promise<Figures> = () => Promise.resolve(FIGURES);
  usage: () => Promise<Usage> = () => Promise.resolve(USAGE);
  #last = 0;

  watchFigures = async (id: string | null | undefined, hear: (news: FiguresNews) => void) => {
    this.asked.push(String(id));
    this.hear = hear;
    const watch_id = ++this.#last;
    return { watch_id, ...(await this.answer()) };
  };

  endWatch = async (watch: number) => {
    this.ended.push(watch);
  };

  sessionUsage = () => this.usage();
}

const clock = { now: 0 };
let rust: Rust;
let figures: SessionFigures;

beforeEach(() => {
  vi.useFakeTimers();
  clock.now = 1_000;
  rust = new Rust();
  figures = new SessionFigures(rust, () => clock.now);
});

afterEach(() => {
  vi.useRealTimers();
});

async function settle() {
  await vi.advanceTimersByTimeAsync(0);
}

it("measures nothing until somebody looks, and nothing more when nobody does", async () => {
  await vi.advanceTimersByTimeAsync(60_000);
  expect(rust.asked).toEqual([]);
  figures.look("a");
  figures.look("a");
  await settle();
  expect(rust.asked).toEqual(["a"]);
  expect(figures.now).toMatchObject(FIGURES);
  figures.look(null);
  expect(rust.ended).toEqual([1]);
  expect(figures.now).toBeNull();
  rust.hear({ kind: "figures", ...FIGURES });
  expect(figures.now, "what comes late is not shown").toBeNull();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(rust.asked).toEqual(["a"]);
});

it("ends a watch whose answer comes when nobody looks any more", async () => {
  let answer: (figures: Figures) => void = () => {};
  rust.answer = () => new Promise((done) => (answer = done));
  figures.look("a");
  figures.look("b");
  answer(FIGURES);
  await settle();
  expect(rust.ended).toEqual([]);
  figures.look(null);
  rust.answer = () => Promise.resolve(FIGURES);
  figures.look("c");
  figures.look(null);
  await settle();
  expect(rust.asked).toEqual(["a", "b", "c"]);
  // That of `a` was never answered; that of `c` was, too late.
  expect(rust.ended).toContain(3);
  expect(figures.now).toBeNull();
});

it("remembers two minutes of the session that is looked at, also over a break, and of no other", async () => {
  figures.look("a");
  await settle();
  for (let second = 0; second < 300; second += 1) {
    clock.now += 1_000;
    rust.hear({ kind: "figures", ...FIGURES, cpu: second });
  }
  expect(figures.history).toHaveLength(SPAN_MS / 1_000 + 1);
  expect(figures.history.at(-1)?.figures.cpu).toBe(299);
  figures.look(null);
  clock.now += 5_000;
  figures.look("a");
  await settle();
  expect(figures.history.length).toBeGreaterThan(100);
  figures.look("b");
  expect(figures.history).toEqual([]);
});

it("keeps no more than a few hundred figures, however quickly they come", async () => {
  figures.look("a");
  await settle();
  for (let count = 0; count < 10_000; count += 1) rust.hear({ kind: "figures", ...FIGURES });
  expect(figures.history).toHaveLength(240);
});

it("says why nothing can be measured and tries again while somebody looks", async () => {
  rust.answer = () => Promise.reject(new CommandError(failure("ENGINE_SILENT")));
  figures.look("a");
  await settle();
  expect(figures.failure?.error).toBe("ENGINE_SILENT");
  rust.answer = () => Promise.resolve(FIGURES);
  await vi.advanceTimersByTimeAsync(5_000);
  expect(figures.failure).toBeNull();
  expect(figures.now).not.toBeNull();
  rust.hear({ kind: "ended", error: null });
  expect(figures.now).toBeNull();
  await vi.advanceTimersByTimeAsync(5_000);
  expect(figures.now).not.toBeNull();
  rust.hear({ kind: "ended", error: failure("ENGINE_SILENT") });
  expect(figures.now).toBeNull();
  figures.look(null);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(rust.asked).toEqual(["a", "a", "a"]);
  expect(rust.ended, "one that has ended needs no end").toEqual([]);
});

it("measures the files when it is told to, once at a time, and forgets them with the session", async () => {
  let answer: (usage: Usage) => void = () => {};
  const usage = vi.fn(() => new Promise<Usage>((done) => (answer = done)));
  rust.usage = usage;
  await figures.measureDisk();
  expect(usage, "nobody looks").not.toHaveBeenCalled();
  figures.look("a");
  void figures.measureDisk();
  void figures.measureDisk();
  expect(usage).toHaveBeenCalledTimes(1);
  expect(figures.measuringDisk).toBe(true);
  answer(USAGE);
  await settle();
  expect(figures.usage).toEqual(USAGE);
  expect(figures.warnings.map((warning) => warning.of)).toEqual(["disk"]);
  void figures.measureDisk();
  figures.look("b");
  answer(USAGE);
  await settle();
  expect(figures.usage, "that of another session").toBeNull();
});
