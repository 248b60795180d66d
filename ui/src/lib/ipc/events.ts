// The events that the Rust side emits: about sessions as one tagged stream, and about the rest.

import { listen } from "@tauri-apps/api/event";

import type { CancelledEvent } from "../../bindings/CancelledEvent";
import type { ChangedEvent } from "../../bindings/ChangedEvent";
import type { EngineView } from "../../bindings/EngineView";
import type { ExportEvent } from "../../bindings/ExportEvent";
import type { FailedEvent } from "../../bindings/FailedEvent";
import type { FilesChanged } from "../../bindings/FilesChanged";
import type { PortsEvent } from "../../bindings/PortsEvent";
import type { ProgressEvent } from "../../bindings/ProgressEvent";
import type { ReadyEvent } from "../../bindings/ReadyEvent";
import type { TransferEvent } from "../../bindings/TransferEvent";

export type SessionNews =
  | ({ kind: "progress" } & ProgressEvent)
  | ({ kind: "ready" } & ReadyEvent)
  | ({ kind: "failed" } & FailedEvent)
  | ({ kind: "cancelled" } & CancelledEvent)
  | ({ kind: "export" } & ExportEvent)
  | ({ kind: "changed" } & ChangedEvent)
  | ({ kind: "transfer" } & TransferEvent);

/** What is carried over the window from outside, in pixels of the page. */
export type CarriedNews =
  | { kind: "over"; x: number; y: number }
  | { kind: "dropped"; x: number; y: number; token: string }
  | { kind: "gone" };

/** How many sessions are being set up, of how many the files are being exported, and how many transfers go on. */
export interface UnderWay {
  running: number;
  exporting: number;
  transferring: number;
}

export interface Hearing {
  onsession: (news: SessionNews) => void;
  onengine: (engines: EngineView[]) => void;
  onports: (ports: PortsEvent) => void;
  /** The app was to end while so much is under way. */
  onclosing: (underWay: UnderWay) => void;
  oncarried: (news: CarriedNews) => void;
}

/** Resolves once every event is listened to, with a function that ends it. */
export async function listenToAll({ onsession, onengine, onports, onclosing, oncarried }: Hearing): Promise<() => void> {
  const endings = await Promise.all([
    listen<ProgressEvent>("session:progress", ({ payload }) => onsession({ kind: "progress", ...payload })),
    listen<ReadyEvent>("session:ready", ({ payload }) => onsession({ kind: "ready", ...payload })),
    listen<FailedEvent>("session:failed", ({ payload }) => onsession({ kind: "failed", ...payload })),
    listen<CancelledEvent>("session:cancelled", ({ payload }) => onsession({ kind: "cancelled", ...payload })),
    listen<ExportEvent>("session:export", ({ payload }) => onsession({ kind: "export", ...payload })),
    listen<ChangedEvent>("session:changed", ({ payload }) => onsession({ kind: "changed", ...payload })),
    listen<TransferEvent>("session:transfer", ({ payload }) => onsession({ kind: "transfer", ...payload })),
    listen<CarriedNews>("files:carried", ({ payload }) => oncarried(payload)),
    listen<{ engines: EngineView[] }>("engine:changed", ({ payload }) => onengine(payload.engines)),
    listen<PortsEvent>("ports:changed", ({ payload }) => onports(payload)),
    listen<UnderWay>("app:closing", ({ payload }) => onclosing(payload)),
  ]);
  return () => {
    for (const end of endings) end();
  };
}

/** Hears what changes of the files of a session that are watched; resolves with a function that ends it. */
export async function listenToFiles(sessionId: string, hear: (changed: FilesChanged) => void): Promise<() => void> {
  const end = await listen<FilesChanged>("files:changed", ({ payload }) => {
    if (payload.session_id === sessionId) hear(payload);
  });
  // On a page that is going away there may be nobody left to tell.
  return () => void Promise.resolve(end()).catch(() => {});
}
