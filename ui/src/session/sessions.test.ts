import { beforeEach, describe, expect, it, vi } from "vitest";

import { becameReady, cancelled, changed, exported, failed, failure, moved, session, status } from "../../test/sessions";
import type { SessionStatus } from "../bindings/SessionStatus";
import { CommandError } from "../lib/ipc/error";
import { type SessionCommands, Sessions } from "./sessions.svelte";

beforeEach(() => {
  sessionStorage.clear();
  order.seq = 50;
});

/** The place in the order of events that the next answer has; lists and events of before are older. */
const order = { seq: 50 };

/** What a command answers about a session that is so now. */
function became(id: string | null | undefined, more: Parameters<typeof session>[1] | null) {
  const seq = ++order.seq;
  return { ok: true as const, session_id: id ?? "", seq, session: more === null ? null : session(id ?? "", { ...more, seq }) };
}

function created(id: string, name: string, workspace_id = "default") {
  return { ...became(id, { name, workspace_id }), phase: "Starting" as const, message: "starting" };
}

function commands(more: Partial<SessionCommands> = {}) {
  const begins: SessionCommands["openSession"] = (id) => Promise.resolve(became(id, { state: "provisioning" }));
  const all: SessionCommands = {
    createSession: (request) => Promise.resolve(created("new", request.project_name ?? "new")),
    sessionStatus: (id) => Promise.resolve(status(id ?? "")),
    cancelSession: begins,
    retrySession: begins,
    openSession: begins,
    stopSession: (id) => Promise.resolve(became(id, { state: "stopped" })),
    restartSession: begins,
    rebuildSession: (id) => begins(id),
    duplicateSession: (_, name) => Promise.resolve(created("copy", name ?? "", "shop")),
    renameSession: (id, name) => Promise.resolve({ ...became(id, { state: "ready", name }), name }),
    discardSession: (id) => Promise.resolve(became(id, null)),
    forgetSession: (id) => Promise.resolve(became(id, null)),
    deleteSession: (id, keepVolume) => Promise.resolve(became(id, keepVolume ? { state: "stopped", has_container: false } : null)),
    exportSession: (id) => Promise.resolve(became(id, { state: "ready", export: { bytes: 0, total_bytes: null } })),
    cancelExport: (id) => Promise.resolve({ ok: true, session_id: id ?? "" }),
    listSessions: () => Promise.resolve(list([session("new")])),
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
    forgetSession: vi.fn(all.forgetSession),
    deleteSession: vi.fn(all.deleteSession),
    exportSession: vi.fn(all.exportSession),
    cancelExport: vi.fn(all.cancelExport),
    listSessions: vi.fn(all.listSessions),
  };
}

/** A list from before everything else, unless its sessions say otherwise. */
const list = (sessions: ReturnType<typeof session>[]) => ({ seq: Math.max(0, ...sessions.map(({ seq }) => seq)), sessions });

