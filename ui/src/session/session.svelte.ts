// What the window knows of one session: how it stands in the list, and how its current or last run goes.
// Events, snapshots and lists come in from outside, in any order; the one with the newer `seq` holds.
// Nothing here asks for anything.

import type { ErrorReport } from "../bindings/ErrorReport";
import type { ExportProgress } from "../bindings/ExportProgress";
import type { Phase } from "../bindings/Phase";
import type { Progress } from "../bindings/Progress";
import type { Session as View } from "../bindings/Session";
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
  away: "Opening",
  stopped: "Opening",
  interrupted: "Resuming",
  failed: "Creating",
  cancelled: "Creating",
  provisioning: "Creating",
  ready: "Opening",
};

/** How a run stands. */
interface Course {
  phase: Phase;
  progress: Progress;
  message: string;
  error: ErrorReport | null;
  undone: Undone[];
  /** Where the time of the last run went; null while none is known to have ended. */
  timing: TimingReport | null;
}

const BEGINNING: Course = {
  phase: "Starting",
  progress: NOTHING_YET,
  message: "",
  error: null,
  undone: [],
  timing: null,
};

export class Session {
  readonly id: string;

  /** How the list shows it; null while only a run of it was heard of. */
  view = $state.raw<View | null>(null);
  /** The messages of this run, oldest first, without repetition. */
  messages = $state<string[]>([]);
  /** From the press of Cancel until the run has ended. */
  cancelling = $state(false);
  /** Why a command about this session was refused. */
  refusal = $state.raw<ErrorReport | null>(null);
  /** From the press of a button until the answer. */
  asking = $state(false);
  /** From the press of a button that begins a run until it is known to have begun, or not. */
  beginning = $state(false);
  doing = $state<Doing>("Creating");
  /** How far the export under way is. */
  export = $state.raw<ExportProgress | null>(null);
  /** From the press of Cancel until the export has ended. */
  cancellingExport = $state(false);
  /** Whether it is known how the last run went; of a session that the window has only in its list, it is not. */
  detailed = $state(false);

  /** The last event that is included here. */
  seq = $state(-1);
  #state = $state<SessionState | null>(null);
  #course = $state.raw<Course>(BEGINNING);
  #heardAt = $state(0);

  constructor(id: string) {
    this.id = id;
  }

