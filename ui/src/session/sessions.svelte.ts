// All sessions of the window: the list, which one is selected, whose progress is shown, and what the
// user can do to them. Events push; a snapshot is asked for once where there is something to catch up.

import { SvelteMap } from "svelte/reactivity";

import type { ErrorReport } from "../bindings/ErrorReport";
import type { Session } from "../bindings/Session";
import type { SessionState } from "../bindings/SessionState";
import type * as commands from "../lib/ipc/commands";
import { reportOf } from "../lib/ipc/error";
import type { SessionNews } from "../lib/ipc/events";
import { recall, remember } from "../lib/remembered";
import { Run } from "./run.svelte";

/** The commands that this needs; tests bring their own. */
export type SessionCommands = Pick<
  typeof commands,
  | "createSession"
  | "sessionStatus"
  | "cancelSession"
  | "retrySession"
  | "openSession"
  | "stopSession"
  | "deleteSession"
  | "listSessions"
>;

export class Sessions {
  readonly runs = new SvelteMap<string, Run>();

  selectedId = $state<string | null>(recall("selected", "reload"));
  /** Whose progress is shown; null when none, or when it runs in the background. */
  shownId = $state<string | null>(null);
  /** The session whose terminal takes the focus as soon as it is there. */
  focusId = $state<string | null>(null);
  loaded = $state(false);
  /** Why the list could not be had. */
  listFailure = $state.raw<ErrorReport | null>(null);
  /** What screen readers are told about sessions that are not looked at. */
  announcement = $state("");

  readonly #commands: SessionCommands;
  readonly #now: () => number;
  readonly #deleted = new Set<string>();
  readonly #background = new Set<string>(recall("background", "reload")?.split(" ") ?? []);

  constructor(sessionCommands: SessionCommands, now: () => number = () => performance.now()) {
    this.#commands = sessionCommands;
    this.#now = now;
  }

  readonly listed = $derived.by(() =>
    [...this.runs.values()]
      .filter((run) => run.session !== null)
      .sort((a, b) => (a.session?.created ?? "").localeCompare(b.session?.created ?? "")),
  );
  readonly selected = $derived.by(() => this.#listedRun(this.selectedId));
  readonly shown = $derived.by(() => (this.shownId === null ? null : (this.runs.get(this.shownId) ?? null)));
  readonly workspaces = $derived.by(() =>
    [...new Set(this.listed.map((run) => run.session?.workspace_id ?? ""))].filter(Boolean).sort(),
  );

  /** Takes an event. Listening begins before anything is created or asked. */
  hear(news: SessionNews): void {
    if (this.#deleted.has(news.session_id)) return;
    const run = this.#run(news.session_id);
    if (!run.hear(news, this.#now())) return;
    if (news.kind === "progress") return;
    if (news.kind === "ready") this.#becameReady(run);
    if (this.shownId !== run.id) this.announcement = `${run.name}: ${run.state}`;
    // What is left after a failure or a cancel (a stopped container, or nothing), the list knows.
    if (run.session === null) void this.load();
  }

  /** Reads the list, and catches up with the runs that are under way. */
  async load(): Promise<void> {
    const heard = new Map([...this.runs.values()].map((run) => [run.id, run.seq]));
    let sessions: Session[];
    try {
      sessions = await this.#commands.listSessions();
      this.listFailure = null;
    } catch (thrown) {
      this.listFailure = reportOf(thrown);
      return;
    } finally {
      this.loaded = true;
    }
    const ids = new Set(sessions.map((session) => session.session_id));
    for (const session of sessions) {
      const id = session.session_id;
      if (this.#deleted.has(id)) continue;
      const run = this.#run(id);
      run.list(session, run.seq !== (heard.get(id) ?? -1));
    }
    for (const id of heard.keys()) {
      // Gone from the engine by other hands. A run that speaks, or is being asked for, stays.
      const run = this.runs.get(id);
      if (run && !ids.has(id) && !run.running && !run.asking && run.seq === heard.get(id)) this.#forget(id);
    }
    this.#chooseSelected();
    await Promise.all(
      this.listed.filter((run) => run.running && !run.seeded).map((run) => this.catchUp(run.id)),
    );
    if (this.shownId === null) {
      const waiting = this.listed.find((run) => run.running && !this.#background.has(run.id));
      if (waiting) this.shownId = waiting.id;
    }
  }

  /** Asks for the snapshot of a session, once. */
  async catchUp(id: string): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.seeded) return;
    run.seeded = true;
    const { begun } = run;
    try {
      const status = await this.#commands.sessionStatus(id);
      if (run.begun === begun) run.seed(status, this.#now());
    } catch (thrown) {
      if (run.begun === begun && run.running) run.refusal = reportOf(thrown);
    }
  }

  /** Creates a session and shows its progress; rejects with what is wrong with the request. */
  async create(request: commands.CreateRequest, imageName: string): Promise<string> {
    const { session_id, message } = await this.#commands.createSession(request);
    const run = this.#run(session_id);
    if (run.seq < 0) {
      run.restart(this.#now());
      run.message = message;
    }
    run.session ??= provisional(session_id, request, imageName);
    this.select(session_id);
    if (run.running || run.state === "failed") this.shownId = session_id;
    else if (run.state === "ready") this.focusId = session_id;
    void this.load();
    return session_id;
  }

  select(id: string): void {
    this.selectedId = id;
    remember("selected", id, "reload");
    const run = this.runs.get(id);
    // A session that was never heard of here may have an error to tell.
    if (run && !run.seeded && run.state !== "ready") void this.catchUp(id);
  }

  show(id: string): void {
    this.#background.delete(id);
    this.#rememberBackground();
    this.select(id);
    this.shownId = id;
  }

  /** Closes the progress; a run under way goes on and its row shows it. */
  leave(): void {
    const run = this.shown;
    this.shownId = null;
    if (!run) return;
    run.refusal = null;
    if (run.running) {
      this.#background.add(run.id);
      this.#rememberBackground();
    }
  }

  async cancel(id: string): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.cancelling || !run.running) return;
    run.cancelling = true;
    run.refusal = null;
    try {
      await this.#commands.cancelSession(id);
    } catch (thrown) {
      run.cancelling = false;
      // A run that ended in the meantime has said so itself.
      if (run.running) run.refusal = reportOf(thrown);
    }
  }

  retry(id: string): Promise<void> {
    return this.#begin(id, (commands) => commands.retrySession(id));
  }

  /** Opens a stopped session, or resumes an interrupted one. */
  open(id: string): Promise<void> {
    return this.#begin(id, (commands) => commands.openSession(id));
  }

  /** Stops a session; rejects when it cannot, because this has no place of its own to say so. */
  async stop(id: string): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.asking) return;
    run.asking = true;
    try {
      await this.#commands.stopSession(id);
      run.state = "stopped";
    } finally {
      run.asking = false;
    }
    void this.load();
  }

  /** Deletes a session with its files; rejects when it cannot. */
  async remove(id: string): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.asking) return;
    run.asking = true;
    try {
      await this.#commands.deleteSession(id);
    } finally {
      run.asking = false;
    }
    this.#deleted.add(id);
    this.#forget(id);
    this.#chooseSelected();
  }

