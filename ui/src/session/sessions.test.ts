import { beforeEach, describe, expect, it, vi } from "vitest";

import { becameReady, cancelled, exported, failed, failure, moved, session, status } from "../../test/sessions";
import type { SessionStatus } from "../bindings/SessionStatus";
import { CommandError } from "../lib/ipc/error";
import { type SessionCommands, Sessions } from "./sessions.svelte";

beforeEach(() => sessionStorage.clear());

function commands(more: Partial<SessionCommands> = {}) {
  const acted: SessionCommands["stopSession"] = (id) => Promise.resolve({ ok: true, session_id: id ?? "" });
  const all: SessionCommands = {
    createSession: () => Promise.resolve({ ok: true, session_id: "new", phase: "Starting", message: "starting" }),
    sessionStatus: (id) => Promise.resolve(status(id ?? "")),
    cancelSession: acted,
    retrySession: acted,
    openSession: acted,
    stopSession: acted,
    restartSession: acted,
    rebuildSession: (id) => acted(id),
    duplicateSession: () => Promise.resolve({ ok: true, session_id: "copy", phase: "Starting", message: "starting" }),
    renameSession: (id, name) => Promise.resolve({ ok: true, session_id: id ?? "", name }),
    discardSession: acted,
    deleteSession: (id) => acted(id),
    exportSession: () => Promise.resolve(true),
    cancelExport: acted,
    listSessions: () => Promise.resolve([session("new")]),
    ...more,
  };
  return {
    createSession: vi.fn(all.createSession),
    sessionStatus: vi.fn(all.sessionStatus),
    cancelSession: vi.fn(all.cancelSession),
    retrySession: vi.fn(all.retrySession),
    openSession: vi.fn(all.openSession),
    stopSession: vi.fn(all.stopSession),
    restartSession: vi.fn(all.restartSession),
    rebuildSession: vi.fn(all.rebuildSession),
    duplicateSession: vi.fn(all.duplicateSession),
    renameSession: vi.fn(all.renameSession),
    discardSession: vi.fn(all.discardSession),
    deleteSession: vi.fn(all.deleteSession),
    exportSession: vi.fn(all.exportSession),
    cancelExport: vi.fn(all.cancelExport),
    listSessions: vi.fn(all.listSessions),
  };
}

const listing = (...sessions: Parameters<typeof session>[]) => ({
  listSessions: () => Promise.resolve(sessions.map((of) => session(...of))),
});

describe("after a reload", () => {
  it("shows the run under way again, with one snapshot and no more", async () => {
    const calls = commands(listing(["a", { state: "stopped" }], ["b"]));
    const sessions = new Sessions(calls);
    await sessions.load();
    expect(calls.sessionStatus.mock.calls).toEqual([["b"]]);
    expect([sessions.selectedId, sessions.shown?.id, sessions.shown?.progress.percent]).toEqual(["b", "b", 17]);
    sessions.hear(moved("b", 6, 20));
    await sessions.load();
    expect(calls.sessionStatus).toHaveBeenCalledTimes(1);
    expect(sessions.shown?.progress.percent).toBe(20);
  });

  it("leaves in the background what was left there", async () => {
    const before = new Sessions(commands(listing(["b"])));
    await before.load();
    before.leave();
    const after = new Sessions(commands(listing(["b"])));
    await after.load();
    expect([after.shown, after.selectedId]).toEqual([null, "b"]);
  });

  it("events that come while the list is read are not lost", async () => {
    const calls = commands({
      listSessions: () => {
        sessions.hear(becameReady("b", 8));
        return Promise.resolve([session("b", { state: "provisioning" })]);
      },
    });
    const sessions = new Sessions(calls);
    await sessions.load();
    expect([sessions.selected?.state, sessions.shown]).toEqual(["ready", null]);
    expect(calls.sessionStatus).not.toHaveBeenCalled();
  });

  it("a list that cannot be had is said", async () => {
    const sessions = new Sessions(commands({ listSessions: () => Promise.reject(new CommandError(failure("ENGINE_UNAVAILABLE"))) }));
    await sessions.load();
    expect([sessions.loaded, sessions.listFailure?.error]).toEqual([true, "ENGINE_UNAVAILABLE"]);
  });
});

