// What can be done to a session in its state, as the menus, the header and the locked panes offer it.

import Copy from "@lucide/svelte/icons/copy";
import Gauge from "@lucide/svelte/icons/gauge";
import Info from "@lucide/svelte/icons/info";
import Play from "@lucide/svelte/icons/play";
import RotateCw from "@lucide/svelte/icons/rotate-cw";
import Square from "@lucide/svelte/icons/square";
import Timer from "@lucide/svelte/icons/timer";
import Trash2 from "@lucide/svelte/icons/trash-2";

import type { SessionState } from "../bindings/SessionState";
import type { MenuAction } from "../lib/components/menu";
import type { Run } from "./run.svelte";

export interface SessionActions {
  open: (id: string) => void;
  retry: (id: string) => void;
  stop: (id: string) => void;
  remove: (id: string) => void;
  progress: (id: string) => void;
  cancel: (id: string) => void;
  copyName: (id: string) => void;
  details: (id: string) => void;
  timing: (id: string) => void;
}

/** The way on from a state; null where the session is usable or on its way. */
export const WAY_ON: Record<SessionState, { label: string; by: "open" | "retry" } | null> = {
  provisioning: null,
  ready: null,
  stopped: { label: "Open", by: "open" },
  interrupted: { label: "Resume", by: "open" },
  failed: { label: "Retry", by: "retry" },
  cancelled: { label: "Retry", by: "retry" },
};

export function containerName(id: string): string {
  return `cove-${id}`;
}

export function menuOf(run: Run, actions: SessionActions): MenuAction[] {
  const { id, state } = run;
  const entries: MenuAction[] = [];
  const wayOn = WAY_ON[state];
  if (wayOn) {
    const icon = wayOn.by === "open" ? Play : RotateCw;
    entries.push({ name: wayOn.by, label: wayOn.label, icon, run: () => actions[wayOn.by](id) });
  }
  if (state === "provisioning") {
    entries.push({ name: "progress", label: "Show progress", icon: Gauge, run: () => actions.progress(id) });
    entries.push({ name: "cancel", label: "Cancel", icon: Square, run: () => actions.cancel(id) });
  }
  if (state === "ready") entries.push({ name: "stop", label: "Stop", icon: Square, run: () => actions.stop(id) });
  entries.push(
    { name: "copy-name", label: "Copy container name", icon: Copy, run: () => actions.copyName(id) },
    { name: "details", label: "Details", icon: Info, run: () => actions.details(id) },
  );
  if (run.mayTellTiming) entries.push({ name: "timing", label: "Timing", icon: Timer, run: () => actions.timing(id) });
  if (state !== "provisioning") {
    const label = state === "interrupted" ? "Discard…" : "Delete…";
    entries.push({ name: "delete", label, icon: Trash2, danger: true, run: () => actions.remove(id) });
  }
  return entries;
}
