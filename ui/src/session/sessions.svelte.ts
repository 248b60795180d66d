// All sessions of the window: the list, which one is selected, whose progress is shown, and what the
// user can do to them. Events push; a snapshot is asked for once where there is something to catch up.

import { SvelteMap } from "svelte/reactivity";

import type { ErrorReport } from "../bindings/ErrorReport";
import type { Session } from "../bindings/Session";
import type * as commands from "../lib/ipc/commands";
import { reportOf } from "../lib/ipc/error";
import type { SessionNews } from "../lib/ipc/events";
import { recall, remember } from "../lib/remembered";
import { inSidebarOrder } from "./grouping";
import { DOING, type Doing, Run, UNKNOWN } from "./run.svelte";

/** The commands that this needs; tests bring their own. */
export type SessionCommands = Pick<
  typeof commands,
  | "createSession"
  | "sessionStatus"
  | "cancelSession"
  | "retrySession"
  | "openSession"
  | "stopSession"
  | "restartSession"
  | "rebuildSession"
  | "duplicateSession"
  | "renameSession"
  | "discardSession"
  | "deleteSession"
  | "exportSession"
  | "cancelExport"
  | "listSessions"
>;

type Ask = (commands: SessionCommands) => Promise<unknown>;

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
  /** What was asked for and refused, to be asked again. */
  readonly #refused = new Map<string, { doing: Doing; ask: Ask }>();
  #listing: Promise<void> | null = null;
  #stale = false;
  /** Whether a list came since the window loaded. */
  #caughtUp = false;
  /** The system's dialog is open once at a time. */
  #choosing = false;
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

  /** Takes an event; returns whether it was news. Listening begins before anything is created or asked. */
  hear(news: SessionNews): boolean {
    if (this.#deleted.has(news.session_id)) return false;
    const run = this.#run(news.session_id);
    if (!run.hear(news, this.#now())) return false;
    if (news.kind === "progress" || news.kind === "export") return true;
    if (news.kind === "ready") this.#becameReady(run);
    if (this.shownId !== run.id) this.announcement = `${run.name}: ${run.state}`;
    // What is left after a failure or a cancel (a stopped container, or nothing), the list knows.
    if (run.session === null) void this.load();
    return true;
  }

  /**
   * Reads the list, and catches up with the runs that are under way. While a list is being read, any
   * number of calls make one more, because the answer under way may be from before.
   */
  async load(): Promise<void> {
    this.#stale = true;
    this.#listing ??= this.#listWhileStale();
    await this.#listing;
    await Promise.all(this.listed.filter((run) => run.running && !run.seeded).map((run) => this.catchUp(run.id)));
    if (this.#caughtUp || this.listFailure) return;
    // What is under way when the window loads is shown again; what begins by itself later is not.
    this.#caughtUp = true;
    const waiting = this.listed.find((run) => run.running && !this.#background.has(run.id));
    if (this.shownId === null && waiting) this.shownId = waiting.id;
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
    const created = await this.#commands.createSession(request);
    this.#created(created, provisional(created.session_id, request, imageName));
    return created.session_id;
  }

  /** Creates a session with the files of another, as `create` does. */
  async duplicate(id: string, name: string): Promise<void> {
    const source = this.runs.get(id)?.session;
    if (!source) return;
    const created = await this.#commands.duplicateSession(id, name);
    const request = { workspace_id: source.workspace_id, project_name: name };
    this.#created(created, { ...provisional(created.session_id, request, source.image_name), image: source.image });
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

  /** Sets it up again; what was refused is asked for once more. */
  retry(id: string): Promise<void> {
    const refused = this.runs.get(id)?.refusal ? this.#refused.get(id) : undefined;
    if (refused) return this.#begin(id, refused.ask, refused.doing);
    return this.#begin(id, (commands) => commands.retrySession(id));
  }

  /** Opens a stopped session, resumes an interrupted one, or makes a container around kept files. */
  open(id: string): Promise<void> {
    if (this.runs.get(id)?.state === "paused") return this.#letGoOn(id);
    return this.#begin(id, (commands) => commands.openSession(id));
  }

  /** Lets the programs of a paused session go on; nothing is set up for that. */
  async #letGoOn(id: string): Promise<void> {
    try {
      await this.#act(id, (commands) => commands.openSession(id));
    } finally {
      void this.load();
    }
  }

  restart(id: string): Promise<void> {
    return this.#begin(id, (commands) => commands.restartSession(id), "Restarting");
  }

  /** Makes a new container around the same files; rejects with what is wrong with the image. */
  async rebuild(id: string, image?: string): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.running || run.asking) return;
    const { stateSeq } = run;
    await this.#act(id, (commands) => {
      run.doing = "Rebuilding";
      return commands.rebuildSession(id, image);
    });
    // Its first event may have overtaken the answer.
    if (run.stateSeq === stateSeq) run.restart(this.#now());
    if (run.running) this.show(id);
  }

  /** Stops a session; rejects when it cannot, because this has no place of its own to say so. */
  async stop(id: string): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.asking) return;
    run.stopping = true;
    try {
      await this.#act(id, (commands) => commands.stopSession(id));
      run.state = "stopped";
    } finally {
      run.stopping = false;
      void this.load();
    }
  }

  /** Gives a session another name; rejects with what is wrong with it. */
  async rename(id: string, name: string): Promise<void> {
    const renamed = await this.#commands.renameSession(id, name);
    const run = this.runs.get(id);
    if (run?.session) run.session = { ...run.session, name: renamed.name };
    void this.load();
  }

  /** Takes back what an interrupted run did: a new session goes, one from before is as it was. */
  async discard(id: string): Promise<void> {
    try {
      await this.#act(id, (commands) => commands.discardSession(id));
    } finally {
      void this.load();
    }
  }

  /** Deletes a session with its files, or only its container; rejects when it cannot. */
  async remove(id: string, keepVolume = false): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.asking) return;
    await this.#act(id, (commands) => commands.deleteSession(id, keepVolume));
    if (keepVolume) {
      run.state = "stopped";
      if (run.session) run.session = { ...run.session, state: "stopped", has_container: false };
    } else {
      this.#deleted.add(id);
      this.#forget(id);
    }
    void this.load();
  }

  /** Writes the files of a session to where the user says; its events tell how far that is. */
  async export(id: string): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.export !== null || this.#choosing) return;
    this.#choosing = true;
    const { seq } = run;
    try {
      const started = await this.#commands.exportSession(id);
      if (started && run.seq === seq) run.export = { bytes: 0, total_bytes: null };
    } finally {
      this.#choosing = false;
    }
  }

  async cancelExport(id: string): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.export === null || run.cancellingExport) return;
    run.cancellingExport = true;
    try {
      await this.#commands.cancelExport(id);
    } catch (thrown) {
      run.cancellingExport = false;
      throw thrown;
    }
  }

  /** One act at a time on a session. */
  async #act(id: string, ask: Ask): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.asking) return;
    run.asking = true;
    try {
      await ask(this.#commands);
    } finally {
      run.asking = false;
    }
  }

  async #begin(id: string, ask: Ask, doing?: Doing): Promise<void> {
    const run = this.runs.get(id);
    if (!run || run.asking || run.running) return;
    const before = { state: run.state, error: run.error, timing: run.timing, seq: run.stateSeq };
    run.doing = doing ?? DOING[run.state];
    run.asking = true;
    run.restart(this.#now());
    this.show(id);
    try {
      await ask(this.#commands);
    } catch (thrown) {
      if (run.stateSeq === before.seq) {
        run.state = before.state;
        run.error = before.error;
        run.timing = before.timing;
      }
      run.refusal = reportOf(thrown);
      this.#refused.set(id, { doing: run.doing, ask });
    } finally {
      run.asking = false;
      // What the list said meanwhile was not taken; a run that began says it itself.
      if (run.refusal) void this.load();
    }
  }

  #created({ session_id, message }: commands.CreatedSession, session: Session): void {
    const run = this.#run(session_id);
    if (run.seq < 0) {
      run.restart(this.#now());
      run.message = message;
    }
    run.session ??= session;
    this.select(session_id);
    if (run.running || run.state === "failed") this.shownId = session_id;
    else if (run.state === "ready") this.focusId = session_id;
    void this.load();
  }

  async #listWhileStale(): Promise<void> {
    try {
      while (this.#stale) {
        this.#stale = false;
        await this.#list();
      }
    } finally {
      this.#listing = null;
    }
  }

  async #list(): Promise<void> {
    const asked = new Map([...this.runs.values()].map((run) => [run.id, run.known()]));
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
      const changed = this.#run(id).list(session, asked.get(id) ?? UNKNOWN);
      // What changed by other hands may have more to tell than the list does.
      if (changed && id === this.selectedId) void this.catchUp(id);
    }
    for (const [id, known] of asked) {
      // Gone from the engine by other hands. A run that speaks, or is being asked for, stays.
      const run = this.runs.get(id);
      if (run && !ids.has(id) && !run.running && !run.asking && run.heard === known.heard) this.#forget(id);
    }
    this.#chooseSelected();
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

  /** Takes a session out; the one below it is selected, or the one above. */
  #forget(id: string): void {
    const order = inSidebarOrder(this.listed);
    const at = order.findIndex((run) => run.id === id);
    this.runs.delete(id);
    this.#refused.delete(id);
    if (this.shownId === id) this.shownId = null;
    if (this.selectedId !== id) return;
    const beside = [order[at + 1], order[at - 1]].filter((run) => run !== undefined);
    const next = beside.find((run) => !run.kept) ?? beside[0];
    if (at >= 0 && next) this.select(next.id);
    else this.#chooseSelected();
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
    has_container: true,
    reconnecting: false,
    leftovers: [],
    export: null,
  };
}
