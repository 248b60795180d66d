import { describe, expect, it } from "vitest";

import { AS_USUAL, SLOW_PULL } from "../../dev/timings";
import { becameReady, cancelled, changed, exported, failed, failure, listed, moved, progress, session, status } from "../../test/sessions";
import { Session } from "./session.svelte";

describe("order of events", () => {
  it("drops what is not newer than the last one heard", () => {
    const known = new Session("s");
    expect(known.hear(moved("s", 3, 15), 0)).toBe(true);
    expect(known.hear(moved("s", 3, 16), 0)).toBe(false);
    expect(known.hear(moved("s", 2, 12), 0)).toBe(false);
    expect(known.progress.percent).toBe(15);
    expect(known.hear(moved("s", 7, 20), 0)).toBe(true);
    expect(known.progress.percent).toBe(20);
  });

  it("a late progress does not undo the end", () => {
    const known = new Session("s");
    known.hear(becameReady("s", 9), 0);
    expect(known.hear(moved("s", 8, 80), 0)).toBe(false);
    expect([known.state, known.progress.percent]).toEqual(["ready", 100]);
  });

  it("a snapshot that an event overtook changes nothing", () => {
    const known = new Session("s");
    known.hear(moved("s", 6, 21), 0);
    expect(known.seed(status("s", { seq: 5 }), 0)).toBe(false);
    expect(known.progress.percent).toBe(21);
  });

  it("an event that the snapshot includes changes nothing", () => {
    const known = new Session("s");
    expect(known.seed(status("s", { seq: 5 }), 0)).toBe(true);
    expect(known.hear(moved("s", 5, 12), 0)).toBe(false);
    expect(known.progress.percent).toBe(17);
  });

  it("the list and the answers do not overrule what is newer, and overrule what is older", () => {
    const known = new Session("s");
    known.hear(becameReady("s", 4), 0);
    expect(known.see(session("s", { state: "provisioning", seq: 3 }), 0)).toBe(false);
    expect(known.state).toBe("ready");
    expect(known.see(session("s", { state: "stopped", seq: 5 }), 0)).toBe(true);
    expect(known.state).toBe("stopped");
    expect(known.hear(changed("s", 5, { state: "ready" }), 0)).toBe(false);
    expect(known.hear(changed("s", 6, { state: "ready" }), 0)).toBe(true);
    expect(known.state).toBe("ready");
  });

  it("a session of which only a run was heard takes its name from an older list, and nothing else", () => {
    const known = new Session("s");
    known.hear(moved("s", 6, 21), 0);
    known.see(session("s", { name: "api", state: "stopped", seq: 3 }), 0);
    expect([known.name, known.state, known.progress.percent]).toEqual(["api", "provisioning", 21]);
  });
});

describe("what is asked for here", () => {
  it("shows at once that a run begins, and shows it once when it does", () => {
    const known = listed("s", { state: "failed", seq: 1 });
    known.seed(status("s", { state: "failed", seq: 1, error: failure() }), 0);
    known.begin("Creating");
    expect([known.state, known.progress.percent, known.error]).toEqual(["provisioning", 0, null]);
    // Something else about it changes meanwhile.
    known.hear(changed("s", 2, { state: "failed", leftovers: [] }), 0);
    expect([known.state, known.error]).toEqual(["provisioning", null]);
    known.hear(changed("s", 3, { state: "provisioning" }), 0);
    known.hear(moved("s", 4, 12), 0);
    expect([known.beginning, known.state, known.progress.percent]).toEqual([false, "provisioning", 12]);
  });

  it("that is refused leaves everything as it was", () => {
    const known = listed("s", { state: "failed", seq: 1 });
    known.seed(status("s", { state: "failed", seq: 1, error: failure() }), 0);
    known.begin("Creating");
    known.beginning = false;
    expect([known.state, known.error?.error]).toEqual(["failed", "IMAGE_UNAVAILABLE"]);
  });
});

