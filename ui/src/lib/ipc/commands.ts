// One typed function per command. Each rejects with a `CommandError` and with nothing else.

import { Channel, invoke } from "@tauri-apps/api/core";

import type { ChosenArchive } from "../../bindings/ChosenArchive";
import type { Draft } from "../../bindings/Draft";
import type { Encoding } from "../../bindings/Encoding";
import type { EngineBounds } from "../../bindings/EngineBounds";
import type { EngineId } from "../../bindings/EngineId";
import type { EngineView } from "../../bindings/EngineView";
import type { Figures } from "../../bindings/Figures";
import type { FiguresNews } from "../../bindings/FiguresNews";
import type { FileContent } from "../../bindings/FileContent";
import type { FileEntry } from "../../bindings/FileEntry";
import type { FoundFiles } from "../../bindings/FoundFiles";
import type { ImageView } from "../../bindings/ImageView";
import type { Phase } from "../../bindings/Phase";
import type { PortList } from "../../bindings/PortList";
import type { ProcessesEnded } from "../../bindings/ProcessesEnded";
import type { Listing } from "../../bindings/Listing";
import type { LogNews } from "../../bindings/LogNews";
import type { NameTaken } from "../../bindings/NameTaken";
import type { Network } from "../../bindings/Network";
import type { SearchNews } from "../../bindings/SearchNews";
import type { Seen } from "../../bindings/Seen";
import type { SessionId } from "../../bindings/SessionId";
import type { SessionStatus } from "../../bindings/SessionStatus";
import type { Settings } from "../../bindings/Settings";
import type { TemplateCard } from "../../bindings/TemplateCard";
import type { TerminalList } from "../../bindings/TerminalList";
import type { TerminalTab } from "../../bindings/TerminalTab";
import type { Usage } from "../../bindings/Usage";
import type { Watching } from "../../bindings/Watching";
import type { WrittenCharset } from "../../bindings/WrittenCharset";
import { CommandError, report, reportOf } from "./error";

export interface CreateRequest {
  workspace_id: string;
  template?: string;
  image?: string;
  project_name?: string;
  description?: string;
  /** Whether its programs may become root by `sudo` and the like. */
  allow_privilege_gain?: boolean;
  /** `own` without it. */
  network?: Network;
  /** The token of a chosen archive, whose files the session starts with. */
  archive?: string;
}

export type { Seen };

export interface CreatedSession extends Seen {
  ok: true;
  session_id: SessionId;
  phase: Phase;
  message: string;
}

export interface Done {
  ok: true;
  session_id: SessionId;
}

/** What became of a session by a command. */
export type Acted = Done & Seen;

export type Renamed = Acted & { name: string };

/** What becomes of the runs under way when the window is closed. */
export type LeaveChoice = "background" | "cancel" | "stay";

/** What names a watch that goes on until it is ended. */
export interface Watched {
  watch_id: number;
}

export interface Directory {
  entries: FileEntry[];
  truncated: boolean;
}

/** How a terminal's process ended; `code` is null when a signal or a lost connection ended it. */
export interface TerminalExit {
  code: number | null;
  message: string;
}

export interface TerminalOutput {
  /** Raw bytes of the terminal, in order. */
  onbytes: (bytes: Uint8Array) => void;
  /** What came so far is much work: the page draws before more is shown. */
  onpause: () => void;
  /** All that was shown before has come: heard once, where a terminal is shown again. */
  onreplayed: () => void;
  /** Heard once, after the last bytes. */
  onexit: (exit: TerminalExit) => void;
}

/** A text, and the encoding that it is written in; null for plain UTF-8. */
export interface WrittenText {
  content: string;
  charset: WrittenCharset | null;
}

/** What a file must be for it to be written: as it was at a revision, not there, or anything. */
export type WriteCondition = { revision: string } | { missing: true } | Record<string, never>;

/** What is searched for in files; globs stand between commas. */
export interface TextQuery {
  query: string;
  regex: boolean;
  case: boolean;
  word: boolean;
  include: string;
  exclude: string;
  /** Whether files are searched too that Git ignores. */
  ignored: boolean;
}

