import { clearMocks, mockIPC } from "@tauri-apps/api/mocks";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import * as commands from "./commands";
import { CommandError, problemsOf, reportOf } from "./error";

let sent: Array<{ command: string; args: unknown }>;
let answer: (command: string, args: Record<string, unknown>) => unknown;

beforeEach(() => {
  sent = [];
  answer = () => ({ ok: true });
  mockIPC((command, args) => {
    sent.push({ command, args });
    return answer(command, args as Record<string, unknown>);
  });
});

afterEach(clearMocks);

async function rejection(promise: Promise<unknown>): Promise<CommandError> {
  const thrown = await promise.then(
    () => expect.fail("was expected to reject"),
    (reason: unknown) => reason,
  );
  expect(thrown).toBeInstanceOf(CommandError);
  return thrown as CommandError;
}

const size = { cols: 80, rows: 24 };
const deaf = { onbytes: () => {}, onpause: () => {}, onreplayed: () => {}, onexit: () => {} };
const anything = { query: "a", regex: false, case: false, word: false, include: "", exclude: "", ignored: false };

const WITH_ID: Record<string, (id: string | null | undefined) => Promise<unknown>> = {
  session_status: commands.sessionStatus,
  cancel_session: commands.cancelSession,
  retry_session: commands.retrySession,
  open_session: commands.openSession,
  stop_session: commands.stopSession,
  delete_session: commands.deleteSession,
  restart_session: commands.restartSession,
  discard_session: commands.discardSession,
  forget_session: commands.forgetSession,
  rename_session: (id) => commands.renameSession(id, "api"),
  rebuild_session: commands.rebuildSession,
  duplicate_session: commands.duplicateSession,
  session_usage: commands.sessionUsage,
  end_processes: commands.endProcesses,
  keep_session: commands.keepSession,
  notify_user: (id) => commands.notifyUser(id, null),
  export_session: commands.exportSession,
  cancel_export: commands.cancelExport,
  list_dir: (id) => commands.listDir(id, "/workspace"),
  read_file: (id) => commands.readFile(id, "/workspace/a"),
  create_entry: (id) => commands.createEntry(id, "/workspace", "a", "file"),
  move_entry: (id) => commands.moveEntry(id, "/workspace/a", "/workspace/b", null),
  copy_entry: (id) => commands.copyEntry(id, "/workspace/a", "/workspace/b", true),
  delete_entries: (id) => commands.deleteEntries(id, ["/workspace/a"]),
  find_files: (id) => commands.findFiles(id, "a", true),
  upload_files: (id) => commands.uploadFiles(id, "/workspace", "files"),
  upload_dropped: (id) => commands.uploadDropped(id, "/workspace", "token"),
  download_entries: (id) => commands.downloadEntries(id, ["/workspace/a"], "a"),
  answer_transfer: (id) => commands.answerTransfer(id, "t", "skip"),
  retry_transfer: (id) => commands.retryTransfer(id, "t"),
  cancel_transfer: (id) => commands.cancelTransfer(id, "t"),
  search_files: (id) => commands.searchFiles(id, anything, () => {}),
  cancel_search: (id) => commands.cancelSearch(id, "s"),
  watch_dirs: (id) => commands.watchDirs(id, ["/workspace"]),
  restore_entries: (id) => commands.restoreEntries(id, "0123456789abcdef"),
  write_file: (id) => commands.writeFile(id, "/workspace/a", { content: "", charset: null }),
  keep_draft: (id) => commands.keepDraft(id, { path: "/workspace/a", name: "a", content: "", charset: null, revision: null }),
  read_drafts: commands.readDrafts,
  drop_draft: (id) => commands.dropDraft(id, "/workspace/a"),
  open_terminal: (id) => commands.openTerminal(id, null, size, deaf),
  write_terminal: (id) => commands.writeTerminal(id, "t", ""),
  resize_terminal: (id) => commands.resizeTerminal(id, "t", 1, 1),
  ack_terminal: (id) => commands.ackTerminal(id, "t", 1),
  terminal_programs: (id) => commands.terminalPrograms(id, "t"),
  list_terminals: commands.listTerminals,
  arrange_terminals: (id) => commands.arrangeTerminals(id, []),
  close_terminal: (id) => commands.closeTerminal(id, "t"),
  list_ports: commands.listPorts,
  forward_port: (id) => commands.forwardPort(id, 8000, null),
  unforward_port: (id) => commands.unforwardPort(id, 8000),
  open_port: (id) => commands.openPort(id, 8000),
};

describe("a command without a session id", () => {
  for (const [command, call] of Object.entries(WITH_ID)) {
    it.each(["", "  ", "undefined", "null", null, undefined])(`${command} with %o is refused and nothing is sent`, async (id) => {
      const { report } = await rejection(call(id));
      expect(report).toMatchObject({ ok: false, error: "SESSION_ID_MISSING", details: {} });
      expect(sent).toEqual([]);
    });
  }
});

