// Keeps the unsaved text of one file where it outlives the window: the newest of it, one write at a time.

import type { Draft } from "../bindings/Draft";
import type { ErrorReport } from "../bindings/ErrorReport";
import { reportOf } from "../lib/ipc/error";

/** How long nothing is typed before the text is kept. */
export const PAUSE_MS = 400;
/** How long it is not kept while somebody goes on typing. */
export const MOST_MS = 2_000;

export class DraftKeeper {
  /** Why the last text could not be kept; null when it was. */
  failure = $state.raw<ErrorReport | null>(null);

  readonly #current: () => Draft | null;
  readonly #keep: (draft: Draft) => Promise<void>;
  readonly #drop: () => Promise<void>;
  #timer: ReturnType<typeof setTimeout> | null = null;
  /** When the first change came that is not kept. */
  #since: number | null = null;
  /** Whether there is, or may be, a draft. */
  #kept = false;
  #busy = false;
  #work: Promise<unknown> = Promise.resolve();

  constructor(current: () => Draft | null, keep: (draft: Draft) => Promise<void>, drop: () => Promise<void>) {
    this.#current = current;
    this.#keep = keep;
    this.#drop = drop;
  }

  /** There is another text, or it was saved. */
  changed(): void {
    const now = Date.now();
    this.#since ??= now;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.flush(), Math.max(0, Math.min(PAUSE_MS, this.#since + MOST_MS - now)));
  }

  /** A draft of this file is there from earlier. */
  found(): void {
    this.#kept = true;
  }

  /** Keeps now what has changed, and waits until that is done. */
  async settled(): Promise<void> {
    this.flush();
    for (let work: Promise<unknown> | null = null; work !== this.#work; ) {
      work = this.#work;
      await work;
    }
  }

  /** Keeps now what has changed. */
  flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#busy || this.#since === null) return;
    this.#since = null;
    const draft = this.#current();
    if (draft === null && !this.#kept) return;
    this.#busy = true;
    this.#kept = true;
    this.#work = (draft === null ? this.#drop() : this.#keep(draft))
      .then(
        () => {
          this.failure = null;
          if (draft === null) this.#kept = false;
        },
        (thrown: unknown) => (this.failure = reportOf(thrown)),
      )
      .finally(() => {
        this.#busy = false;
        this.flush();
      });
  }
}
