// A search in the files of a session: what is searched for, what has been found so far, and where the keyboard stands in it.

import { SvelteSet } from "svelte/reactivity";

import type { FoundFile } from "../bindings/FoundFile";
import type { FoundLine } from "../bindings/FoundLine";
import type { SearchEnd } from "../bindings/SearchEnd";
import type { SearchNews } from "../bindings/SearchNews";
import { count } from "../lib/format";
import type { TextQuery } from "../lib/ipc/commands";
import { problemsOf, reportOf } from "../lib/ipc/error";

export interface Searcher {
  /** Begins a search and returns its id; `hear` gets what comes of it. */
  search: (query: TextQuery, hear: (news: SearchNews) => void) => Promise<string>;
  cancel: (searchId: string) => Promise<void>;
}

/** Where a file is to be shown: places are in UTF-16 units. */
export interface Place {
  line: number;
  column: number;
  length: number;
}

export type OpenAt = (file: { path: string; name: string }, place: Place, takesFocus: boolean) => void;

/** What is switched on and off beside the text. */
export type Switch = "case" | "word" | "regex";

export type ResultRow =
  | { kind: "file"; key: string; file: FoundFile; matches: number; open: boolean }
  | { kind: "line"; key: string; file: FoundFile; line: FoundLine };

/** How long after the last letter a search begins. */
const TYPED_MS = 250;

export class Search {
  text = $state("");
  regex = $state(false);
  case = $state(false);
  word = $state(false);
  include = $state("");
  exclude = $state("");
  ignored = $state(false);
  /** By path, in the order of the paths. */
  files = $state.raw<FoundFile[]>([]);
  /** How the search ended; null while it goes on, and before the first. */
  end = $state.raw<SearchEnd | null>(null);
  running = $state(false);
  /** What is wrong with the fields, by their names; and whatever else went wrong. */
  problems = $state.raw<Record<string, string>>({});
  failure = $state<string | null>(null);
  /** The row that the keyboard stands on, by its key. */
  cursor = $state<string | null>(null);
  /** Counts how often the cursor is to be brought into sight. */
  sought = $state(0);
  /** Files whose lines are folded away, by path. */
  readonly folded = new SvelteSet<string>();

  readonly #searcher: Searcher;
  readonly #onopen: OpenAt;
  /** Counts the searches; what comes of any but the last is not heard. */
  #turn = 0;
  #searchId: string | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** What was searched for last, to tell whether it is something else. */
  #last = "";

  constructor(searcher: Searcher, onopen: OpenAt) {
    this.#searcher = searcher;
    this.#onopen = onopen;
  }