describe("creating", () => {
  it("shows the progress, closes by itself when ready, and hands the focus to the terminal", async () => {
    const sessions = new Sessions(commands());
    await sessions.create({ workspace_id: "default", project_name: "api" }, "python:3.13");
    expect([sessions.shown?.name, sessions.selectedId]).toEqual(["api", "new"]);
    sessions.hear(moved("new", 1, 12));
    sessions.hear(becameReady("new", 2));
    expect([sessions.shown, sessions.focusId, sessions.selected?.state]).toEqual([null, "new", "ready"]);
  });

  it("events that overtake the answer count", async () => {
    const sessions = new Sessions(commands());
    sessions.hear(moved("new", 4, 21));
    await sessions.create({ workspace_id: "default" }, "python:3.13");
    expect([sessions.shown?.progress.percent, sessions.shown?.seq]).toEqual([21, 4]);
  });

  it("what becomes ready in the background takes neither selection nor focus", async () => {
    const sessions = new Sessions(commands(listing(["new"], ["other", { state: "ready" }])));
    await sessions.create({ workspace_id: "default" }, "python:3.13");
    sessions.leave();
    sessions.select("other");
    sessions.hear(becameReady("new", 2));
    expect([sessions.selectedId, sessions.focusId, sessions.announcement]).toEqual(["other", null, "new: ready"]);
  });
});

describe("cancelling and retrying", () => {
  it("asks once, and shows what was undone", async () => {
    const calls = commands(listing(["b"]));
    const sessions = new Sessions(calls);
    await sessions.load();
    await Promise.all([sessions.cancel("b"), sessions.cancel("b")]);
    expect(calls.cancelSession).toHaveBeenCalledTimes(1);
    expect(sessions.shown?.cancelling).toBe(true);
    sessions.hear(cancelled("b", 9));
    expect([sessions.shown?.state, sessions.shown?.cancelling, sessions.shown?.undone.length]).toEqual(["cancelled", false, 1]);
  });

  it("keeps the id, begins at nought, and asks once", async () => {
    const calls = commands(listing(["b"]));
    const sessions = new Sessions(calls);
    await sessions.load();
    sessions.hear(failed("b", 9));
    await Promise.all([sessions.retry("b"), sessions.retry("b")]);
    expect(calls.retrySession.mock.calls).toEqual([["b"]]);
    expect([sessions.shown?.id, sessions.shown?.state, sessions.shown?.progress.percent]).toEqual(["b", "provisioning", 0]);
  });

  it("a retry that is refused says so in the same place, and the old state is back", async () => {
    const sessions = new Sessions(
      commands({ ...listing(["b"]), retrySession: () => Promise.reject(new CommandError(failure("SESSION_NOT_FOUND"))) }),
    );
    await sessions.load();
    sessions.hear(failed("b", 9));
    await sessions.retry("b");
    expect([sessions.shown?.state, sessions.shown?.refusal?.error]).toEqual(["failed", "SESSION_NOT_FOUND"]);
    expect(sessions.shown?.timing?.outcome).toBe("failed");
  });

  it("opening a stopped session shows its progress as opening", async () => {
    let answer = (_: SessionStatus) => {};
    const calls = commands({
      ...listing(["b", { state: "stopped" }]),
      sessionStatus: () => new Promise<SessionStatus>((resolve) => (answer = resolve)),
    });
    const sessions = new Sessions(calls);
    await sessions.load();
    await sessions.open("b");
    expect(calls.openSession.mock.calls).toEqual([["b"]]);
    expect([sessions.shown?.doing, sessions.shown?.state]).toEqual(["Opening", "provisioning"]);
    // The snapshot that was asked for before the press comes late, and is stale.
    answer(status("b", { state: "stopped", seq: 0 }));
    await new Promise((done) => setTimeout(done));
    expect(sessions.shown?.state).toBe("provisioning");
  });
});

describe("deleting", () => {
  it("takes it from the list for good, whatever is heard later", async () => {
    const calls = commands(listing(["a", { state: "stopped" }], ["b", { state: "stopped" }]));
    const sessions = new Sessions(calls);
    await sessions.load();
    sessions.select("b");
    await sessions.remove("b");
    sessions.hear(moved("b", 99, 50));
    await sessions.load();
    expect(sessions.listed.map((run) => run.id)).toEqual(["a"]);
    expect(sessions.selectedId).toBe("a");
  });

  it("that fails keeps it, and rejects", async () => {
    const sessions = new Sessions(
      commands({ ...listing(["b", { state: "stopped" }]), deleteSession: () => Promise.reject(new CommandError(failure("ENGINE_REFUSED"))) }),
    );
    await sessions.load();
    await expect(sessions.remove("b")).rejects.toThrow(CommandError);
    expect(sessions.listed.map((run) => [run.id, run.asking])).toEqual([["b", false]]);
  });
});

