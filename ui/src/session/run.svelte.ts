// What the window knows of one session: its entry in the list and how its current or last run goes.
// News and snapshots come in from outside; nothing here asks for anything.

import type { ErrorReport } from "../bindings/ErrorReport";
import type { ExportEvent } from "../bindings/ExportEvent";
import type { ExportProgress } from "../bindings/ExportProgress";
import type { Phase } from "../bindings/Phase";
import type { Progress } from "../bindings/Progress";
import type { Session } from "../bindings/Session";
import type { SessionState } from "../bindings/SessionState";
import type { SessionStatus } from "../bindings/SessionStatus";
import type { TimingReport } from "../bindings/TimingReport";
import type { Undone } from "../bindings/Undone";
import type { SessionNews } from "../lib/ipc/events";

/** A run of which nothing was heard yet. */
export const NOTHING_YET: Progress = {
  percent: 0,
  eta_ms: null,
  eta: { kind: "calculating" },
  eta_low_ms: null,
  eta_high_ms: null,
  elapsed_ms: 0,
  idle_ms: 0,
  finished: [],
  pull: null,
};

/** What a run is for, as the title says it. */
export type Doing = "Creating" | "Opening" | "Resuming" | "Restarting" | "Rebuilding";

/** What a run that begins in this state is for, if nothing else was asked for. */
export const DOING: Record<SessionState, Doing> = {
  paused: "Opening",
  stopped: "Opening",
  interrupted: "Resuming",
  failed: "Creating",
  cancelled: "Creating",
  provisioning: "Creating",
  ready: "Opening",
};

/** What was known of a run when the list was asked for. */
export interface Known {
  seq: number;
  stateSeq: number;
  heard: number;
  begun: number;
  asking: boolean;
}

/** Nothing was. */
export const UNKNOWN: Known = { seq: -1, stateSeq: -1, heard: 0, begun: 0, asking: false };

export class Run {
  readonly id: string;

  session = $state.raw<Session | null>(null);
  state = $state<SessionState>("provisioning");
  phase = $state<Phase>("Starting");
  progress = $state.raw<Progress>(NOTHING_YET);
  message = $state("");
  /** The messages of this run, oldest first, without repetition. */
  messages = $state<string[]>([]);
  error = $state.raw<ErrorReport | null>(null);
  undone = $state.raw<Undone[]>([]);
  /** Where the time of the last run went; null while none is known to have ended. */
  timing = $state.raw<TimingReport | null>(null);
  /** From the press of Cancel until the run has ended. */
  cancelling = $state(false);
  /** Why a command about this session was refused. */
  refusal = $state.raw<ErrorReport | null>(null);
  /** From the press of a button until the answer. */
  asking = $state(false);
  /** From the press of Stop until the answer. */
  stopping = $state(false);
  doing = $state<Doing>("Creating");
  /** How far the export under way is. */
  export = $state.raw<ExportProgress | null>(null);
  /** From the press of Cancel until the export has ended. */
  cancellingExport = $state(false);
  /** Whether anything was heard of it since the window loaded. */
  seeded = $state(false);

  /** The last event that is included here. */
  seq = $state(-1);
  /** The last of them that told the state; an export goes on beside it. */
  stateSeq = -1;
  /** How many events were taken. */
  heard = 0;
  /** How many runs began here; a snapshot asked for before the last one is stale. */
  begun = 0;
  #heardAt = $state(0);

  constructor(id: string) {
    this.id = id;
  }

  readonly name = $derived.by(() => this.session?.name ?? this.id.slice(0, 8));
  /** What to say of it in a copy. */
  readonly about = $derived.by(() => ({ session: this.id, image: this.session?.image ?? "" }));
  readonly running = $derived.by(() => this.state === "provisioning");
  /** Whether there is nothing but its files. */
  readonly kept = $derived.by(() => this.state === "stopped" && this.session?.has_container === false);
  /** Whether the way to its files is being made again; its programs go on meanwhile. */
  readonly reconnecting = $derived.by(() => this.state === "ready" && this.session?.reconnecting === true);
  readonly leftovers = $derived.by(() => this.session?.leftovers ?? []);
  /** Of a session that the window has only in its list, the snapshot tells. */
  readonly mayTellTiming = $derived.by(() => !this.running && (this.timing !== null || !this.seeded));