  readonly rows: ResultRow[] = $derived.by(() => {
    const rows: ResultRow[] = [];
    for (const file of this.files) {
      const open = !this.folded.has(file.path);
      const matches = matchesOf(file);
      rows.push({ kind: "file", key: file.path, file, matches, open });
      if (!open) continue;
      for (const line of file.lines) rows.push({ kind: "line", key: `${file.path}\0${line.number}:${line.column}`, file, line });
    }
    return rows;
  });
  readonly #indexes = $derived(new Map(this.rows.map((row, index) => [row.key, index])));
  readonly active = $derived((this.cursor === null ? undefined : this.#indexes.get(this.cursor)) ?? -1);
  readonly matches = $derived(this.files.reduce((sum, file) => sum + matchesOf(file), 0));

  /** What has come of it, in one line; empty where nothing was searched for. */
  get summary(): string {
    const found = `${count(this.matches, "result")} in ${count(this.files.length, "file")}`;
    if (this.running) return this.matches === 0 ? "Searching…" : `${found}, searching…`;
    if (this.end === null || this.text === "") return "";
    if (this.matches === 0) return this.end.cancelled ? "Stopped before anything was found" : "No results";
    return this.end.cancelled ? `${found}, stopped` : found;
  }

  /** What the summary should be read with; null where it is all there is. */
  get remark(): string | null {
    if (this.end === null || this.running) return null;
    const parts: string[] = [];
    if (this.end.truncated) parts.push("More were found than are shown: narrow the search.");
    if (this.end.unread > 0) parts.push(`${count(this.end.unread, "file or folder", "files and folders")} could not be read.`);
    return parts.length === 0 ? null : parts.join(" ");
  }

  /** Searches a moment after the last letter. */
  typed(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#begin(), TYPED_MS);
  }

  toggle(which: Switch | "ignored"): void {
    this[which] = !this[which];
    this.now();
  }

  /** Searches at once. */
  now(): void {
    clearTimeout(this.#timer);
    this.#last = "";
    this.#begin();
  }

  /** Ends the search; what was found stays. */
  stop(): void {
    clearTimeout(this.#timer);
    const { running } = this;
    this.#drop();
    if (running) this.end = { searched: 0, matches: this.matches, truncated: false, unread: 0, cancelled: true, error: null };
  }

  /** Ends the search and forgets what was found. */
  clear(): void {
    this.#drop();
    this.text = "";
    this.#forget();
    this.#last = "";
  }

  fold(path: string, folded = !this.folded.has(path)): void {
    if (folded) this.folded.add(path);
    else this.folded.delete(path);
  }

  /** Folds all files, or unfolds them when they are. */
  foldAll(): void {
    const all = this.files.every(({ path }) => this.folded.has(path));
    this.folded.clear();
    if (!all) for (const { path } of this.files) this.folded.add(path);
    this.cursor = null;
  }

  activate(row: ResultRow, takesFocus: boolean): void {
    this.cursor = row.key;
    if (row.kind === "file") this.fold(row.file.path);
    else this.#open(row, takesFocus);
  }

  /** Goes to the next result, or the one before, and opens it. */
  step(by: 1 | -1): void {
    const { rows } = this;
    let at = this.active;
    for (let tried = 0; tried < rows.length; tried += 1) {
      at = at < 0 && by < 0 ? rows.length - 1 : (at + by + rows.length) % rows.length;
      const row = rows[at];
      if (row?.kind === "line") {
        this.cursor = row.key;
        this.sought += 1;
        return this.#open(row, true);
      }
    }
  }

  /** Moves by a key; returns whether it meant something. */
  key(key: string): boolean {
    const { rows, active } = this;
    const row = rows[active];
    switch (key) {
      case "ArrowDown":
        return this.#stand(Math.min(active + 1, rows.length - 1));
      case "ArrowUp":
        return this.#stand(Math.max(active - 1, 0));
      case "Home":
        return this.#stand(0);
      case "End":
        return this.#stand(rows.length - 1);
      case "ArrowRight":
        if (row?.kind === "file" && !row.open) this.fold(row.file.path, false);
        else if (row?.kind === "file") this.#stand(active + 1);
        return true;
      case "ArrowLeft":
        if (row?.kind === "file") this.fold(row.file.path, true);
        else if (row) this.#stand(this.#indexes.get(row.file.path) ?? active);
        return true;
      case "Enter":
      case " ":
        if (row) this.activate(row, key === "Enter");
        return true;
      default:
        return false;
    }
  }

  #stand(index: number): boolean {
    const row = this.rows[index];
    if (row) {
      this.cursor = row.key;
      this.sought += 1;
    }
    return true;
  }

  #open({ file, line }: Extract<ResultRow, { kind: "line" }>, takesFocus: boolean): void {
    const { number, column, length } = line;
    this.#onopen({ path: file.path, name: file.name }, { line: number, column, length }, takesFocus);
  }

  #begin(): void {
    const query = this.#query();
    const asked = JSON.stringify(query);
    if (asked === this.#last) return;
    this.#last = asked;
    this.#drop();
    this.#forget();
    if (query.query === "") return;
    const turn = this.#turn;
    this.running = true;
    const hear = (news: SearchNews) => {
      if (turn === this.#turn) this.#hear(news);
    };
    void this.#searcher.search(query, hear).then(
      (searchId) => {
        if (turn !== this.#turn) void this.#searcher.cancel(searchId).catch(() => {});
        else if (this.running) this.#searchId = searchId;
      },
      (thrown: unknown) => {
        if (turn !== this.#turn) return;
        this.running = false;
        const report = reportOf(thrown);
        this.problems = problemsOf(report);
        if (Object.keys(this.problems).length === 0) this.failure = report.message;
      },
    );
  }

  #hear(news: SearchNews): void {
    if ("files" in news) return this.#add(news.files);
    this.running = false;
    this.#searchId = null;
    this.end = news.end;
    this.failure = news.end.error?.message ?? null;
  }

  #add(found: FoundFile[]): void {
    const byPath = new Map(this.files.map((file) => [file.path, file]));
    for (const file of found) {
      const known = byPath.get(file.path);
      byPath.set(file.path, known ? { ...file, lines: [...known.lines, ...file.lines] } : file);
    }
    this.files = [...byPath.values()].sort((a, b) => order(a.path, b.path));
  }

  /** Ends the search that is under way: nobody waits for it any more. */
  #drop(): void {
    this.#turn += 1;
    this.running = false;
    const searchId = this.#searchId;
    this.#searchId = null;
    // One that cannot be told any more has ended with its connection.
    if (searchId !== null) void this.#searcher.cancel(searchId).catch(() => {});
  }

  #forget(): void {
    this.files = [];
    this.end = null;
    this.problems = {};
    this.failure = null;
    this.cursor = null;
    this.folded.clear();
  }

  #query(): TextQuery {
    const { text, regex, word, include, exclude, ignored } = this;
    return { query: text, regex, case: this.case, word, include: include.trim(), exclude: exclude.trim(), ignored };
  }
}

function matchesOf(file: FoundFile): number {
  return file.lines.reduce((sum, line) => sum + line.matches, 0);
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