describe("changes from outside", () => {
  it("while a list is read, make one more and never a second at a time", async () => {
    const answers: Array<() => void> = [];
    const calls = commands({
      listSessions: () => new Promise((resolve) => answers.push(() => resolve([session("a", { state: "stopped" })]))),
    });
    const sessions = new Sessions(calls);
    const loads = [sessions.load(), sessions.load(), sessions.load()];
    expect(calls.listSessions).toHaveBeenCalledTimes(1);
    answers.shift()?.();
    await vi.waitFor(() => expect(calls.listSessions).toHaveBeenCalledTimes(2));
    expect(answers).toHaveLength(1);
    answers.shift()?.();
    await Promise.all(loads);
    expect(calls.listSessions).toHaveBeenCalledTimes(2);
    void sessions.load();
    expect(calls.listSessions).toHaveBeenCalledTimes(3);
  });

  it("keep the runs that are known, and ask for the selected one if its state differs", async () => {
    let list = [session("a", { state: "ready" }), session("b", { state: "ready" })];
    const calls = commands({
      listSessions: () => Promise.resolve(list),
      sessionStatus: (id) => Promise.resolve(status(id ?? "", { state: "stopped", seq: 1 })),
    });
    const sessions = new Sessions(calls);
    await sessions.load();
    const run = sessions.selected;
    await sessions.load();
    expect(calls.sessionStatus).not.toHaveBeenCalled();
    list = list.map((listed) => ({ ...listed, state: "stopped" }));
    await sessions.load();
    expect(sessions.selected).toBe(run);
    expect(sessions.listed.map((listed) => listed.state)).toEqual(["stopped", "stopped"]);
    expect(calls.sessionStatus.mock.calls).toEqual([["a"]]);
  });

  it("take a session out, and the one below it is selected, else the one above", async () => {
    let list = ["a", "b", "c"].map((id) => session(id, { state: "stopped" }));
    list.push(session("files", { state: "stopped", has_container: false }));
    const sessionStatus: SessionCommands["sessionStatus"] = (id) => Promise.resolve(status(id ?? "", { state: "stopped", seq: 0 }));
    const sessions = new Sessions(commands({ listSessions: () => Promise.resolve(list), sessionStatus }));
    await sessions.load();
    sessions.select("b");
    for (const [gone, next] of [["b", "c"], ["c", "a"], ["a", "files"], ["files", null]] as const) {
      list = list.filter((listed) => listed.session_id !== gone);
      await sessions.load();
      expect(sessions.selectedId).toBe(next);
    }
  });

  it("a run that begins by itself does not come up", async () => {
    let list = [session("a", { state: "stopped" })];
    const sessionStatus = () => Promise.resolve(status("a", { state: list[0]?.state ?? "stopped" }));
    const sessions = new Sessions(commands({ listSessions: () => Promise.resolve(list), sessionStatus }));
    await sessions.load();
    list = [session("a", { state: "provisioning" })];
    await sessions.load();
    sessions.hear(moved("a", 6, 20));
    expect([sessions.shown, sessions.selected?.state, sessions.selected?.doing]).toEqual([null, "provisioning", "Opening"]);
    sessions.hear(becameReady("a", 7));
    expect([sessions.selected?.state, sessions.focusId]).toEqual(["ready", null]);
  });

  it("do not undo what was just begun here", async () => {
    let answer = () => {};
    const calls = commands({
      listSessions: () => Promise.resolve([session("a", { state: "stopped" })]),
      openSession: (id) => new Promise((resolve) => (answer = () => resolve({ ok: true, session_id: id ?? "" }))),
    });
    const sessions = new Sessions(calls);
    await sessions.load();
    const opening = sessions.open("a");
    await sessions.load();
    expect(sessions.shown?.state).toBe("provisioning");
    answer();
    await opening;
  });
});