/** The directory that every session's files live in. */
export const WORKSPACE = "/workspace";

export function createSession(request: CreateRequest): Promise<CreatedSession> {
  return call("create_session", { request });
}

export function sessionStatus(id: MaybeId): Promise<SessionStatus> {
  return callWithId("session_status", id);
}

export function cancelSession(id: MaybeId): Promise<Acted> {
  return callWithId("cancel_session", id);
}

export function retrySession(id: MaybeId): Promise<Acted> {
  return callWithId("retry_session", id);
}

export function openSession(id: MaybeId): Promise<Acted> {
  return callWithId("open_session", id);
}

/** Stops a session; with `now` nothing waits any longer for its programs to end by themselves. */
export function stopSession(id: MaybeId, now = false): Promise<Acted> {
  return callWithId("stop_session", id, now ? { now: true } : {});
}

/** Stops the container and makes it ready again. */
export function restartSession(id: MaybeId): Promise<Acted> {
  return callWithId("restart_session", id);
}

/** Takes back what an interrupted run did. */
export function discardSession(id: MaybeId): Promise<Acted> {
  return callWithId("discard_session", id);
}

/** Takes a session off the list whose engine does not answer; nothing changes on that engine. */
export function forgetSession(id: MaybeId): Promise<Acted> {
  return callWithId("forget_session", id);
}

/** Deletes a session; with `keepVolume` only its container. */
export function deleteSession(id: MaybeId, keepVolume = false): Promise<Acted> {
  return callWithId("delete_session", id, keepVolume ? { keep_volume: true } : {});
}

export function renameSession(id: MaybeId, name: string): Promise<Renamed> {
  return callWithId("rename_session", id, { name });
}

/**
 * Makes a new container around the same volume, from the same image when none is named. With `allowPrivilegeGain` its
 * programs may become root from now on.
 */
export function rebuildSession(id: MaybeId, image?: string, allowPrivilegeGain?: boolean): Promise<Acted> {
  return callWithId("rebuild_session", id, {
    ...(image === undefined ? {} : { image }),
    ...(allowPrivilegeGain === undefined ? {} : { allow_privilege_gain: allowPrivilegeGain }),
  });
}

export function duplicateSession(id: MaybeId, project_name?: string): Promise<CreatedSession> {
  return callWithId("duplicate_session", id, project_name === undefined ? {} : { project_name });
}

/** Measures a session's files; may take a second or two. */
export async function sessionUsage(id: MaybeId): Promise<Usage> {
  return (await callWithId<{ usage: Usage }>("session_usage", id)).usage;
}

/** Measures what a session uses from now on, until `endWatch`; returns what it uses now. */
export function watchFigures(id: MaybeId, hear: (news: FiguresNews) => void): Promise<Figures & Watched> {
  return callWithId("session_stats", id, { on_figures: new Channel<FiguresNews>(hear) });
}

/**
 * Reads the last lines of what a session's container has printed and what it prints from now on, until `endWatch`. Each
 * piece of text is to be acknowledged.
 */
export function watchLog(id: MaybeId, tail: number, hear: (news: LogNews) => void): Promise<Watched> {
  return callWithId("read_log", id, { tail, on_log: new Channel<LogNews>(hear) });
}

/** Says that a piece of a log was taken. */
export async function ackLog(watch_id: number): Promise<void> {
  await call("ack_log", { watch_id });
}

export async function endWatch(watch_id: number): Promise<void> {
  await call("end_watch", { watch_id });
}

/** The user knows that the session's memory was used up. */
export function dismissNote(id: MaybeId): Promise<Acted> {
  return callWithId("dismiss_note", id);
}

/** Ends everything that runs in a session but its agent: for one that may start nothing any more. */
export function endProcesses(id: MaybeId): Promise<ProcessesEnded> {
  return callWithId("end_processes", id);
}

/** Keeps a session running that is about to be stopped because nobody uses it. */
export function keepSession(id: MaybeId): Promise<Acted> {
  return callWithId("keep_session", id);
}

