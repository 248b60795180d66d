// The events that the Rust side emits about sessions, as one tagged stream.

import { listen } from "@tauri-apps/api/event";

import type { CancelledEvent } from "../../bindings/CancelledEvent";
import type { FailedEvent } from "../../bindings/FailedEvent";
import type { ProgressEvent } from "../../bindings/ProgressEvent";
import type { ReadyEvent } from "../../bindings/ReadyEvent";

export type SessionNews =
  | ({ kind: "progress" } & ProgressEvent)
  | ({ kind: "ready" } & ReadyEvent)
  | ({ kind: "failed" } & FailedEvent)
  | ({ kind: "cancelled" } & CancelledEvent);

/** Resolves once every event is listened to, with a function that ends it. */
export async function listenToSessions(hear: (news: SessionNews) => void): Promise<() => void> {
  const endings = await Promise.all([
    listen<ProgressEvent>("session:progress", ({ payload }) => hear({ kind: "progress", ...payload })),
    listen<ReadyEvent>("session:ready", ({ payload }) => hear({ kind: "ready", ...payload })),
    listen<FailedEvent>("session:failed", ({ payload }) => hear({ kind: "failed", ...payload })),
    listen<CancelledEvent>("session:cancelled", ({ payload }) => hear({ kind: "cancelled", ...payload })),
  ]);
  return () => {
    for (const end of endings) end();
  };
}
