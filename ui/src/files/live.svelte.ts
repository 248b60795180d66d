// Keeps what is shown of a session as it is on the disk: says what is watched, and has what changes read again.

import type { FilesChanged } from "../bindings/FilesChanged";
import type { Watching } from "../bindings/Watching";

/** Watches these in place of what was watched. */
export type Watch = (paths: string[]) => Promise<Watching>;

/** How far what is shown follows the disk: all of it, some, or none. */
export type Following = "all" | "some" | "none";

/** How long nothing is read again after something was, at least, and as a multiple of how long that took. */
const REST_MS = 50;
const REST_FACTOR = 2;

export class Live {
  following = $state<Following>("none");
  /** When so much changed at once that all was read again; null until that happens. */
  overflowedAt = $state.raw<Date | null>(null);

  readonly #watch: Watch;
  readonly #renew: (paths: string[]) => Promise<void>;
  #shown: string[] = [];
  #watched = new Set<string>();
  #asking = false;
  #again = false;
  readonly #due = new Set<string>();
  #renewing = false;

  /** `renew` reads again what these paths stand for. */
  constructor(watch: Watch, renew: (paths: string[]) => Promise<void>) {
    this.#watch = watch;
    this.#renew = renew;
  }

  /** These are shown now, and nothing else. */
  async show(paths: string[]): Promise<void> {
    this.#shown = paths;
    this.#again = true;
    if (this.#asking) return;
    this.#asking = true;
    while (this.#again) {
      this.#again = false;
      await this.#ask(this.#shown);
    }
    this.#asking = false;
  }

  async #ask(paths: string[]): Promise<void> {
    if (paths.length === this.#watched.size && paths.every((path) => this.#watched.has(path))) return;
    try {
      const { limited } = await this.#watch(paths);
      // What has changed between the read and the watch was not told.
      const added = paths.filter((path) => !this.#watched.has(path));
      this.#watched = new Set(paths);
      this.following = paths.length === 0 ? "none" : limited ? "some" : "all";
      void this.#changed(added);
    } catch {
      // What is shown is as of when it was read, and says so. It is tried again when something else is shown.
      this.#watched.clear();
      this.following = "none";
    }
  }

  hear({ paths, overflowed }: FilesChanged): void {
    if (overflowed) this.overflowedAt = new Date();
    void this.#changed(paths);
    // Whoever tells can be asked again.
    if (this.following === "none") void this.show(this.#shown);
  }

  /** Has them read again, one after another and no faster than that can be done. */
  async #changed(paths: string[]): Promise<void> {
    for (const path of paths) this.#due.add(path);
    if (this.#renewing) return;
    this.#renewing = true;
    while (this.#due.size > 0) {
      const due = this.#shown.filter((path) => this.#due.has(path));
      this.#due.clear();
      const begin = performance.now();
      await this.#renew(due);
      const took = performance.now() - begin;
      await new Promise((resolve) => setTimeout(resolve, Math.max(REST_MS, REST_FACTOR * took)));
    }
    this.#renewing = false;
  }
}