/** Lets the user choose a file and begins to write to it, unless none was chosen. */
export function exportSession(id: MaybeId): Promise<Acted> {
  return callWithId("export_session", id);
}

export function cancelExport(id: MaybeId): Promise<Done> {
  return callWithId("cancel_export", id);
}

/** Lets the user choose an archive; returns null when none was chosen. */
export async function chooseArchive(): Promise<ChosenArchive | null> {
  return (await call<{ archive: ChosenArchive | null }>("choose_archive")).archive;
}

/** Answers `app:closing`. */
export async function leaveApp(choice: LeaveChoice): Promise<void> {
  await call("leave_app", { choice });
}

export function listSessions(): Promise<Listing> {
  return call("list_sessions");
}

export async function listTemplates(): Promise<TemplateCard[]> {
  return (await call<{ templates: TemplateCard[] }>("list_templates")).templates;
}

export async function listImages(): Promise<ImageView[]> {
  return (await call<{ images: ImageView[] }>("list_images")).images;
}

export async function engineStatus(): Promise<EngineView[]> {
  return (await call<{ engines: EngineView[] }>("engine_status")).engines;
}

/** Makes new sessions on this engine from now on. */
export async function selectEngine(engineId: EngineId): Promise<EngineView[]> {
  return (await call<{ engines: EngineView[] }>("select_engine", { engine_id: engineId })).engines;
}

/** What is set, and what the engine has; `null` while it does not answer. */
export function readSettings(): Promise<{ settings: Settings; engine: EngineBounds | null }> {
  return call<{ settings: Settings; engine: EngineBounds | null }>("read_settings");
}

export async function writeSettings(settings: Settings): Promise<Settings> {
  return (await call<{ settings: Settings }>("write_settings", { settings })).settings;
}

/** Shows a notice on the desktop: a program of the session waits. */
export async function notifyUser(id: MaybeId, notice: string | null): Promise<void> {
  await callWithId("notify_user", id, { notice });
}

export function listDir(id: MaybeId, path: string): Promise<Directory> {
  return callWithId("list_dir", id, { path });
}

/** Reads a file; with a `charset` as a text in that encoding, whatever it looks like. */
export function readFile(id: MaybeId, path: string, charset: string | null = null): Promise<FileContent> {
  return callWithId("read_file", id, charset === null ? { path } : { path, charset });
}

/** Writes a file if it is still what is said, and returns its new revision. */
export async function writeFile(id: MaybeId, path: string, { content, charset }: WrittenText, condition: WriteCondition = {}): Promise<string> {
  const encoding: Encoding = charset === null ? "utf-8" : "decoded";
  const args = { path, content, encoding, ...(charset === null ? {} : { charset }), ...condition };
  return (await callWithId<{ revision: string }>("write_file", id, args)).revision;
}

/** What a new entry is to be. */
export type NewKind = "file" | "dir";

/** Makes an empty file or folder in a folder, under the name that the user typed. Returns its path. */
export async function createEntry(id: MaybeId, into: string, name: string, kind: NewKind): Promise<string> {
  return (await callWithId<{ path: string }>("create_entry", id, { into, name, kind })).path;
}

/** Moves an entry into a folder, under the name that the user typed or with null under its own. Returns its path. */
export async function moveEntry(id: MaybeId, from: string, into: string, name: string | null): Promise<string> {
  const args = { from, into, ...(name === null ? {} : { name }) };
  return (await callWithId<{ path: string }>("move_entry", id, args)).path;
}

/**
 * Copies an entry into a folder, whole or not at all. With `orLikeIt` it gets another name where its own is taken.
 * Returns the path of the copy.
 */
export async function copyEntry(id: MaybeId, from: string, into: string, orLikeIt: boolean): Promise<string> {
  const args = { from, into, ...(orLikeIt ? { or_like_it: true } : {}) };
  return (await callWithId<{ path: string }>("copy_entry", id, args)).path;
}

/** Moves entries into the trash, all or none. Returns what `restoreEntries` takes. */
export async function deleteEntries(id: MaybeId, paths: string[]): Promise<string> {
  return (await callWithId<{ trash: string }>("delete_entries", id, { paths })).trash;
}

