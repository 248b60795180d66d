// The file tree of one session: what is open, what is known of it, where the keyboard stands.
// Paths are opaque: they come from the Rust side and go back as they came.

import { SvelteMap } from "svelte/reactivity";

import type { FileEntry } from "../bindings/FileEntry";
import type { FileKind } from "../bindings/FileKind";
import { WORKSPACE, type Directory } from "../lib/ipc/commands";
import { reportOf } from "../lib/ipc/error";
import { visibleName } from "../lib/names";

/** Reads one directory. */
export type ReadDirectory = (path: string) => Promise<Directory>;

export class Branch {
  open = $state(false);
  loading = $state(false);
  /** Null until it was read. */
  entries = $state.raw<FileEntry[] | null>(null);
  truncated = $state(false);
  failure = $state<string | null>(null);
}

export type Row =
  | {
      kind: "entry";
      key: string;
      entry: FileEntry;
      depth: number;
      position: number;
      siblings: number;
      branch: Branch | null;
      parent: string | null;
    }
  | { kind: "note"; key: string; depth: number; text: string; bad: boolean };

type EntryRow = Extract<Row, { kind: "entry" }>;

const TYPE_AHEAD_MS = 700;

export class FileTree {
  /** The entry that the keyboard stands on. */
  cursor = $state<string | null>(null);
  /** When the workspace was read last; what is shown is as of then. */
  readAt = $state.raw<Date | null>(null);

  readonly root = new Branch();
  /** The directories that are known, by path. A map, because a path is a stranger's word: `__proto__` is one too. */
  readonly #branches = new SvelteMap<string, Branch>();
  readonly #read: ReadDirectory;
  readonly #freshening = { underWay: false, again: false };
  #typed = "";
  #typedAt = 0;

  constructor(read: ReadDirectory) {
    this.#read = read;
    this.root.open = true;
  }

  readonly rows = $derived.by(() => {
    const rows: Row[] = [];
    this.#collect(rows, WORKSPACE, this.root, 1, null);
    return rows;
  });
  readonly #entries = $derived.by(() => this.rows.filter((row) => row.kind === "entry"));
  load(): Promise<void> {
    return this.#load(WORKSPACE, this.root);
  }