describe("what goes over the wire", () => {
  it("keeps argument names as the contract writes them", async () => {
    answer = () => ({ ok: true, terminal_id: "t1", revision: "2" });
    await commands.createSession({ workspace_id: "default", project_name: "api" });
    await commands.sessionStatus("s1");
    await commands.resizeTerminal("s1", "t1", 100, 30);
    await commands.writeFile("s1", "/workspace/a", { content: "x", charset: null }, { revision: "1" });
    await commands.writeFile("s1", "/workspace/a", { content: "x", charset: { name: "UTF-16LE", marked: true } }, { missing: true });
    expect(sent).toEqual([
      { command: "create_session", args: { request: { workspace_id: "default", project_name: "api" } } },
      { command: "session_status", args: { id: "s1" } },
      { command: "resize_terminal", args: { id: "s1", terminal_id: "t1", cols: 100, rows: 30 } },
      {
        command: "write_file",
        args: { id: "s1", path: "/workspace/a", content: "x", encoding: "utf-8", revision: "1" },
      },
      {
        command: "write_file",
        args: { id: "s1", path: "/workspace/a", content: "x", encoding: "decoded", charset: { name: "UTF-16LE", marked: true }, missing: true },
      },
    ]);
  });

  it("says nothing of what is not asked for", async () => {
    await commands.deleteSession("s1");
    await commands.deleteSession("s1", true);
    await commands.rebuildSession("s1");
    await commands.rebuildSession("s1", "debian:12");
    await commands.duplicateSession("s1");
    await commands.leaveApp("stay");
    expect(sent).toEqual([
      { command: "delete_session", args: { id: "s1" } },
      { command: "delete_session", args: { id: "s1", keep_volume: true } },
      { command: "rebuild_session", args: { id: "s1" } },
      { command: "rebuild_session", args: { id: "s1", image: "debian:12" } },
      { command: "duplicate_session", args: { id: "s1" } },
      { command: "leave_app", args: { choice: "stay" } },
    ]);
  });

  it("names a terminal only when it attaches to one", async () => {
    answer = () => ({ ok: true, terminal_id: "t1" });
    await commands.openTerminal("s1", null, size, deaf);
    await commands.openTerminal("s1", "t7", size, deaf);
    expect(sent[0]?.args).not.toHaveProperty("terminal_id");
    expect(sent[1]?.args).toMatchObject({ id: "s1", terminal_id: "t7", cols: 80, rows: 24 });
  });

  it("hears what a search finds, and its end", async () => {
    const heard: unknown[] = [];
    const end = { searched: 1, matches: 0, truncated: false, unread: 0, cancelled: false, error: null };
    answer = (_command, args) => {
      expect(args).toMatchObject({ id: "s1", query: "a", regex: false, include: "", ignored: false });
      const channel = args["on_match"] as { onmessage: (message: unknown) => void };
      channel.onmessage({ files: [] });
      channel.onmessage({ end });
      return { ok: true, search_id: "7" };
    };
    expect(await commands.searchFiles("s1", anything, (news) => heard.push(news))).toBe("7");
    expect(heard).toEqual([{ files: [] }, { end }]);
    answer = () => ({ ok: true });
    await commands.cancelSearch("s1", "7");
    expect(sent.at(-1)).toEqual({ command: "cancel_search", args: { id: "s1", search_id: "7" } });
  });

  it("hears bytes in every form in which the channel brings them, pauses between them, then the exit", async () => {
    const heard: unknown[] = [];
    answer = (_command, args) => {
      const channel = args["on_output"] as { onmessage: (message: unknown) => void };
      channel.onmessage(Uint8Array.of(1, 2).buffer);
      channel.onmessage(Uint8Array.of(0, 3, 4).subarray(1));
      channel.onmessage({ pause: true });
      channel.onmessage([5, 6]);
      channel.onmessage({ exit: { code: 0, message: "" } });
      return { ok: true, terminal_id: "t1" };
    };
    await commands.openTerminal("s1", null, size, {
      onbytes: (bytes) => heard.push([...bytes]),
      onpause: () => heard.push("pause"),
      onreplayed: () => heard.push("replayed"),
      onexit: (exit) => heard.push(exit),
    });
    expect(heard).toEqual([[1, 2], [3, 4], "pause", [5, 6], { code: 0, message: "" }]);
  });
});

describe("a rejection", () => {
  it("carries the report as it came", async () => {
    const report = {
      ok: false,
      error: "VALIDATION_ERROR",
      message: "the request has a field that must be corrected",
      hint: "Correct it.",
      details: { fields: { image: "is wrong", n: 3 } },
    };
    answer = () => {
      throw report;
    };
    const thrown = await rejection(commands.listSessions());
    expect(thrown.report).toEqual(report);
    expect(problemsOf(thrown.report)).toEqual({ image: "is wrong" });
  });

  it.each([
    ["a sentence", "a sentence"],
    [new Error("broken"), "broken"],
    [{ ok: false, error: "X" }, '{"ok":false,"error":"X"}'],
    [undefined, "something failed without saying what"],
  ])("of another shape (%o) becomes INTERNAL", (thrown, message) => {
    expect(reportOf(thrown)).toMatchObject({ ok: false, error: "INTERNAL", message, details: {} });
  });
});