/** Puts back what one delete has taken, all or nothing. */
export async function restoreEntries(id: MaybeId, trash: string): Promise<void> {
  await callWithId("restore_entries", id, { trash });
}

/**
 * Finds files by what is typed of their names, from as many as have been read within a moment. `fresh` says that names
 * which were read before do not count.
 */
export function findFiles(id: MaybeId, query: string, fresh: boolean, limit = 100): Promise<FoundFiles> {
  return callWithId("find_files", id, { query, limit, fresh, partial: true });
}

/** Begins a search in files and returns its id; `hear` gets what is found, and then how it ended. */
export async function searchFiles(id: MaybeId, query: TextQuery, hear: (news: SearchNews) => void): Promise<string> {
  const on_match = new Channel<SearchNews>();
  on_match.onmessage = hear;
  return (await callWithId<{ search_id: string }>("search_files", id, { ...query, on_match })).search_id;
}

/** Ends a search early; one that has ended is left alone. */
export async function cancelSearch(id: MaybeId, search_id: string): Promise<void> {
  await callWithId("cancel_search", id, { search_id });
}

/** Watches these folders and files, in place of what was watched: `files:changed` tells what of them changes. */
export function watchDirs(id: MaybeId, paths: string[]): Promise<Watching> {
  return callWithId("watch_dirs", id, { paths });
}

/** Lets the user choose what is uploaded into a folder. Returns the transfer, or null when they think better of it. */
export async function uploadFiles(id: MaybeId, folder: string, wanted: "files" | "folder"): Promise<string | null> {
  return (await callWithId<{ transfer_id: string | null }>("upload_files", id, { folder, wanted })).transfer_id;
}

/** Uploads what was dropped last. */
export async function uploadDropped(id: MaybeId, folder: string, dropped: string): Promise<void> {
  await callWithId("upload_dropped", id, { folder, dropped });
}

/** Lets the user choose where entries go: a file of this name, or with null a folder. Returns the transfer, or null. */
export async function downloadEntries(id: MaybeId, paths: string[], file_name: string | null): Promise<string | null> {
  return (await callWithId<{ transfer_id: string | null }>("download_entries", id, { paths, file_name })).transfer_id;
}

/** Says what becomes of names that an upload found taken. */
export async function answerTransfer(id: MaybeId, transfer_id: string, choice: NameTaken): Promise<void> {
  await callWithId("answer_transfer", id, { transfer_id, choice });
}

export async function retryTransfer(id: MaybeId, transfer_id: string): Promise<void> {
  await callWithId("retry_transfer", id, { transfer_id });
}

/** Ends a transfer, or forgets one that has ended. */
export async function cancelTransfer(id: MaybeId, transfer_id: string): Promise<void> {
  await callWithId("cancel_transfer", id, { transfer_id });
}

/** Keeps the unsaved text of a file until it is dropped or the session is deleted. */
export async function keepDraft(id: MaybeId, draft: Draft): Promise<void> {
  await callWithId("keep_draft", id, { draft });
}

/** Returns the texts of a session that were not saved. */
export async function readDrafts(id: MaybeId): Promise<Draft[]> {
  return (await callWithId<{ drafts: Draft[] }>("read_drafts", id)).drafts;
}

export async function dropDraft(id: MaybeId, path: string): Promise<void> {
  await callWithId("drop_draft", id, { path });
}

/** Where the shell of a new terminal begins: in a folder, or in that of another terminal. */
export type TerminalBegins = { folder: string } | { like: string };

/**
 * Opens a new terminal, in the place of one that has ended if that is named, or attaches to the one named and
 * hears its recent output first.
 */
export async function openTerminal(
  id: MaybeId,
  terminalId: string | null,
  size: { cols: number; rows: number },
  output: TerminalOutput,
  replaces: string | null = null,
  begins: TerminalBegins | null = null,
): Promise<string> {
  const on_output = new Channel<unknown>((message) => hearTerminal(message, output));
  const how = { ...(replaces === null ? {} : { replaces }), ...begins };
  const args = { ...size, on_output, ...(terminalId === null ? how : { terminal_id: terminalId }) };
  return (await callWithId<{ terminal_id: string }>("open_terminal", id, args)).terminal_id;
}

