// Sessions, snapshots and news as the Rust side would send them.

import { AS_USUAL, cutShort } from "../dev/timings";
import type { Phase } from "../src/bindings/Phase";
import type { Progress } from "../src/bindings/Progress";
import type { Session as View } from "../src/bindings/Session";
import type { SessionStatus } from "../src/bindings/SessionStatus";
import type { ErrorReport } from "../src/bindings/ErrorReport";
import type { ExportEvent } from "../src/bindings/ExportEvent";
import type { SessionNews } from "../src/lib/ipc/events";
import { NOTHING_YET, Session } from "../src/session/session.svelte";

export function session(id: string, more: Partial<View> = {}): View {
  return {
    session_id: id,
    workspace_id: "default",
    name: id,
    project_name: id,
    description: null,
    template: null,
    image: "docker.io/library/python:3.13",
    image_name: "python:3.13",
    network: "own",
    state: "provisioning",
    engine: null,
    created: "2025-06-01T09:00:00Z",
    allow_privilege_gain: false,
    idle_stop_ms: null,
    stopped_unused_minutes: null,
    out_of_memory: null,
    has_container: true,
    reconnecting: false,
    ending: false,
    leftovers: [],
    export: null,
    seq: 0,
    ...more,
  };
}

/** A session that the window has in its list. */
export function listed(id: string, more: Partial<View> = {}): Session {
  const known = new Session(id);
  known.see(session(id, more), 0);
  return known;
}

export function progress(percent: number, more: Partial<Progress> = {}): Progress {
  return { ...NOTHING_YET, percent, ...more };
}

export function status(id: string, more: Partial<SessionStatus> = {}): SessionStatus {
  const state = more.state ?? "provisioning";
  const seq = more.seq ?? 5;
  return {
    ok: true,
    session_id: id,
    ready: state === "ready",
    phase: "PullingImage",
    state,
    progress: progress(17),
    error: null,
    message: "pulling the image",
    seq,
    session: session(id, { state, seq }),
    terminals: [],
    undone: [],
    timing: null,
    ...more,
  };
}

export function moved(id: string, seq: number, percent: number, phase: Phase = "PullingImage", more: Partial<Progress> = {}): SessionNews {
  return { kind: "progress", session_id: id, seq, phase, progress: progress(percent, more), message: `at ${percent}` };
}

export function becameReady(id: string, seq: number): SessionNews {
  return { kind: "ready", session_id: id, seq, session: session(id, { state: "ready", seq }), progress: progress(100), timing: AS_USUAL };
}

export function changed(id: string, seq: number, more: Partial<View> | null): SessionNews {
  return { kind: "changed", session_id: id, seq, session: more === null ? null : session(id, { ...more, seq }) };
}

export function failed(id: string, seq: number): SessionNews {
  return { kind: "failed", session_id: id, seq, session: session(id, { state: "failed", seq }), phase: "PullingImage", error: failure(), undone: [], timing: cutShort("failed") };
}

export function cancelled(id: string, seq: number, why: string | null = null): SessionNews {
  return {
    kind: "cancelled",
    session_id: id,
    seq,
    session: session(id, { state: "cancelled", seq }),
    phase: "PullingImage",
    undone: [{ what: "removed volume `cove-1`", failure: why }],
    timing: cutShort("cancelled"),
  };
}

export function exported(id: string, seq: number, more: Partial<ExportEvent> = {}): { kind: "export" } & ExportEvent {
  return {
    kind: "export",
    session_id: id,
    seq,
    bytes: 120,
    total_bytes: 431,
    outcome: null,
    file_name: "api.tar",
    error: null,
    ...more,
  };
}

export function failure(error: ErrorReport["error"] = "IMAGE_UNAVAILABLE"): ErrorReport {
  return { ok: false, error, message: "failed to pull image `x`", hint: "Check the spelling.", details: {} };
}
