// All sessions of the window: the list, which one is selected, whose progress is shown, and what the
// user can do to them. Events push; a snapshot is asked for once where there is something to catch up.

import { SvelteMap } from "svelte/reactivity";

import type { ErrorReport } from "../bindings/ErrorReport";
import type * as commands from "../lib/ipc/commands";
import { reportOf } from "../lib/ipc/error";
import type { SessionNews } from "../lib/ipc/events";
import { recall, remember } from "../lib/remembered";
import { inSidebarOrder } from "./grouping";
import { DOING, type Doing, Session } from "./session.svelte";

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
  | "forgetSession"
  | "deleteSession"
  | "exportSession"
  | "cancelExport"
  | "listSessions"
>;

/** A command, and what its answer says of the session. */
type Ask = (commands: SessionCommands) => Promise<commands.Seen>;

export class Sessions {
  readonly known = new SvelteMap<string, Session>();

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
  /** The sessions that are gone, and the event that includes that. */
  readonly #gone = new Map<string, number>();
  /** What was asked for and refused, to be asked again. */
  readonly #refused = new Map<string, { doing: Doing; ask: Ask }>();
  readonly #catchingUp = new Set<string>();
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
    [...this.known.values()]
      .filter((session) => session.view !== null)
      .sort((a, b) => (a.view?.created ?? "").localeCompare(b.view?.created ?? "")),
  );
  readonly selected = $derived.by(() => this.#listedSession(this.selectedId));
  readonly shown = $derived.by(() => (this.shownId === null ? null : (this.known.get(this.shownId) ?? null)));
  readonly workspaces = $derived.by(() =>
    [...new Set(this.listed.map((session) => session.view?.workspace_id ?? ""))].filter(Boolean).sort(),
  );

  /** Takes an event; returns whether it was news. Listening begins before anything is created or asked. */
  hear(news: SessionNews): boolean {
    const id = news.session_id;
    if (news.kind === "changed" && news.session === null) return this.#miss(id, news.seq);
    if (this.#isGone(id, news.seq)) return false;
    const session = this.#session(id);
    const isNews = this.#follow(session, () => session.hear(news, this.#now()));
    // A run of a session that is in no list yet.
    if (session.view === null) void this.load();
    return isNews;
  }

  /** Reads the list. While one is being read, any number of calls make one more. */
  async load(): Promise<void> {
    this.#stale = true;
    this.#listing ??= this.#listWhileStale();
    await this.#listing;
    const behind = this.listed.filter((session) => session.running && !session.beginning && !session.detailed);
    await Promise.all(behind.map((session) => this.catchUp(session.id)));
    if (this.#caughtUp || this.listFailure) return;
    // What is under way when the window loads is shown again; what begins by itself later is not.
    this.#caughtUp = true;
    const waiting = this.listed.find((session) => session.running && !this.#background.has(session.id));
    if (this.shownId === null && waiting) this.shownId = waiting.id;
  }

  /** Asks for the snapshot of a session, once at a time, if there is more to know. */
  async catchUp(id: string): Promise<void> {
    const session = this.known.get(id);
    if (!session || session.detailed || this.#catchingUp.has(id)) return;
    this.#catchingUp.add(id);
    try {
      const status = await this.#commands.sessionStatus(id);
      this.#follow(session, () => session.seed(status, this.#now()));
    } catch (thrown) {
      if (session.running && !session.detailed) session.refusal = reportOf(thrown);
    } finally {
      this.#catchingUp.delete(id);
    }
  }

  /** Creates a session and shows its progress; rejects with what is wrong with the request. */
  async create(request: commands.CreateRequest): Promise<string> {
    const created = await this.#commands.createSession(request);
    this.#created(created);
    return created.session_id;
  }

  /** Creates a session with the files of another, as `create` does. */
  async duplicate(id: string, name: string): Promise<void> {
    this.#created(await this.#commands.duplicateSession(id, name));
  }

  select(id: string): void {
    this.selectedId = id;
    remember("selected", id, "reload");
    const session = this.known.get(id);
    // A session that was never heard of here may have an error to tell.
    if (session && session.state !== "ready" && !session.beginning) void this.catchUp(id);
  }

  show(id: string): void {
    this.#background.delete(id);
    this.#rememberBackground();
    this.select(id);
    this.shownId = id;
  }

  /** Closes the progress; a run under way goes on and its row shows it. */
  leave(): void {
    const session = this.shown;
    this.shownId = null;
    if (!session) return;
    session.refusal = null;
    if (session.running) {
      this.#background.add(session.id);
      this.#rememberBackground();
    }
  }

  async cancel(id: string): Promise<void> {
    const session = this.known.get(id);
    if (!session || session.cancelling || !session.running) return;
    session.cancelling = true;
    session.refusal = null;
    try {
      this.#see(id, await this.#commands.cancelSession(id));
    } catch (thrown) {
      session.cancelling = false;
      // A run that ended in the meantime has said so itself.
      if (session.running) session.refusal = reportOf(thrown);
    }
  }

  /** Sets it up again; what was refused is asked for once more. */
  retry(id: string): Promise<void> {
    const refused = this.known.get(id)?.refusal ? this.#refused.get(id) : undefined;
    if (refused) return this.#begin(id, refused.ask, refused.doing);
    return this.#begin(id, (commands) => commands.retrySession(id));
  }

  /** Opens a stopped session, resumes an interrupted one, or makes a container around kept files. */
  open(id: string): Promise<void> {
    const ask: Ask = (commands) => commands.openSession(id);
    // The programs of a paused one go on; nothing is set up for that.
    if (this.known.get(id)?.view?.state === "paused") return this.#act(id, ask);
    return this.#begin(id, ask);
  }

  restart(id: string): Promise<void> {
    return this.#begin(id, (commands) => commands.restartSession(id), "Restarting");
  }

  /** Makes a new container around the same files; rejects with what is wrong with the image. */
  async rebuild(id: string, image?: string): Promise<void> {
    const session = this.known.get(id);
    if (!session || session.running || session.asking) return;
    const { doing } = session;
    session.doing = "Rebuilding";
    try {
      await this.#act(id, (commands) => commands.rebuildSession(id, image));
    } catch (thrown) {
      session.doing = doing;
      throw thrown;
    }
    if (session.running) this.show(id);
  }

  /** Stops a session; rejects when it cannot, because this has no place of its own to say so. */
  stop(id: string): Promise<void> {
    return this.#act(id, (commands) => commands.stopSession(id));
  }

  /** Waits no longer for the programs of a session that is being stopped. */
  async stopNow(id: string): Promise<void> {
    if (this.known.get(id)?.ending) this.#see(id, await this.#commands.stopSession(id, true));
  }

  /** Gives a session another name; rejects with what is wrong with it. */
  async rename(id: string, name: string): Promise<void> {
    this.#see(id, await this.#commands.renameSession(id, name));
  }

  /** Takes back what an interrupted run did: a new session goes, one from before is as it was. */
  discard(id: string): Promise<void> {
    return this.#act(id, (commands) => commands.discardSession(id));
  }

  /** Takes a session off the list whose engine does not answer; it is there again when that does. */
  forget(id: string): Promise<void> {
    return this.#act(id, (commands) => commands.forgetSession(id));
  }

  /** Deletes a session with its files, or only its container; rejects when it cannot. */
  remove(id: string, keepVolume = false): Promise<void> {
    return this.#act(id, (commands) => commands.deleteSession(id, keepVolume));
  }

  /** Writes the files of a session to where the user says; its events tell how far that is. */
  async export(id: string): Promise<void> {
    const session = this.known.get(id);
    if (!session || session.export !== null || this.#choosing) return;
    this.#choosing = true;
    try {
      this.#see(id, await this.#commands.exportSession(id));
    } finally {
      this.#choosing = false;
    }
  }

  async cancelExport(id: string): Promise<void> {
    const session = this.known.get(id);
    if (!session || session.export === null || session.cancellingExport) return;
    session.cancellingExport = true;
    try {
      await this.#commands.cancelExport(id);
    } catch (thrown) {
      session.cancellingExport = false;
      throw thrown;
    }
  }

  /** One act at a time on a session. */
  async #act(id: string, ask: Ask): Promise<void> {
    const session = this.known.get(id);
    if (!session || session.asking) return;
    session.asking = true;
    try {
      this.#see(id, await ask(this.#commands));
    } finally {
      session.asking = false;
    }
  }

  async #begin(id: string, ask: Ask, doing?: Doing): Promise<void> {
    const session = this.known.get(id);
    if (!session || session.asking || session.running) return;
    session.begin(doing ?? DOING[session.state]);
    session.asking = true;
    this.show(id);
    try {
      this.#see(id, await ask(this.#commands));
      // It may have been there already.
      if (this.shownId === id && session.beginning && session.view?.state === "ready") this.#becameReady(session);
    } catch (thrown) {
      session.refusal = reportOf(thrown);
      this.#refused.set(id, { doing: session.doing, ask });
    } finally {
      session.asking = false;
      session.beginning = false;
    }
  }

  #created(created: commands.CreatedSession): void {
    const id = created.session_id;
    this.#see(id, created);
    const session = this.known.get(id);
    if (!session) return;
    this.select(id);
    if (session.running || session.state === "failed") this.shownId = id;
    else if (session.state === "ready") this.focusId = id;
  }

  /** Takes what an answer says of a session. */
  #see(id: string, { seq, session: view }: commands.Seen): void {
    if (view === null) {
      this.#miss(id, seq);
      return;
    }
    if (this.#isGone(id, view.seq)) return;
    const session = this.#session(id);
    this.#follow(session, () => session.see(view, this.#now()));
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
    let listing: Awaited<ReturnType<SessionCommands["listSessions"]>>;
    try {
      listing = await this.#commands.listSessions();
      this.listFailure = null;
    } catch (thrown) {
      this.listFailure = reportOf(thrown);
      return;
    } finally {
      this.loaded = true;
    }
    for (const view of listing.sessions) this.#see(view.session_id, { seq: view.seq, session: view });
    const ids = new Set(listing.sessions.map((view) => view.session_id));
    // What was told before the list was made, and is not in it, is gone.
    for (const id of [...this.known.keys()].filter((id) => !ids.has(id))) this.#miss(id, listing.seq);
    this.#chooseSelected();
  }

  /** Lets a session change, and does what its new state asks for. */
  #follow(session: Session, change: () => boolean): boolean {
    const before = session.state;
    const isNew = session.seq < 0;
    const isNews = change();
    const { state } = session;
    if (isNew || state === before) return isNews;
    if (state === "ready" && before === "provisioning") this.#becameReady(session);
    if (before === "provisioning" && this.shownId !== session.id) this.announcement = `${session.name}: ${state}`;
    // What changed by other hands may have more to tell.
    const isLookedAt = session.id === this.selectedId || session.id === this.shownId;
    if (isLookedAt && state !== "provisioning" && !session.detailed) void this.catchUp(session.id);
    return isNews;
  }

  #becameReady(session: Session): void {
    this.#background.delete(session.id);
    this.#rememberBackground();
    if (this.shownId !== session.id) return;
    this.shownId = null;
    this.select(session.id);
    this.focusId = session.id;
  }

  #isGone(id: string, seq: number): boolean {
    return seq <= (this.#gone.get(id) ?? -1);
  }

  #session(id: string): Session {
    let session = this.known.get(id);
    if (!session) {
      session = new Session(id);
      this.known.set(id, session);
    }
    return session;
  }

  #listedSession(id: string | null): Session | null {
    const session = id === null ? undefined : this.known.get(id);
    return session?.view ? session : null;
  }

  /** Takes note that a session is gone, unless something newer is known of it; returns whether that was news. */
  #miss(id: string, seq: number): boolean {
    const session = this.known.get(id);
    if (this.#isGone(id, seq) || (session && session.seq > seq)) return false;
    this.#gone.set(id, seq);
    if (session) this.#forget(id);
    return session !== undefined;
  }

  /** Takes a session out; the one below it is selected, or the one above. */
  #forget(id: string): void {
    const order = inSidebarOrder(this.listed);
    const at = order.findIndex((session) => session.id === id);
    this.known.delete(id);
    this.#refused.delete(id);
    if (this.shownId === id) this.shownId = null;
    if (this.selectedId !== id) return;
    const beside = [order[at + 1], order[at - 1]].filter((session) => session !== undefined);
    const next = beside.find((session) => !session.kept) ?? beside[0];
    if (at >= 0 && next) this.select(next.id);
    else this.#chooseSelected();
  }

  #chooseSelected(): void {
    if (this.selected) return;
    const first =
      this.listed.find((session) => session.running) ??
      this.listed.find((session) => session.state === "ready") ??
      this.listed[0];
    if (first) this.select(first.id);
    else this.selectedId = null;
  }

  #rememberBackground(): void {
    remember("background", this.#background.size > 0 ? [...this.#background].join(" ") : null, "reload");
  }
}
