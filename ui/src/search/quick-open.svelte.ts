// Quick open: files by what is typed of their names, asked for with each letter. One question is under way at a time, and
// what was typed meanwhile is the next; the answer to what is not typed any more is not waited for.

import type { FoundFiles } from "../bindings/FoundFiles";
import type { FoundName } from "../bindings/FoundName";
import { reportOf } from "../lib/ipc/error";

/** What is enough to open a file. */
export interface FileName {
  path: string;
  name: string;
}

/** Finds files; `fresh` tells that names which were read before do not count. */
export type FindFiles = (query: string, fresh: boolean) => Promise<FoundFiles>;

export interface QuickRow {
  name: string;
  path: string;
  folder: string;
  nameMarks: Array<[number, number]>;
  folderMarks: Array<[number, number]>;
  ignored: boolean;
  /** Whether it was open not long ago. */
  recent: boolean;
}

/** How long until names are asked for again that were not all read. */
const AGAIN_MS = 60;

export class QuickOpen {
  shown = $state(false);
  text = $state("");
  /** The row that Enter opens. */
  cursor = $state(0);
  found = $state.raw<FoundFiles | null>(null);
  failure = $state<string | null>(null);

  readonly #find: FindFiles;
  readonly #recent: () => FileName[];
  readonly #onopen: (file: FileName) => void;
  /** What the answer that is shown was about. */
  #answered: string | null = $state(null);
  #asking = false;
  #again = false;
  #fresh = true;
  /** Enter was pressed before there was an answer to what is typed. */
  #accepting = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(find: FindFiles, recent: () => FileName[], onopen: (file: FileName) => void) {
    this.#find = find;
    this.#recent = recent;
    this.#onopen = onopen;
  }

  readonly rows: QuickRow[] = $derived.by(() => {
    const found = (this.found?.entries ?? []).map(rowOf);
    if (this.#answered?.trim() !== "" || this.text.trim() !== "") return found;
    const recent = this.#recent();
    const known = new Set(recent.map(({ path }) => path));
    return [...recent.map(recentRow), ...found.filter((row) => !known.has(row.path))];
  });

  /** Whether what is shown is the last word about what is typed. */
  get settled(): boolean {
    return this.failure !== null || (this.#answered === this.text && (this.found?.settled ?? false));
  }

  show(): void {
    this.shown = true;
    this.text = "";
    this.cursor = 0;
    this.found = null;
    this.failure = null;
    this.#answered = null;
    this.#accepting = false;
    this.#fresh = true;
    this.#ask();
  }

  hide(): void {
    this.shown = false;
    this.#accepting = false;
    clearTimeout(this.#timer);
  }

  type(text: string): void {
    this.text = text;
    this.cursor = 0;
    this.#accepting = false;
    this.#ask();
  }

  /** Moves by so many rows, around the ends where that is one. */
  move(by: number): void {
    const { length } = this.rows;
    if (length === 0) return;
    const next = this.cursor + by;
    this.cursor = Math.abs(by) === 1 ? (next + length) % length : Math.min(Math.max(next, 0), length - 1);
  }

  /** Opens a row, or the one that the keyboard stands on as soon as it is known. */
  accept(row?: QuickRow): void {
    const chosen = row ?? (this.#answered === this.text ? this.rows[this.cursor] : undefined);
    if (chosen) {
      this.hide();
      this.#onopen({ path: chosen.path, name: chosen.name });
    } else this.#accepting = !this.settled;
  }

  #ask(): void {
    clearTimeout(this.#timer);
    this.#again = true;
    if (!this.#asking) void this.#askUntilAnswered();
  }

  async #askUntilAnswered(): Promise<void> {
    this.#asking = true;
    while (this.#again) {
      this.#again = false;
      const { text } = this;
      const fresh = this.#fresh;
      this.#fresh = false;
      try {
        const found = await this.#find(text, fresh);
        if (this.shown) this.#take(text, found);
      } catch (thrown) {
        if (this.text === text) this.failure = reportOf(thrown).message;
      }
    }
    this.#asking = false;
  }

  #take(text: string, found: FoundFiles): void {
    // An answer to what was typed before is better than none, until the next.
    this.found = found;
    this.failure = null;
    this.#answered = text;
    this.cursor = Math.min(this.cursor, Math.max(this.rows.length - 1, 0));
    if (text !== this.text) return;
    if (!found.settled) this.#timer = setTimeout(() => this.#ask(), AGAIN_MS);
    if (!this.#accepting) return;
    if (this.rows.length > 0) this.accept();
    else this.#accepting = !found.settled;
  }
}

function rowOf({ name, path, folder, name_marks, folder_marks, ignored }: FoundName): QuickRow {
  return { name, path, folder, nameMarks: name_marks, folderMarks: folder_marks, ignored, recent: false };
}

function recentRow({ name, path }: FileName): QuickRow {
  // A path is shown as it is where that is all there is; what is no text in it is rare.
  const folder = path.split("/").slice(2, -1).join("/");
  return { name, path, folder, nameMarks: [], folderMarks: [], ignored: false, recent: true };
}