  /** Takes an event, unless it is no news. */
  hear(news: SessionNews, now: number): boolean {
    if (news.seq <= this.seq) return false;
    this.seq = news.seq;
    this.heard += 1;
    if (news.kind === "export") {
      this.#hearExport(news);
      return true;
    }
    this.stateSeq = news.seq;
    this.seeded = true;
    switch (news.kind) {
      case "progress":
        if (!this.running) this.#begin(this.asking ? this.doing : DOING[this.state]);
        this.state = "provisioning";
        this.error = null;
        this.timing = null;
        this.phase = news.phase;
        this.#take(news.progress, news.message, now);
        break;
      case "ready":
        this.session = news.session;
        this.phase = "Ready";
        this.timing = news.timing;
        this.#take(news.progress, "", now);
        this.#end("ready");
        break;
      case "failed":
        this.phase = news.phase;
        this.error = news.error;
        this.undone = news.undone;
        this.timing = news.timing;
        this.#freeze(now);
        this.#end("failed");
        break;
      case "cancelled":
        this.phase = news.phase;
        this.undone = news.undone;
        this.timing = news.timing;
        this.#freeze(now);
        this.#end("cancelled");
        break;
      default:
        news satisfies never;
    }
    return true;
  }

  /** Takes a snapshot, unless an event overtook it. */
  seed(status: SessionStatus, now: number): boolean {
    if (status.seq < this.stateSeq) return false;
    if (status.seq >= this.seq) this.#takeExport(status.session.export);
    this.seq = Math.max(this.seq, status.seq);
    this.stateSeq = status.seq;
    this.seeded = true;
    this.session = status.session;
    this.state = status.state;
    this.phase = status.phase;
    this.error = status.error;
    this.undone = status.undone;
    this.timing = status.timing;
    this.#take(status.progress, status.message, now);
    if (!this.running) this.cancelling = false;
    return true;
  }

  /** What is known now, to be given to `list` with the answer. */
  known(): Known {
    const { seq, stateSeq, heard, begun, asking } = this;
    return { seq, stateSeq, heard, begun, asking };
  }

  /**
   * Takes the list's view, which knows no events: what was heard or begun since it was asked for wins.
   * Returns whether a state that was known has changed.
   */
  list(session: Session, asked: Known): boolean {
    const isNew = this.session === null;
    this.session = session;
    if (this.seq === asked.seq) this.#takeExport(session.export);
    const overtaken = this.stateSeq !== asked.stateSeq || this.begun !== asked.begun || this.asking || asked.asking;
    if (overtaken || this.state === session.state) return false;
    if (!isNew) {
      if (session.state === "provisioning") this.#begin(DOING[this.state]);
      this.cancelling = false;
      this.seeded = false;
    }
    this.state = session.state;
    return !isNew;
  }

  /** Begins anew before the first event of the new run, so that nothing old is shown. */
  restart(now: number): void {
    this.begun += 1;
    this.seeded = true;
    this.state = "provisioning";
    this.phase = "Starting";
    this.error = null;
    this.timing = null;
    this.#begin(this.doing);
    this.#take(NOTHING_YET, "", now);
  }

  /** Milliseconds since the run began; stands still once it is over. */
  elapsed(now: number): number {
    return this.progress.elapsed_ms + (this.running ? this.sinceHeard(now) : 0);
  }

  /** Milliseconds that the current phase has taken. */
  phaseElapsed(now: number): number {
    const before = this.progress.finished.reduce((sum, finished) => sum + finished.elapsed_ms, 0);
    return Math.max(0, this.elapsed(now) - before);
  }

  /** Milliseconds since the progress was heard that is kept here. */
  sinceHeard(now: number): number {
    return Math.max(0, now - this.#heardAt);
  }

  /** Forgets what the run before told. */
  #begin(doing: Doing): void {
    this.doing = doing;
    this.refusal = null;
    this.undone = [];
    this.messages = [];
    this.cancelling = false;
  }

  #hearExport(news: ExportEvent): void {
    this.#takeExport(news.outcome === null ? { bytes: news.bytes, total_bytes: news.total_bytes } : null);
  }

  #takeExport(progress: ExportProgress | null): void {
    this.export = progress;
    if (progress === null) this.cancellingExport = false;
  }

  #take(progress: Progress, message: string, now: number): void {
    this.progress = progress;
    this.#heardAt = now;
    this.message = message;
    if (message !== "" && this.messages.at(-1) !== message) {
      this.messages = [...this.messages.slice(-49), message];
    }
  }

  #freeze(now: number): void {
    const { eta_ms, eta, eta_low_ms, eta_high_ms } = NOTHING_YET;
    this.progress = { ...this.progress, elapsed_ms: this.elapsed(now), eta_ms, eta, eta_low_ms, eta_high_ms };
    this.#heardAt = now;
  }

  #end(state: SessionState): void {
    this.state = state;
    this.cancelling = false;
    this.refusal = null;
    if (state === "ready") this.error = null;
  }
}