describe("the clock", () => {
  it("ticks on between events and stands still at the end", () => {
    const known = new Session("s");
    known.hear(moved("s", 1, 12, "PullingImage", { elapsed_ms: 2_000, finished: [{ phase: "Starting", elapsed_ms: 300 }] }), 1_000);
    expect(known.elapsed(4_500)).toBe(5_500);
    expect(known.phaseElapsed(4_500)).toBe(5_200);
    known.hear(failed("s", 2), 6_000);
    expect(known.elapsed(60_000)).toBe(7_000);
  });

  it("counts from the last progress heard", () => {
    const known = new Session("s");
    known.hear(moved("s", 1, 12), 1_000);
    expect([known.sinceHeard(900), known.sinceHeard(1_000), known.sinceHeard(1_300)]).toEqual([0, 0, 300]);
    known.hear(moved("s", 2, 13), 2_000);
    expect(known.sinceHeard(2_250)).toBe(250);
  });
});

describe("the end of a run", () => {
  it("keeps how far it came, the error, and what was undone", () => {
    const known = new Session("s");
    known.hear(moved("s", 1, 17), 0);
    known.hear(failed("s", 2), 0);
    expect([known.state, known.progress.percent, known.error?.error]).toEqual(["failed", 17, "IMAGE_UNAVAILABLE"]);

    known.begin("Creating");
    expect([known.state, known.progress.percent, known.error, known.undone]).toEqual(["provisioning", 0, null, []]);
    known.cancelling = true;
    known.beginning = false;
    known.hear(cancelled("s", 3), 0);
    expect([known.state, known.cancelling, known.undone.length]).toEqual(["cancelled", false, 1]);
  });

  it("keeps messages once each, in order", () => {
    const known = new Session("s");
    for (const [seq, message] of [[1, "a"], [2, "a"], [3, "b"]] as const) {
      known.hear({ kind: "progress", session_id: "s", seq, phase: "Starting", progress: progress(1), message }, 0);
    }
    expect(known.messages).toEqual(["a", "b"]);
  });

  it("keeps where the time went until the next run begins", () => {
    const known = new Session("s");
    known.hear(moved("s", 1, 17), 0);
    expect([known.timing, known.mayTellTiming]).toEqual([null, false]);
    for (const [news, outcome] of [
      [failed("s", 2), "failed"],
      [cancelled("s", 3), "cancelled"],
      [becameReady("s", 4), "ready"],
    ] as const) {
      known.hear(news, 0);
      expect([known.timing?.outcome, known.mayTellTiming]).toEqual([outcome, true]);
    }
    known.hear(moved("s", 5, 3), 0);
    expect([known.timing, known.mayTellTiming]).toEqual([null, false]);
    known.hear(failed("s", 6), 0);
    known.begin("Creating");
    expect(known.timing).toBeNull();
  });

  it("is told by the snapshot too", () => {
    const known = new Session("s");
    known.see(session("s", { state: "ready" }), 0);
    expect([known.timing, known.mayTellTiming]).toEqual([null, true]);
    known.seed(status("s", { state: "ready", timing: SLOW_PULL }), 0);
    expect([known.timing, known.mayTellTiming]).toEqual([SLOW_PULL, true]);
    known.seed(status("s", { state: "stopped", seq: 6, timing: AS_USUAL }), 0);
    expect([known.timing, known.mayTellTiming]).toEqual([AS_USUAL, true]);
    known.seed(status("s", { state: "stopped", seq: 7, timing: null }), 0);
    expect(known.mayTellTiming).toBe(false);
  });
});

describe("an export", () => {
  it("goes on beside the state, and its end is the newer word", () => {
    const known = new Session("s");
    known.hear(becameReady("s", 1), 0);
    known.hear(exported("s", 2), 0);
    expect([known.state, known.export]).toEqual(["ready", { bytes: 120, total_bytes: 431 }]);
    known.hear(changed("s", 3, { state: "stopped", export: { bytes: 200, total_bytes: 431 } }), 0);
    expect([known.state, known.export?.bytes]).toEqual(["stopped", 200]);
    known.hear(exported("s", 4, { outcome: "done" }), 0);
    known.see(session("s", { state: "stopped", seq: 3, export: { bytes: 200, total_bytes: 431 } }), 0);
    expect(known.export).toBeNull();
  });

  it("that goes on when the window loads is in the list", () => {
    expect(listed("s", { state: "ready", export: { bytes: 1, total_bytes: null } }).export).toEqual({ bytes: 1, total_bytes: null });
  });
});
