// What a session's container has printed, as far as the window keeps it: the last lines, within bounds. The Rust side sends
// only as much as was taken, and makes every line harmless.

import type { ErrorReport } from "../bindings/ErrorReport";
import type { LogNews } from "../bindings/LogNews";
import type * as commands from "../lib/ipc/commands";
import { reportOf } from "../lib/ipc/error";

/** The commands that this needs; tests bring their own. */
export type LogCommands = Pick<typeof commands, "watchLog" | "ackLog" | "endWatch">;

/** The most lines and characters that are kept. */
export const MOST_LINES = 10_000;
export const MOST_CHARACTERS = 2_000_000;
/** What is printed is shown this often, so that a flood is little work. */
const SHOW_MS = 100;

export interface LogLine {
  /** Its place among all lines that were ever shown. */
  number: number;
  text: string;
}

export class ContainerLog {
  lines = $state.raw<readonly LogLine[]>([]);
  /** Whether lines that were here are here no more. */
  cut = $state(false);
  /** Whether no more comes, because the container does not run. */
  ended = $state(false);
  /** Whether what there is has not come yet. */
  loading = $state(false);
  failure = $state.raw<ErrorReport | null>(null);

  query = $state("");
  onlyMatching = $state(false);
  /** The place of the match that was gone to, among all matches. */
  at = $state<number | null>(null);

  readonly #commands: LogCommands;
  #watch: number | null = null;
  #turn = 0;
  #count = 0;
  #characters = 0;
  /** What was sent and is not shown yet; each piece is to be acknowledged. */
  #waiting: string[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(logCommands: LogCommands) {
    this.#commands = logCommands;
  }

  readonly #sought = $derived.by(() => this.query.toLocaleLowerCase());
  /** The lines in which the query is. */
  readonly matches = $derived.by(() => {
    const sought = this.#sought;
    return sought === "" ? [] : this.lines.filter((line) => line.text.toLocaleLowerCase().includes(sought));
  });
  readonly shown = $derived.by(() => (this.onlyMatching && this.#sought !== "" ? this.matches : this.lines));
  readonly current = $derived.by(() => (this.at === null ? null : (this.matches[this.at] ?? null)));

  /** Reads the log of this session from now on. */
  async open(id: string): Promise<void> {
    this.close();
    const turn = this.#turn;
    this.loading = true;
    try {
      const { watch_id } = await this.#commands.watchLog(id, MOST_LINES, (news) => {
        if (turn === this.#turn) this.#hear(news);
      });
      if (turn !== this.#turn) return this.#forget(watch_id);
      this.#watch = watch_id;
      // What came before the answer is acknowledged by its name; an empty log says nothing by itself.
      if (!this.ended) this.#wait();
    } catch (thrown) {
      if (turn !== this.#turn) return;
      this.failure = reportOf(thrown);
      this.loading = false;
    }
  }

  /** Reads no more, and keeps nothing. */
  close(): void {
    this.#turn += 1;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#watch !== null) this.#forget(this.#watch);
    this.#watch = null;
    this.#waiting = [];
    this.#count = 0;
    this.#characters = 0;
    this.lines = [];
    this.cut = false;
    this.ended = false;
    this.loading = false;
    this.failure = null;
    this.at = null;
  }

  /** Goes to the next match, or the one before; from the end to the beginning and back. */
  go(step: 1 | -1): LogLine | null {
    const many = this.matches.length;
    if (many === 0) {
      this.at = null;
    } else if (this.at === null) {
      this.at = step === 1 ? 0 : many - 1;
    } else {
      this.at = (Math.min(this.at, many - 1) + step + many) % many;
    }
    return this.current;
  }

  /** Looks for something else: the newest line that has it is gone to. */
  seek(query: string): LogLine | null {
    this.query = query;
    this.at = null;
    return this.go(-1);
  }

  /** All lines that are shown, for the clipboard. */
  text(): string {
    return this.shown.map((line) => `${line.text}\n`).join("");
  }

  #hear(news: LogNews): void {
    switch (news.kind) {
      case "text":
        this.#waiting.push(news.text);
        this.#wait();
        break;
      case "ended":
        this.ended = true;
        this.#show();
        this.failure = news.error;
        break;
      default:
        news satisfies never;
    }
  }

  #wait(): void {
    this.#timer ??= setTimeout(() => this.#show(), SHOW_MS);
  }

  #show(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.loading = false;
    const pieces = this.#waiting;
    // Without the name of the watch nothing can be acknowledged yet; the Rust side sends a few pieces at most.
    const watch = this.#watch;
    if (watch !== null) pieces.forEach(() => void this.#commands.ackLog(watch).catch(() => {}));
    else if (pieces.length > 0 && !this.ended) return;
    this.#waiting = [];
    const added = pieces.join("").split("\n");
    // Each line has its break.
    added.pop();
    if (added.length === 0) return;
    const lines = [...this.lines, ...added.map((text) => ({ number: ++this.#count, text }))];
    this.#characters += added.reduce((sum, text) => sum + text.length, 0);
    let first = 0;
    while (lines.length - first > MOST_LINES || (this.#characters > MOST_CHARACTERS && first < lines.length - 1)) {
      this.#characters -= lines[first]?.text.length ?? 0;
      first += 1;
    }
    if (first > 0) this.cut = true;
    this.lines = first > 0 ? lines.slice(first) : lines;
  }

  #forget(watch: number): void {
    // One that has ended by itself needs no end.
    this.#commands.endWatch(watch).catch(() => {});
  }
}

/** Cuts a line where the query is in it: every second part is it. */
export function partsOf(text: string, query: string): string[] {
  const sought = query.toLocaleLowerCase();
  const parts: string[] = [];
  let from = 0;
  if (sought === "") return [text];
  const lower = text.toLocaleLowerCase();
  // Where the small letters are not as many as the capital ones, places in one are none in the other.
  if (lower.length !== text.length) return [text];
  for (let at = lower.indexOf(sought); at >= 0; at = lower.indexOf(sought, from)) {
    parts.push(text.slice(from, at), text.slice(at, at + sought.length));
    from = at + sought.length;
  }
  parts.push(text.slice(from));
  return parts;
}