  async #begin(id: string, ask: (commands: SessionCommands) => Promise<unknown>): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.asking || run.running) return;
    const before = { state: run.state, error: run.error, timing: run.timing, seq: run.seq };
    run.doing = DOING[run.state];
    run.asking = true;
    run.restart(this.#now());
    this.show(id);
    try {
      await ask(this.#commands);
    } catch (thrown) {
      if (run.seq === before.seq) {
        run.state = before.state;
        run.error = before.error;
        run.timing = before.timing;
      }
      run.refusal = reportOf(thrown);
    } finally {
      run.asking = false;
    }
  }

  #becameReady(run: Run): void {
    this.#background.delete(run.id);
    this.#rememberBackground();
    if (this.shownId !== run.id) return;
    this.shownId = null;
    this.select(run.id);
    this.focusId = run.id;
  }

  #run(id: string): Run {
    let run = this.runs.get(id);
    if (!run) {
      run = new Run(id);
      this.runs.set(id, run);
    }
    return run;
  }

  #listedRun(id: string | null): Run | null {
    const run = id === null ? undefined : this.runs.get(id);
    return run?.session ? run : null;
  }

  #forget(id: string): void {
    this.runs.delete(id);
    if (this.shownId === id) this.shownId = null;
  }

  #chooseSelected(): void {
    if (this.selected) return;
    const first = this.listed.find((run) => run.running) ?? this.listed.find((run) => run.state === "ready") ?? this.listed[0];
    if (first) this.select(first.id);
    else this.selectedId = null;
  }

  #rememberBackground(): void {
    remember("background", this.#background.size > 0 ? [...this.#background].join(" ") : null, "reload");
  }
}

/** What a run that begins in this state is for. */
const DOING: Record<SessionState, Run["doing"]> = {
  stopped: "Opening",
  interrupted: "Resuming",
  failed: "Creating",
  cancelled: "Creating",
  provisioning: "Creating",
  ready: "Opening",
};

/** What the list will say about a new session, until it says so itself. */
function provisional(id: string, request: commands.CreateRequest, imageName: string): Session {
  return {
    session_id: id,
    workspace_id: request.workspace_id,
    name: request.project_name?.trim() || id.slice(0, 8),
    project_name: request.project_name ?? null,
    description: request.description ?? null,
    template: request.template ?? null,
    image: imageName,
    image_name: imageName,
    state: "provisioning",
    created: new Date().toISOString(),
  };
}