  /** Reads every open directory again; what was open stays open. */
  async refresh(): Promise<void> {
    const open = this.#entries.filter((row) => row.branch?.open);
    await Promise.all([
      this.#load(WORKSPACE, this.root),
      ...open.map((row) => (row.branch ? this.#load(row.entry.path, row.branch) : undefined)),
    ]);
  }

  /** Refreshes, one at a time: whatever is asked meanwhile is one more. */
  async freshen(): Promise<void> {
    this.#freshening.again = true;
    if (this.#freshening.underWay) return;
    this.#freshening.underWay = true;
    while (this.#freshening.again) {
      this.#freshening.again = false;
      await this.refresh();
    }
    this.#freshening.underWay = false;
  }

  async toggle(path: string): Promise<void> {
    const branch = this.#branches.get(path);
    if (!branch) return;
    branch.open = !branch.open;
    if (!branch.open || branch.loading) return;
    // What was left open in it is in sight again, and may be another than it was.
    const within = this.#within(path).filter((row) => row.branch?.open);
    await Promise.all([
      this.#load(path, branch),
      ...within.map((row) => (row.branch ? this.#load(row.entry.path, row.branch) : undefined)),
    ]);
  }

  /** The entries in sight that are in a directory, at any depth. */
  #within(path: string): EntryRow[] {
    const entries = this.#entries;
    const at = entries.findIndex((row) => row.entry.path === path);
    const depth = entries[at]?.depth ?? 0;
    const below = entries.slice(at + 1);
    const end = below.findIndex((row) => row.depth <= depth);
    return at < 0 ? [] : below.slice(0, end < 0 ? below.length : end);
  }

  /** Moves by a key; returns the file to open, or null. `handled` says whether the key meant something. */
  key(key: string, now: number): { handled: boolean; open: FileEntry | null } {
    const nothing = { handled: true, open: null };
    const entries = this.#entries;
    const index = entries.findIndex((row) => row.entry.path === this.cursor);
    const current = entries[index];
    switch (key) {
      case "ArrowDown":
        this.#stand(entries[Math.min(index + 1, entries.length - 1)]);
        return nothing;
      case "ArrowUp":
        this.#stand(entries[Math.max(index - 1, 0)]);
        return nothing;
      case "Home":
        this.#stand(entries[0]);
        return nothing;
      case "End":
        this.#stand(entries.at(-1));
        return nothing;
      case "ArrowRight":
        if (current?.branch) {
          if (!current.branch.open) void this.toggle(current.entry.path);
          else if (entries[index + 1]?.parent === current.entry.path) this.#stand(entries[index + 1]);
        }
        return nothing;
      case "ArrowLeft":
        if (current?.branch?.open) void this.toggle(current.entry.path);
        else if (current?.parent) this.cursor = current.parent;
        return nothing;
      case "Enter":
        if (!current) return nothing;
        return { handled: true, open: this.activate(current.entry) };
      case " ":
        if (this.#typed !== "" && now - this.#typedAt < TYPE_AHEAD_MS) break;
        return current ? { handled: true, open: this.activate(current.entry) } : nothing;
      default:
        break;
    }
    if ([...key].length !== 1) return { handled: false, open: null };
    this.#typeAhead(key, now, entries, index);
    return nothing;
  }

  /** Opens or closes a directory; returns the entry when it is something to read. */
  activate(entry: FileEntry): FileEntry | null {
    this.cursor = entry.path;
    if (leadsTo(entry) === "dir") {
      void this.toggle(entry.path);
      return null;
    }
    return entry;
  }

  #stand(row: EntryRow | undefined): void {
    if (row) this.cursor = row.entry.path;
  }

  #typeAhead(key: string, now: number, entries: EntryRow[], index: number): void {
    const fresh = now - this.#typedAt >= TYPE_AHEAD_MS;
    this.#typed = fresh ? key.toLowerCase() : this.#typed + key.toLowerCase();
    this.#typedAt = now;
    // One letter again and again goes through all that begin with it.
    const again = [...this.#typed].every((letter) => letter === this.#typed[0]);
    const sought = again ? (this.#typed[0] ?? "") : this.#typed;
    const from = again ? index + 1 : Math.max(index, 0);
    const inOrder = [...entries.slice(from), ...entries.slice(0, from)];
    this.#stand(inOrder.find((row) => visibleName(row.entry.name).toLowerCase().startsWith(sought)));
  }

  async #load(path: string, branch: Branch): Promise<void> {
    branch.loading = true;
    try {
      const { entries, truncated } = await this.#read(path);
      for (const entry of entries) {
        if (leadsTo(entry) === "dir" && !this.#branches.has(entry.path)) {
          this.#branches.set(entry.path, new Branch());
        }
      }
      branch.entries = entries;
      branch.truncated = truncated;
      branch.failure = null;
      if (branch === this.root) this.readAt = new Date();
    } catch (thrown) {
      branch.failure = reportOf(thrown).message;
    } finally {
      branch.loading = false;
    }
    const gone = this.cursor !== null && !this.#entries.some((row) => row.entry.path === this.cursor);
    if (gone || this.cursor === null) this.cursor = this.#entries[0]?.entry.path ?? null;
  }

  #collect(rows: Row[], path: string, branch: Branch, depth: number, parent: string | null): void {
    const note = (what: string, text: string, bad = false) =>
      rows.push({ kind: "note", key: `${what} ${path}`, depth, text, bad });
    const entries = branch.entries ?? [];
    for (const [index, entry] of entries.entries()) {
      const child = leadsTo(entry) === "dir" ? (this.#branches.get(entry.path) ?? null) : null;
      rows.push({
        kind: "entry",
        key: entry.path,
        entry,
        depth,
        position: index + 1,
        siblings: entries.length,
        branch: child,
        parent,
      });
      if (child?.open) this.#collect(rows, entry.path, child, depth + 1, entry.path);
    }
    if (branch.failure !== null) note("failure", branch.failure, true);
    else if (branch.entries === null) note("loading", "Reading…");
    else if (entries.length === 0) note("empty", depth === 1 ? "No files yet" : "Empty");
    if (branch.truncated) note("truncated", `Only the first ${entries.length} are shown`);
  }
}

/** What an entry is in the end: symbolic links are followed. */
export function leadsTo(entry: FileEntry): FileKind {
  return entry.kind === "symlink" ? (entry.target_kind ?? "other") : entry.kind;
}