describe("restarting and rebuilding", () => {
  it("a restart begins at once, and what was refused is asked for again", async () => {
    const calls = commands({
      ...listing(["b", { state: "ready" }]),
      restartSession: () => Promise.reject(new CommandError(failure("ENGINE_REFUSED"))),
    });
    const sessions = new Sessions(calls);
    await sessions.load();
    await sessions.restart("b");
    expect([sessions.shown?.state, sessions.shown?.doing, sessions.shown?.refusal?.error]).toEqual(["ready", "Restarting", "ENGINE_REFUSED"]);
    await sessions.retry("b");
    expect([calls.restartSession.mock.calls.length, calls.retrySession.mock.calls.length]).toEqual([2, 0]);
  });

  it("a rebuild shows its progress, also when its first event overtakes the answer", async () => {
    const calls = commands({
      ...listing(["b", { state: "ready" }]),
      rebuildSession: (id) => {
        sessions.hear(moved("b", 4, 12));
        return Promise.resolve({ ok: true, session_id: id ?? "" });
      },
    });
    const sessions = new Sessions(calls);
    await sessions.load();
    await sessions.rebuild("b", "debian:12");
    expect(calls.rebuildSession.mock.calls).toEqual([["b", "debian:12"]]);
    expect([sessions.shown?.doing, sessions.shown?.progress.percent]).toEqual(["Rebuilding", 12]);
  });

  it("a rebuild that is refused rejects and leaves the session as it was", async () => {
    const sessions = new Sessions(
      commands({ ...listing(["b", { state: "ready" }]), rebuildSession: () => Promise.reject(new CommandError(failure("VALIDATION_ERROR"))) }),
    );
    await sessions.load();
    await expect(sessions.rebuild("b", "Py thon")).rejects.toThrow(CommandError);
    expect([sessions.shown, sessions.selected?.state, sessions.selected?.asking]).toEqual([null, "ready", false]);
  });
});

it("a copy is a new session in the same workspace, and its progress is shown", async () => {
  const calls = commands(listing(["b", { state: "ready", workspace_id: "shop" }]));
  const sessions = new Sessions(calls);
  await sessions.load();
  await sessions.duplicate("b", "b copy");
  expect(calls.duplicateSession.mock.calls).toEqual([["b", "b copy"]]);
  expect([sessions.shown?.name, sessions.shown?.session?.workspace_id, sessions.selectedId]).toEqual(["b copy", "shop", "copy"]);
});

it("a session has its new name as soon as it is answered", async () => {
  const sessions = new Sessions(commands({ ...listing(["b", { state: "ready" }]), renameSession: (id) => Promise.resolve({ ok: true, session_id: id ?? "", name: "api" }) }));
  await sessions.load();
  await sessions.rename("b", "api");
  expect(sessions.selected?.name).toBe("api");
});

it("deleting only the container keeps the session as its files", async () => {
  const sessions = new Sessions(commands(listing(["b", { state: "ready" }])));
  await sessions.load();
  await sessions.remove("b", true);
  expect([sessions.selected?.kept, sessions.listed.length]).toEqual([true, 1]);
});

describe("an export", () => {
  it("is shown from the answer on, and once at a time", async () => {
    const calls = commands(listing(["b", { state: "ready" }]));
    const sessions = new Sessions(calls);
    await sessions.load();
    await Promise.all([sessions.export("b"), sessions.export("b")]);
    await sessions.export("b");
    expect(calls.exportSession).toHaveBeenCalledTimes(1);
    expect(sessions.selected?.export).toEqual({ bytes: 0, total_bytes: null });
  });

  it("is not shown when the system's dialog was dismissed, nor when it has ended before the answer", async () => {
    for (const started of [false, true]) {
      const exportSession = () => {
        if (started) sessions.hear(exported("b", 3, { outcome: "done" }));
        return Promise.resolve(started);
      };
      const sessions = new Sessions(commands({ ...listing(["b", { state: "ready" }]), exportSession }));
      await sessions.load();
      await sessions.export("b");
      expect(sessions.selected?.export).toBeNull();
    }
  });

  it("can be cancelled once", async () => {
    const calls = commands(listing(["b", { state: "ready", export: { bytes: 1, total_bytes: 2 } }]));
    const sessions = new Sessions(calls);
    await sessions.load();
    await Promise.all([sessions.cancelExport("b"), sessions.cancelExport("b")]);
    expect([calls.cancelExport.mock.calls.length, sessions.selected?.cancellingExport]).toEqual([1, true]);
    expect(sessions.hear(exported("b", 3, { outcome: "cancelled" }))).toBe(true);
    expect([sessions.selected?.export, sessions.selected?.cancellingExport]).toEqual([null, false]);
  });
});
