// The sidebar's groups: sessions by the workspace id they were created with.

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