const listing = (...sessions: Parameters<typeof session>[]) => ({
  listSessions: () => Promise.resolve(list(sessions.map((of) => session(...of)))),
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
        return Promise.resolve(list([session("b", { state: "provisioning" })]));
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
    await sessions.create({ workspace_id: "default", project_name: "api" });
    expect([sessions.shown?.name, sessions.selectedId]).toEqual(["api", "new"]);
    sessions.hear(moved("new", 61, 12));
    sessions.hear(becameReady("new", 62));
    expect([sessions.shown, sessions.focusId, sessions.selected?.state]).toEqual([null, "new", "ready"]);
  });

  it("events that overtake the answer count", async () => {
    const sessions = new Sessions(commands());
    sessions.hear(moved("new", 64, 21));
    await sessions.create({ workspace_id: "default" });
    expect([sessions.shown?.progress.percent, sessions.shown?.seq]).toEqual([21, 64]);
  });

  it("what becomes ready in the background takes neither selection nor focus", async () => {
    const sessions = new Sessions(commands(listing(["new"], ["other", { state: "ready" }])));
    await sessions.create({ workspace_id: "default" });
    sessions.leave();
    sessions.select("other");
    sessions.hear(becameReady("new", 62));
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
    sessions.hear(cancelled("b", 69));
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
    const opening = sessions.open("b");
    // Nothing was answered or heard yet, and it shows.
    expect([sessions.shown?.doing, sessions.shown?.state]).toEqual(["Opening", "provisioning"]);
    await opening;
    expect(calls.openSession.mock.calls).toEqual([["b"]]);
    expect([sessions.shown?.doing, sessions.shown?.state]).toEqual(["Opening", "provisioning"]);
    // The snapshot that was asked for before the press comes late, and is stale.
    answer(status("b", { state: "stopped", seq: 0 }));
    await new Promise((done) => setTimeout(done));
    expect(sessions.shown?.state).toBe("provisioning");
  });

  it("opening a paused session sets nothing up and shows no progress", async () => {
    const calls = commands({
      ...listing(["b", { state: "paused" }]),
      sessionStatus: (id) => Promise.resolve(status(id ?? "", { state: "paused", seq: 0 })),
      openSession: (id) => Promise.resolve(became(id, { state: "ready" })),
    });
    const sessions = new Sessions(calls);
    await sessions.load();
    const opening = sessions.open("b");
    expect([sessions.shown, sessions.selected?.state]).toEqual([null, "paused"]);
    await opening;
    expect([sessions.shown, sessions.selected?.state]).toEqual([null, "ready"]);
  });

  it("opening one that others have opened meanwhile ends in its terminal", async () => {
    const calls = commands({
      ...listing(["b", { state: "stopped" }]),
      sessionStatus: (id) => Promise.resolve(status(id ?? "", { state: "stopped", seq: 0 })),
      openSession: (id) => Promise.resolve(became(id, { state: "ready" })),
    });
    const sessions = new Sessions(calls);
    await sessions.load();
    await sessions.open("b");
    expect([sessions.shown, sessions.focusId, sessions.selected?.state]).toEqual([null, "b", "ready"]);
  });
});

describe("deleting", () => {
  it("takes it from the list for good, whatever is heard later", async () => {
    const calls = commands(listing(["a", { state: "stopped" }], ["b", { state: "stopped" }]));
    const sessions = new Sessions(calls);
    await sessions.load();
    sessions.select("b");
    await sessions.remove("b");
    sessions.hear(moved("b", 49, 50));
    await sessions.load();
    expect(sessions.listed.map((known) => known.id)).toEqual(["a"]);
    expect(sessions.selectedId).toBe("a");
  });

  it("that fails keeps it, and rejects", async () => {
    const sessions = new Sessions(
      commands({ ...listing(["b", { state: "stopped" }]), deleteSession: () => Promise.reject(new CommandError(failure("ENGINE_REFUSED"))) }),
    );
    await sessions.load();
    await expect(sessions.remove("b")).rejects.toThrow(CommandError);
    expect(sessions.listed.map((known) => [known.id, known.asking])).toEqual([["b", false]]);
  });
});

