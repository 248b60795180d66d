import { describe, expect, it } from "vitest";

import { AS_USUAL, SLOW_PULL } from "../../dev/timings";
import { becameReady, cancelled, exported, failed, moved, progress, session, status } from "../../test/sessions";
import { Run } from "./run.svelte";

describe("order of events", () => {
  it("drops what is not newer than the last one heard", () => {
    const run = new Run("s");
    expect(run.hear(moved("s", 3, 15), 0)).toBe(true);
    expect(run.hear(moved("s", 3, 16), 0)).toBe(false);
    expect(run.hear(moved("s", 2, 12), 0)).toBe(false);
    expect(run.progress.percent).toBe(15);
    expect(run.hear(moved("s", 7, 20), 0)).toBe(true);
    expect(run.progress.percent).toBe(20);
  });

  it("a late progress does not undo the end", () => {
    const run = new Run("s");
    run.hear(becameReady("s", 9), 0);
    expect(run.hear(moved("s", 8, 80), 0)).toBe(false);
    expect([run.state, run.progress.percent]).toEqual(["ready", 100]);
  });

  it("a snapshot that an event overtook changes nothing", () => {
    const run = new Run("s");
    run.hear(moved("s", 6, 21), 0);
    expect(run.seed(status("s", { seq: 5 }), 0)).toBe(false);
    expect(run.progress.percent).toBe(21);
  });

  it("an event that the snapshot includes changes nothing", () => {
    const run = new Run("s");
    expect(run.seed(status("s", { seq: 5 }), 0)).toBe(true);
    expect(run.hear(moved("s", 5, 12), 0)).toBe(false);
    expect(run.progress.percent).toBe(17);
  });

  it("the list does not overrule what was heard since it was asked for", () => {
    const run = new Run("s");
    const asked = run.known();
    run.hear(becameReady("s", 1), 0);
    run.list(session("s", { state: "provisioning" }), asked);
    expect(run.state).toBe("ready");
    run.list(session("s", { state: "stopped" }), run.known());
    expect(run.state).toBe("stopped");
  });
});

describe("the clock", () => {
  it("ticks on between events and stands still at the end", () => {
    const run = new Run("s");
    run.hear(moved("s", 1, 12, "PullingImage", { elapsed_ms: 2_000, finished: [{ phase: "Starting", elapsed_ms: 300 }] }), 1_000);
    expect(run.elapsed(4_500)).toBe(5_500);
    expect(run.phaseElapsed(4_500)).toBe(5_200);
    run.hear(failed("s", 2), 6_000);
    expect(run.elapsed(60_000)).toBe(7_000);
  });

  it("counts from the last progress heard", () => {
    const run = new Run("s");
    run.hear(moved("s", 1, 12), 1_000);
    expect([run.sinceHeard(900), run.sinceHeard(1_000), run.sinceHeard(1_300)]).toEqual([0, 0, 300]);
    run.hear(moved("s", 2, 13), 2_000);
    expect(run.sinceHeard(2_250)).toBe(250);
  });
});

describe("the end of a run", () => {
  it("keeps how far it came, the error, and what was undone", () => {
    const run = new Run("s");
    run.hear(moved("s", 1, 17), 0);
    run.hear(failed("s", 2), 0);
    expect([run.state, run.progress.percent, run.error?.error]).toEqual(["failed", 17, "IMAGE_UNAVAILABLE"]);

    run.restart(0);
    expect([run.state, run.progress.percent, run.error, run.undone]).toEqual(["provisioning", 0, null, []]);
    run.cancelling = true;
    run.hear(cancelled("s", 3), 0);
    expect([run.state, run.cancelling, run.undone.length]).toEqual(["cancelled", false, 1]);
  });

  it("keeps messages once each, in order", () => {
    const run = new Run("s");
    for (const [seq, message] of [[1, "a"], [2, "a"], [3, "b"]] as const) {
      run.hear({ kind: "progress", session_id: "s", seq, phase: "Starting", progress: progress(1), message }, 0);
    }
    expect(run.messages).toEqual(["a", "b"]);
  });

  it("keeps where the time went until the next run begins", () => {
    const run = new Run("s");
    run.hear(moved("s", 1, 17), 0);
    expect([run.timing, run.mayTellTiming]).toEqual([null, false]);
    for (const [news, outcome] of [
      [failed("s", 2), "failed"],
      [cancelled("s", 3), "cancelled"],
      [becameReady("s", 4), "ready"],
    ] as const) {
      run.hear(news, 0);
      expect([run.timing?.outcome, run.mayTellTiming]).toEqual([outcome, true]);
    }
    run.hear(moved("s", 5, 3), 0);
    expect([run.timing, run.mayTellTiming]).toEqual([null, false]);
    run.hear(failed("s", 6), 0);
    run.restart(0);
    expect(run.timing).toBeNull();
  });

  it("is told by the snapshot too", () => {
    const run = new Run("s");
    run.list(session("s", { state: "ready" }), run.known());
    expect([run.timing, run.mayTellTiming]).toEqual([null, true]);
    run.seed(status("s", { state: "ready", timing: SLOW_PULL }), 0);
    expect([run.timing, run.mayTellTiming]).toEqual([SLOW_PULL, true]);
    run.seed(status("s", { state: "stopped", timing: AS_USUAL }), 0);
    expect([run.timing, run.mayTellTiming]).toEqual([AS_USUAL, true]);
    run.seed(status("s", { state: "stopped", timing: null }), 0);
    expect(run.mayTellTiming).toBe(false);
  });
});

describe("an export", () => {
  it("goes on beside the state, and hides no change of it", () => {
    const run = new Run("s");
    run.hear(becameReady("s", 1), 0);
    const asked = run.known();
    run.hear(exported("s", 2), 0);
    expect([run.state, run.export]).toEqual(["ready", { bytes: 120, total_bytes: 431 }]);
    expect(run.list(session("s", { state: "stopped" }), asked)).toBe(true);
    expect([run.state, run.export?.bytes]).toEqual(["stopped", 120]);
    // The snapshot was made before the last word on the export, and after the last one on the state.
    expect(run.seed(status("s", { state: "ready", seq: 1 }), 0)).toBe(true);
    expect([run.state, run.export?.bytes, run.hear(exported("s", 2), 0)]).toEqual(["ready", 120, false]);
    run.hear(exported("s", 3, { outcome: "done" }), 0);
    expect(run.export).toBeNull();
  });

  it("that goes on when the window loads is in the list", () => {
    const run = new Run("s");
    run.list(session("s", { state: "ready", export: { bytes: 1, total_bytes: null } }), run.known());
    expect(run.export).toEqual({ bytes: 1, total_bytes: null });
  });
});
