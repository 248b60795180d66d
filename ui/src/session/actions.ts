// What can be done to a session in its state, as the menus, the header and the locked panes offer it.

import Copy from "@lucide/svelte/icons/copy";
import CopyPlus from "@lucide/svelte/icons/copy-plus";
import Download from "@lucide/svelte/icons/download";
import Gauge from "@lucide/svelte/icons/gauge";
import Hammer from "@lucide/svelte/icons/hammer";
import Info from "@lucide/svelte/icons/info";
import Pencil from "@lucide/svelte/icons/pencil";
import Play from "@lucide/svelte/icons/play";
import RotateCcw from "@lucide/svelte/icons/rotate-ccw";
import RotateCw from "@lucide/svelte/icons/rotate-cw";
import ScrollText from "@lucide/svelte/icons/scroll-text";
import Square from "@lucide/svelte/icons/square";
import Timer from "@lucide/svelte/icons/timer";
import Trash2 from "@lucide/svelte/icons/trash-2";
import Undo2 from "@lucide/svelte/icons/undo-2";
import Unlink from "@lucide/svelte/icons/unlink";

import type { SessionState } from "../bindings/SessionState";
import type { MenuAction } from "../lib/components/menu";
import type { Session } from "./session.svelte";

export interface SessionActions {
  /** Whether the engine that new sessions are made on answers. */
  readonly engineAnswers: boolean;
  open: (id: string) => void;
  retry: (id: string) => void;
  stop: (id: string) => void;
  stopNow: (id: string) => void;
  restart: (id: string) => void;
  rename: (id: string) => void;
  rebuild: (id: string) => void;
  duplicate: (id: string) => void;
  export: (id: string) => void;
  cancelExport: (id: string) => void;
  discard: (id: string) => void;
  forget: (id: string) => void;
  remove: (id: string) => void;
  progress: (id: string) => void;
  cancel: (id: string) => void;
  copyName: (id: string) => void;
  details: (id: string) => void;
  log: (id: string) => void;
  timing: (id: string) => void;
}

/** The way on from a state; null where the session is usable or on its way. */
export const WAY_ON: Record<SessionState, { label: string; by: "open" | "retry" } | null> = {
  provisioning: null,
  ready: null,
  paused: { label: "Continue", by: "open" },
  stopped: { label: "Open", by: "open" },
  interrupted: { label: "Resume", by: "open" },
  failed: { label: "Retry", by: "retry" },
  cancelled: { label: "Retry", by: "retry" },
  // It comes back by itself.
  away: null,
};

export function containerName(id: string): string {
  return `cove-${id}`;
}

export function mayRename(session: Session): boolean {
  return !session.running && !session.kept;
}

/** Whether its engine answers; what needs it cannot be done otherwise. One that is on none yet will be on the chosen one. */
export function itsEngineAnswers(session: Session, actions: SessionActions): boolean {
  if (session.state === "away") return false;
  return (session.view?.engine ?? null) !== null || actions.engineAnswers;
}

export function mayRemove(session: Session, actions: SessionActions): boolean {
  return !session.running && itsEngineAnswers(session, actions);
}

/** The entries in groups: the state, the session as a whole, what is known of it, its end. */
export function menuOf(session: Session, actions: SessionActions): MenuAction[] {
  const { id, state } = session;
  const disabled = !itsEngineAnswers(session, actions);
  const groups: MenuAction[][] = [stateEntries(session, actions), [], [], []];
  const [, whole = [], known = [], end = []] = groups;
  if (mayRename(session)) {
    whole.push({ name: "rename", label: "Rename…", icon: Pencil, key: "F2", run: () => actions.rename(id) });
  }
  if (mayRebuild(session)) {
    whole.push({ name: "rebuild", label: "Rebuild…", icon: Hammer, disabled, run: () => actions.rebuild(id) });
  }
  if (hasFiles(session)) {
    const exporting = session.export !== null;
    whole.push(
      { name: "duplicate", label: "Duplicate…", icon: CopyPlus, disabled, run: () => actions.duplicate(id) },
      { name: "export", label: "Export files…", icon: Download, disabled: disabled || exporting, run: () => actions.export(id) },
    );
  }
  if (!session.kept) {
    known.push({ name: "copy-name", label: "Copy container name", icon: Copy, run: () => actions.copyName(id) });
  }
  known.push({ name: "details", label: "Details", icon: Info, run: () => actions.details(id) });
  if (hasLog(session)) known.push({ name: "log", label: "Log", icon: ScrollText, disabled, run: () => actions.log(id) });
  if (session.mayTellTiming) known.push({ name: "timing", label: "Timing", icon: Timer, run: () => actions.timing(id) });
  if (state === "away") end.push({ name: "forget", label: "Forget", icon: Unlink, run: () => actions.forget(id) });
  if (state !== "provisioning") {
    const remove = () => actions.remove(id);
    end.push({ name: "remove", label: "Delete…", icon: Trash2, danger: true, disabled, key: "Delete", run: remove });
  }
  return groups
    .filter((group) => group.length > 0)
    .flatMap((group, at) => group.map((entry, index) => ({ ...entry, apart: at > 0 && index === 0 })));
}

/** What leads from its state to another. */
function stateEntries(session: Session, actions: SessionActions): MenuAction[] {
  const { id, state } = session;
  const disabled = !itsEngineAnswers(session, actions);
  const entries: MenuAction[] = [];
  const wayOn = WAY_ON[state];
  if (wayOn) {
    const icon = wayOn.by === "open" ? Play : RotateCw;
    entries.push({ name: wayOn.by, label: wayOn.label, icon, disabled, run: () => actions[wayOn.by](id) });
  }
  if (state === "interrupted") {
    entries.push({ name: "discard", label: "Discard", icon: Undo2, disabled, run: () => actions.discard(id) });
  }
  if (state === "provisioning") {
    entries.push({ name: "progress", label: "Show progress", icon: Gauge, run: () => actions.progress(id) });
    entries.push({ name: "cancel", label: "Cancel", icon: Square, run: () => actions.cancel(id) });
  }
  if (state === "ready" || state === "paused") {
    entries.push({ name: "stop", label: "Stop", icon: Square, disabled, run: () => actions.stop(id) });
  }
  if (state === "ready") {
    entries.push({ name: "restart", label: "Restart", icon: RotateCcw, disabled, run: () => actions.restart(id) });
  }
  return entries;
}

/** Whether there is a container, running or not, that may have printed something. */
function hasLog(session: Session): boolean {
  const mayHave = hasFiles(session) || session.state === "failed";
  return mayHave && session.view?.has_container === true;
}

/** Whether there are files of which it is known that they are whole. */
function hasFiles(session: Session): boolean {
  return session.state === "ready" || session.state === "paused" || (session.state === "stopped" && !session.kept);
}

/** A container that cannot be made ready may be better made anew. */
function mayRebuild(session: Session): boolean {
  return hasFiles(session) || (session.state === "failed" && session.view?.has_container === true);
}
