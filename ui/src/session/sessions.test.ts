import { beforeEach, describe, expect, it, vi } from "vitest";

import { becameReady, cancelled, failed, failure, moved, session, status } from "../../test/sessions";
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
    deleteSession: acted,
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
    deleteSession: vi.fn(all.deleteSession),
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