  readonly state = $derived.by((): SessionState => (this.beginning ? "provisioning" : (this.#state ?? "provisioning")));
  readonly #shown = $derived.by(() => (this.beginning ? BEGINNING : this.#course));
  readonly phase = $derived.by(() => this.#shown.phase);
  readonly progress = $derived.by(() => this.#shown.progress);
  readonly message = $derived.by(() => this.#shown.message);
  readonly error = $derived.by(() => this.#shown.error);
  readonly undone = $derived.by(() => this.#shown.undone);
  readonly timing = $derived.by(() => this.#shown.timing);

  readonly name = $derived.by(() => this.view?.name ?? this.id.slice(0, 8));
  /** What to say of it in a copy. */
  readonly about = $derived.by(() => ({ session: this.id, image: this.view?.image ?? "" }));
  readonly running = $derived.by(() => this.state === "provisioning");
  /** When it is going to be stopped because nobody uses it, in milliseconds since 1970; null when it is not. */
  readonly idleStopMs = $derived.by(() => this.view?.idle_stop_ms ?? null);
  /** Whether there is nothing but its files. */
  readonly kept = $derived.by(() => this.state === "stopped" && this.view?.has_container === false);
  /** Whether the way to its files is being made again; its programs go on meanwhile. */
  readonly reconnecting = $derived.by(() => this.state === "ready" && this.view?.reconnecting === true);
  /** Whether its programs are being ended, and have time to write what they hold. */
  readonly ending = $derived.by(() => this.view?.ending === true);
  readonly leftovers = $derived.by(() => this.view?.leftovers ?? []);
  /** Of a session that the window has only in its list, the snapshot tells. */
  readonly mayTellTiming = $derived.by(() => !this.running && (this.timing !== null || !this.detailed));

  /** Takes an event; returns whether it was news. */
  hear(news: SessionNews, now: number): boolean {
    if (news.seq <= this.seq) return false;
    this.seq = news.seq;
    switch (news.kind) {
      case "changed":
        if (news.session) this.#look(news.session, now);
        break;
      case "progress": {
        this.#become("provisioning", now);
        this.detailed = true;
        const { phase, progress, message } = news;
        this.#take({ ...this.#course, phase, progress, message }, now);
        break;
      }
      case "ready": {
        const { progress, timing } = news;
        this.#look(news.session, now);
        this.#end({ ...BEGINNING, phase: "Ready", progress, timing }, now);
        break;
      }
      case "failed": {
        const { phase, error, undone, timing } = news;
        this.#look(news.session, now);
        this.#end({ ...this.#frozen(now), phase, error, undone, timing }, now);
        break;
      }
      case "cancelled": {
        const { phase, undone, timing } = news;
        this.#look(news.session, now);
        this.#end({ ...this.#frozen(now), phase, error: null, undone, timing }, now);
        break;
      }
      case "export":
        this.#takeExport(news.outcome === null ? { bytes: news.bytes, total_bytes: news.total_bytes } : null);
        break;
      case "transfer":
        break;
      default:
        news satisfies never;
    }
    return true;
  }

  /** Takes a snapshot, unless something newer is known; returns whether it was news. */
  seed(status: SessionStatus, now: number): boolean {
    if (status.seq < this.seq) return false;
    this.seq = status.seq;
    this.#look(status.session, now);
    this.detailed = true;
    const { phase, progress, message, error, undone, timing } = status;
    this.#take({ phase, progress, message, error, undone, timing }, now);
    return true;
  }

  /** Takes how a list or an answer shows it, unless something newer is known; returns whether it was news. */
  see(view: View, now: number): boolean {
    if (view.seq > this.seq) {
      this.seq = view.seq;
      this.#look(view, now);
      return true;
    }
    // An event of a session that was not known tells less than the list.
    this.view ??= view;
    return false;
  }

  /** Shows that a run begins, until it is known to have begun, or not. */
  begin(doing: Doing): void {
    this.doing = doing;
    this.beginning = true;
    this.#forgetRun();
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

  /** Takes what is newer than all that is known. */
  #look(view: View, now: number): void {
    this.view = view;
    this.#takeExport(view.export);
    this.#become(view.state, now);
  }

  #become(state: SessionState, now: number): void {
    const was = this.#state;
    this.#state = state;
    const isBegun = this.beginning && state === "provisioning";
    if (state === was && !isBegun) return;
    this.detailed = false;
    if (state === "provisioning") {
      // What was asked for here is called so; what others began, by where it began.
      if (!this.asking && !this.beginning && was !== null) this.doing = DOING[was];
      this.beginning = false;
      this.#forgetRun();
      this.#take(BEGINNING, now);
    } else {
      this.cancelling = false;
      const course = was === "provisioning" ? this.#frozen(now) : this.#course;
      this.#take({ ...course, message: "", error: null, undone: [] }, now);
    }
  }

  #end(course: Course, now: number): void {
    this.cancelling = false;
    this.refusal = null;
    this.detailed = true;
    this.#take(course, now);
  }

  /** Forgets what the run before told. */
  #forgetRun(): void {
    this.refusal = null;
    this.messages = [];
    this.cancelling = false;
  }

  #takeExport(progress: ExportProgress | null): void {
    this.export = progress;
    if (progress === null) this.cancellingExport = false;
  }

  #take(course: Course, now: number): void {
    this.#course = course;
    this.#heardAt = now;
    const { message } = course;
    if (message !== "" && this.messages.at(-1) !== message) {
      this.messages = [...this.messages.slice(-49), message];
    }
  }

  /** Returns how the run stands when it goes no further. */
  #frozen(now: number): Course {
    const { eta_ms, eta, eta_low_ms, eta_high_ms } = NOTHING_YET;
    const { progress } = this.#course;
    const elapsed_ms = progress.elapsed_ms + this.sinceHeard(now);
    return { ...this.#course, progress: { ...progress, elapsed_ms, eta_ms, eta, eta_low_ms, eta_high_ms } };
  }
}
