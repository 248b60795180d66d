// What the session in front uses: measured by the Rust side while somebody looks, and pushed. Nothing here asks again and
// again; who does not look any more says so.

import type { ErrorReport } from "../bindings/ErrorReport";
import type { Figures } from "../bindings/Figures";
import type { FiguresNews } from "../bindings/FiguresNews";
import type { Usage } from "../bindings/Usage";
import type * as commands from "../lib/ipc/commands";
import { reportOf } from "../lib/ipc/error";
import { warningsOf } from "./limits";

/** The commands that this needs; tests bring their own. */
export type FigureCommands = Pick<typeof commands, "watchFigures" | "endWatch" | "sessionUsage">;

/** What is remembered for the plots, in milliseconds. */
export const SPAN_MS = 120_000;
/** The most figures that are remembered, however often an engine tells them. */
const MOST_KEPT = 240;
/** After a failure it is tried again this much later. */
const AGAIN_MS = 5_000;

/** Figures, and when they were heard. */
export interface Sample {
  at: number;
  figures: Figures;
}

export class SessionFigures {
  /** The last figures; null while nothing is measured. */
  now = $state.raw<Figures | null>(null);
  history = $state.raw<readonly Sample[]>([]);
  /** Why nothing can be measured. */
  failure = $state.raw<ErrorReport | null>(null);
  /** What the files take; null when not measured. */
  usage = $state.raw<Usage | null>(null);
  measuringDisk = $state(false);

  readonly #commands: FigureCommands;
  readonly #clock: () => number;
  /** The session that is looked at, and the one that the history is of. */
  #id: string | null = null;
  #of: string | null = null;
  #watch: number | null = null;
  /** Counts what was begun: what comes late belongs to none. */
  #turn = 0;
  #again: ReturnType<typeof setTimeout> | undefined;

  constructor(figureCommands: FigureCommands, clock: () => number = () => performance.now()) {
    this.#commands = figureCommands;
    this.#clock = clock;
  }

  readonly warnings = $derived.by(() => warningsOf(this.now, this.usage));

  /** Looks at this session from now on, and at no other; null for none. */
  look(id: string | null): void {
    if (id === this.#id) return;
    this.#end();
    this.#id = id;
    if (id === null) return;
    if (id !== this.#of) {
      this.#of = id;
      this.history = [];
      this.usage = null;
    }
    void this.#begin(id);
  }

  /** Measures what the files of the session take, and what is free beside them. */
  async measureDisk(): Promise<void> {
    const id = this.#id;
    if (id === null || this.measuringDisk) return;
    this.measuringDisk = true;
    try {
      const usage = await this.#commands.sessionUsage(id);
      if (this.#of === id) this.usage = usage;
    } catch {
      // It is said as not known.
      if (this.#of === id) this.usage = null;
    } finally {
      this.measuringDisk = false;
    }
  }

  async #begin(id: string): Promise<void> {
    const turn = ++this.#turn;
    try {
      const { watch_id, ...figures } = await this.#commands.watchFigures(id, (news) => {
        if (turn === this.#turn) this.#hear(news);
      });
      if (turn !== this.#turn) return this.#forget(watch_id);
      this.#watch = watch_id;
      // What was pushed meanwhile is newer.
      if (this.now === null) this.#take(figures);
    } catch (thrown) {
      if (turn === this.#turn) this.#fail(reportOf(thrown));
    }
  }

  #hear(news: FiguresNews): void {
    switch (news.kind) {
      case "figures":
        this.#take(news);
        break;
      case "ended":
        this.#watch = null;
        this.#fail(news.error);
        break;
      default:
        news satisfies never;
    }
  }

  #take(figures: Figures): void {
    const at = this.#clock();
    this.now = figures;
    this.failure = null;
    const kept = this.history.filter((sample) => sample.at >= at - SPAN_MS).slice(1 - MOST_KEPT);
    this.history = [...kept, { at, figures }];
  }

  /** Nothing is measured any more, though somebody looks. */
  #fail(report: ErrorReport | null): void {
    this.now = null;
    this.failure = report;
    clearTimeout(this.#again);
    const id = this.#id;
    this.#again = setTimeout(() => {
      if (id !== null && id === this.#id) void this.#begin(id);
    }, AGAIN_MS);
  }

  #end(): void {
    this.#turn += 1;
    clearTimeout(this.#again);
    if (this.#watch !== null) this.#forget(this.#watch);
    this.#watch = null;
    this.#id = null;
    this.now = null;
    this.failure = null;
  }

  #forget(watch: number): void {
    // One that has ended by itself needs no end.
    this.#commands.endWatch(watch).catch(() => {});
  }
}
