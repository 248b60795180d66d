// The sidebar's groups: sessions by the workspace id they were created with, then what is only files.

import type { Session } from "./session.svelte";

export interface Group<T> {
  workspace: string;
  members: T[];
}

/** Groups in the order of their names; members stay in the order they come in. */
export function groupByWorkspace<T>(items: readonly T[], workspaceOf: (item: T) => string): Group<T>[] {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const workspace = workspaceOf(item);
    const members = groups.get(workspace);
    if (members) members.push(item);
    else groups.set(workspace, [item]);
  }
  return [...groups]
    .map(([workspace, members]) => ({ workspace, members }))
    .sort((a, b) => a.workspace.localeCompare(b.workspace, undefined, { numeric: true }));
}

/** The groups of what has a container, and apart from them the files that were kept. */
export function sidebarOf(sessions: readonly Session[]): { groups: Group<Session>[]; kept: Session[] } {
  const groups = groupByWorkspace(
    sessions.filter((session) => !session.kept),
    (session) => session.view?.workspace_id ?? "",
  );
  return { groups, kept: sessions.filter((session) => session.kept) };
}

/** The sessions from top to bottom. */
export function inSidebarOrder(sessions: readonly Session[]): Session[] {
  const { groups, kept } = sidebarOf(sessions);
  return [...groups.flatMap((group) => group.members), ...kept];
}