describe("changes from outside", () => {
  it("while a list is read, make one more and never a second at a time", async () => {
    const answers: Array<() => void> = [];
    const calls = commands({
      listSessions: () => new Promise((resolve) => answers.push(() => resolve(list([session("a", { state: "stopped" })])))),
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

  it("keep the sessions that are known, and ask for the selected one if its state differs", async () => {
    let state: SessionStatus["state"] = "ready";
    let seq = 1;
    const calls = commands({
      listSessions: () => Promise.resolve(list(["a", "b"].map((id) => session(id, { state, seq })))),
      sessionStatus: (id) => Promise.resolve(status(id ?? "", { state: "stopped", seq })),
    });
    const sessions = new Sessions(calls);
    await sessions.load();
    const known = sessions.selected;
    await sessions.load();
    expect(calls.sessionStatus).not.toHaveBeenCalled();
    [state, seq] = ["stopped", 2];
    await sessions.load();
    expect(sessions.selected).toBe(known);
    expect(sessions.listed.map((listed) => listed.state)).toEqual(["stopped", "stopped"]);
    expect(calls.sessionStatus.mock.calls).toEqual([["a"]]);
  });

  it("are told, whoever makes them, and nothing is asked for", async () => {
    const calls = commands(listing(["a", { state: "ready" }], ["b", { state: "stopped" }]));
    const sessions = new Sessions(calls);
    await sessions.load();
    sessions.select("b");
    sessions.hear(changed("a", 7, { state: "stopped", name: "api" }));
    expect(sessions.listed.map((known) => [known.name, known.state])).toEqual([["api", "stopped"], ["b", "stopped"]]);
    sessions.hear(changed("a", 8, null));
    sessions.hear(changed("c", 9, { state: "ready" }));
    expect(sessions.listed.map((known) => known.id)).toEqual(["b", "c"]);
    // A list from before all that brings nothing back and takes nothing out.
    await sessions.load();
    expect(sessions.listed.map((known) => known.id)).toEqual(["b", "c"]);
    expect(calls.listSessions).toHaveBeenCalledTimes(2);
  });

  it("a snapshot that could not be had is asked for again", async () => {
    const sessionStatus = vi.fn(() => Promise.reject<SessionStatus>(new CommandError(failure("ENGINE_UNAVAILABLE"))));
    const sessions = new Sessions(commands({ ...listing(["a", { state: "failed" }]), sessionStatus }));
    await sessions.load();
    sessions.select("a");
    await vi.waitFor(() => expect(sessions.selected?.detailed).toBe(false));
    sessionStatus.mockImplementation(() => Promise.resolve(status("a", { state: "failed", seq: 0, error: failure() })));
    await new Promise((done) => setTimeout(done));
    sessions.select("a");
    await vi.waitFor(() => expect(sessions.selected?.error?.error).toBe("IMAGE_UNAVAILABLE"));
  });

  it("take a session out, and the one below it is selected, else the one above", async () => {
    const all = ["a", "b", "c"].map((id) => session(id, { state: "stopped" }));
    all.push(session("files", { state: "stopped", has_container: false }));
    const sessionStatus: SessionCommands["sessionStatus"] = (id) => Promise.resolve(status(id ?? "", { state: "stopped", seq: 0 }));
    const sessions = new Sessions(commands({ listSessions: () => Promise.resolve(list(all)), sessionStatus }));
    await sessions.load();
    sessions.select("b");
    let seq = 0;
    for (const [gone, next] of [["b", "c"], ["c", "a"], ["a", "files"], ["files", null]] as const) {
      sessions.hear(changed(gone, ++seq, null));
      expect(sessions.selectedId).toBe(next);
    }
  });

  it("a run that begins by itself does not come up", async () => {
    const sessionStatus: SessionCommands["sessionStatus"] = (id) => Promise.resolve(status(id ?? "", { state: "stopped", seq: 0 }));
    const sessions = new Sessions(commands({ ...listing(["a", { state: "stopped" }]), sessionStatus }));
    await sessions.load();
    sessions.hear(changed("a", 5, { state: "provisioning" }));
    sessions.hear(moved("a", 6, 20));
    expect([sessions.shown, sessions.selected?.state, sessions.selected?.doing]).toEqual([null, "provisioning", "Opening"]);
    sessions.hear(becameReady("a", 7));
    expect([sessions.selected?.state, sessions.focusId]).toEqual(["ready", null]);
  });

  it("do not undo what was just begun here", async () => {
    let answer = () => {};
    const calls = commands({
      ...listing(["a", { state: "stopped" }]),
      openSession: (id) => new Promise((resolve) => (answer = () => resolve(became(id, { state: "provisioning" })))),
    });
    const sessions = new Sessions(calls);
    await sessions.load();
    const opening = sessions.open("a");
    await sessions.load();
    expect(sessions.shown?.state).toBe("provisioning");
    answer();
    await opening;
    expect(sessions.shown?.state).toBe("provisioning");
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
        const answer = became(id, { state: "provisioning" });
        sessions.hear(changed("b", 60, { state: "provisioning" }));
        sessions.hear(moved("b", 64, 12));
        return Promise.resolve(answer);
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
  expect([sessions.shown?.name, sessions.shown?.view?.workspace_id, sessions.selectedId]).toEqual(["b copy", "shop", "copy"]);
});

it("a session has its new name as soon as it is answered", async () => {
  const sessions = new Sessions(commands(listing(["b", { state: "ready" }])));
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
        const answer = became("b", { state: "ready", export: started ? { bytes: 0, total_bytes: null } : null });
        if (started) sessions.hear(exported("b", 63, { outcome: "done" }));
        return Promise.resolve(answer);
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