/** Writes text, or with `base64` bytes that are none. */
export async function writeTerminal(
  id: MaybeId,
  terminal_id: string,
  data: string,
  encoding: "utf-8" | "base64" = "utf-8",
): Promise<void> {
  await callWithId("write_terminal", id, { terminal_id, data, ...(encoding === "utf-8" ? {} : { encoding }) });
}

export async function resizeTerminal(
  id: MaybeId,
  terminal_id: string,
  cols: number,
  rows: number,
): Promise<void> {
  await callWithId("resize_terminal", id, { terminal_id, cols, rows });
}

/** Says how many bytes of this attachment have been rendered in all; output waits for it. */
export async function ackTerminal(id: MaybeId, terminal_id: string, bytes: number): Promise<void> {
  await callWithId("ack_terminal", id, { terminal_id, bytes });
}

/** Names what the shell of a terminal has begun and goes on. */
export async function terminalPrograms(id: MaybeId, terminal_id: string): Promise<string[]> {
  return (await callWithId<{ programs: string[] }>("terminal_programs", id, { terminal_id })).programs;
}

/** The terminals of a session, and the tabs that a window showed them in last. */
export function listTerminals(id: MaybeId): Promise<TerminalList> {
  return callWithId("list_terminals", id);
}

/** Keeps in which tabs the terminals are shown, for the next window. */
export async function arrangeTerminals(id: MaybeId, tabs: TerminalTab[]): Promise<void> {
  await callWithId("arrange_terminals", id, { tabs });
}

export async function closeTerminal(id: MaybeId, terminal_id: string): Promise<void> {
  await callWithId("close_terminal", id, { terminal_id });
}

/** The ports that programs of a session listen on, and those that are forwarded. */
export function listPorts(id: MaybeId): Promise<PortList> {
  return callWithId("list_ports", id);
}

/** Forwards a port to one of this machine; with null to the same number if that is free. Returns all ports. */
export function forwardPort(id: MaybeId, port: number, local_port: number | null): Promise<PortList> {
  return callWithId("forward_port", id, { port, ...(local_port === null ? {} : { local_port }) });
}

/** Forwards a port no longer, also not by itself. Returns all ports. */
export function unforwardPort(id: MaybeId, port: number): Promise<PortList> {
  return callWithId("unforward_port", id, { port });
}

/** Shows a port in the user's browser. */
export async function openPort(id: MaybeId, port: number): Promise<void> {
  await callWithId("open_port", id, { port });
}

/** What a caller may hold where an id should be; only a real one is ever sent. */
type MaybeId = SessionId | null | undefined;

type Args = Record<string, unknown>;

function callWithId<T>(command: string, id: MaybeId, args: Args = {}): Promise<T> {
  const word = id?.trim();
  if (word === undefined || word === "" || word === "undefined" || word === "null") {
    return Promise.reject(
      new CommandError(
        report(
          "SESSION_ID_MISSING",
          "no session id was given",
          "Choose a session from the list, or create a new one.",
        ),
      ),
    );
  }
  return call(command, { id, ...args });
}

async function call<T>(command: string, args: Args = {}): Promise<T> {
  try {
    return await invoke<T>(command, args);
  } catch (thrown) {
    throw new CommandError(reportOf(thrown));
  }
}

/** Raw messages come as bytes; small ones may come as an array of numbers. */
function hearTerminal(message: unknown, output: TerminalOutput): void {
  if (message instanceof ArrayBuffer) output.onbytes(new Uint8Array(message));
  else if (ArrayBuffer.isView(message)) {
    output.onbytes(new Uint8Array(message.buffer, message.byteOffset, message.byteLength));
  } else if (Array.isArray(message)) output.onbytes(Uint8Array.from(message as number[]));
  else if (typeof message === "object" && message !== null) {
    if ("pause" in message) output.onpause();
    else if ("replayed" in message) output.onreplayed();
    else if ("exit" in message) output.onexit(message.exit as TerminalExit);
  }
}
