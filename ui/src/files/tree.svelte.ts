// The file tree of one session: what is open, what is known of it, where the keyboard stands, what is selected.
// Paths are opaque: they come from the Rust side and go back as they came. What is done to files is in `changes`.

import { SvelteMap, SvelteSet } from "svelte/reactivity";

import type { ErrorReport } from "../bindings/ErrorReport";
import type { FileEntry } from "../bindings/FileEntry";
import type { FileKind } from "../bindings/FileKind";
import { WORKSPACE, type Directory, type NewKind } from "../lib/ipc/commands";
import { problemsOf, reportOf } from "../lib/ipc/error";
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

/** A name that the user is typing: of a new entry, or of one that gets another. */
export class Draft {
  /** Whether it is being asked for. */
  busy = $state(false);
  failure = $state.raw<ErrorReport | null>(null);

  /** `entry` is the one that gets another name; null for a new one in the folder. */
  constructor(
    readonly folder: string,
    readonly kind: NewKind,
    readonly entry: FileEntry | null = null,
  ) {}

  /** What is wrong, in words that fit below the field. */
  get problem(): string | null {
    if (this.failure === null) return null;
    const { error, message, hint } = this.failure;
    const { name } = problemsOf(this.failure);
    if (name !== undefined) return `The name ${name}.`;
    // Where it is stands above the field.
    return `${error === "CONFLICT" ? "This name is taken" : message}. ${hint}`;
  }
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
  | { kind: "draft"; key: string; depth: number; draft: Draft }
  | { kind: "note"; key: string; depth: number; text: string; bad: boolean };

export type EntryRow = Extract<Row, { kind: "entry" }>;

const TYPE_AHEAD_MS = 700;
/** How many directories are read at the same time. */
const AT_ONCE = 16;

export class FileTree {
  /** The entry that the keyboard stands on. */
  cursor = $state<string | null>(null);
  /** The entries that are selected, by path. */
  readonly selected = new SvelteSet<string>();
  /** The name that is being typed; one at a time. */
  draft = $state.raw<Draft | null>(null);
  /** Whether names that begin with a dot are shown. */
  showHidden = $state(true);
  /** Counts how often something is to be brought into sight: the cursor, or the draft. */
  sought = $state(0);
  /** When the workspace was read last; what is shown is as of then. */
  readAt = $state.raw<Date | null>(null);

  readonly root = new Branch();
  /** The directories that are known, by path. A map, because a path is a stranger's word: `__proto__` is one too. */
  readonly #branches = new SvelteMap<string, Branch>();
  readonly #read: ReadDirectory;
  readonly #freshening = { underWay: false, again: false };
  /** Where a range of selected entries begins. */
  #anchor: string | null = null;
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
  readonly #byPath = $derived(new Map(this.#entries.map((row) => [row.entry.path, row])));

  /** What an operation is about: what is selected, or else where the keyboard stands. What is in a selected folder goes with it. */
  readonly targets = $derived.by(() => {
    const byCursor = this.cursor !== null && !this.selected.has(this.cursor);
    const meant = (row: EntryRow) => (byCursor ? row.entry.path === this.cursor : this.selected.has(row.entry.path));
    const rows: EntryRow[] = [];
    let within = Infinity;
    for (const row of this.#entries) {
      if (row.depth > within) continue;
      within = Infinity;
      if (!meant(row)) continue;
      rows.push(row);
      within = row.depth;
    }
    return rows;
  });

  /** The folder that something new belongs to. */
  get folder(): string {
    const row = this.rowOf(this.cursor);
    if (!row) return WORKSPACE;
    return row.branch ? row.entry.path : folderOf(row);
  }

  /** The folders whose entries are in sight. */
  readonly openFolders = $derived([WORKSPACE, ...this.#entries.filter((row) => row.branch?.open).map((row) => row.entry.path)]);

  load(): Promise<void> {
    return this.#load(WORKSPACE, this.root);
  }

  /** Reads every open directory again; what was open stays open. */
  async refresh(): Promise<void> {
    await this.renew(this.openFolders);
  }

  /** Reads those of these paths again that are open directories. */
  async renew(paths: string[]): Promise<void> {
    const open = paths.flatMap((path) => {
      const branch = this.#branch(path);
      return branch?.open ? [{ path, branch }] : [];
    });
    // A session answers only so much at a time.
    for (let at = 0; at < open.length; at += AT_ONCE) {
      await Promise.all(open.slice(at, at + AT_ONCE).map(({ path, branch }) => this.#load(path, branch)));
    }
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

  /** Reads a directory again, and opens it if it is not. */
  async reread(path: string): Promise<void> {
    const branch = this.#branch(path);
    if (!branch) return;
    branch.open = true;
    await this.#load(path, branch);
  }

  #branch(path: string): Branch | undefined {
    return path === WORKSPACE ? this.root : this.#branches.get(path);
  }

  isOpen(path: string): boolean {
    return this.#branches.get(path)?.open ?? false;
  }

  rowOf(path: string | null): EntryRow | null {
    return (path === null ? undefined : this.#byPath.get(path)) ?? null;
  }

  /** Whether an entry is this one, or in it at any depth. */
  isWithin(path: string, of: string): boolean {
    return this.#above(path).includes(of);
  }

  /** An entry and the folders that it is in, from the inside out. */
  #above(path: string): string[] {
    const above = [path];
    for (let at = this.rowOf(path)?.parent ?? null; at !== null; at = this.rowOf(at)?.parent ?? null) above.push(at);
    return above;
  }

  /** Selects these entries and stands on the first of them that is in sight. */
  standOn(paths: string[]): void {
    const seen = this.#entries.filter((row) => paths.includes(row.entry.path)).map((row) => row.entry.path);
    this.select(seen);
    this.cursor = seen[0] ?? this.cursor;
    this.#anchor = this.cursor;
    this.sought += 1;
  }

  /** Returns the entry to stand on when these are gone: the next one, or the one before. */
  neighbour(gone: EntryRow[]): string | null {
    const paths = new Set(gone.map((row) => row.entry.path));
    const isGone = (row: EntryRow) => this.#above(row.entry.path).some((path) => paths.has(path));
    const backwards = [...this.#entries].reverse();
    const last = backwards.findIndex(isGone);
    const before = backwards.slice(last + 1).find((row) => !isGone(row));
    const next = last > 0 ? backwards[last - 1] : undefined;
    // The next one in the same folder comes first, then whatever is above.
    const sibling = next?.parent === gone.at(-1)?.parent ? next : undefined;
    return (sibling ?? before ?? next)?.entry.path ?? null;
  }

  select(paths: Iterable<string>): void {
    this.selected.clear();
    for (const path of paths) this.selected.add(path);
  }

  selectAll(): void {
    this.select(this.#entries.map((row) => row.entry.path));
  }

  /** Takes an entry into the selection, or out of it. */
  pick(path: string): void {
    if (this.selected.size === 0 && this.cursor !== null && this.cursor !== path && this.#anchor !== null) {
      this.selected.add(this.cursor);
    }
    if (!this.selected.delete(path)) this.selected.add(path);
    this.cursor = path;
    this.#anchor = path;
  }

  /** Selects all that is between the entry where the selection began and this one. */
  extendTo(path: string): void {
    const paths = this.#entries.map((row) => row.entry.path);
    const from = paths.indexOf(this.#anchor ?? this.cursor ?? path);
    const to = paths.indexOf(path);
    this.#anchor ??= this.cursor;
    this.cursor = path;
    this.select(paths.slice(Math.max(Math.min(from, to), 0), Math.max(from, to) + 1));
  }

  /** Makes what is asked about by a pointer the one that operations are about, unless it is one of those already. */
  pointAt(path: string | null): void {
    if (path === null) {
      this.selected.clear();
      this.cursor = null;
      return;
    }
    if (!this.selected.has(path)) this.select([path]);
    this.cursor = path;
    this.#anchor = path;
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

  /**
   * Moves by a key, and with `extend` takes what it passes into the selection; returns the file to open, or null.
   * `handled` says whether the key meant something.
   */
  key(key: string, now: number, extend = false): { handled: boolean; open: FileEntry | null } {
    const nothing = { handled: true, open: null };
    const entries = this.#entries;
    const index = entries.findIndex((row) => row.entry.path === this.cursor);
    const current = entries[index];
    const goTo = (row: EntryRow | undefined) => {
      if (row && extend) this.extendTo(row.entry.path);
      else this.#stand(row);
      return nothing;
    };
    switch (key) {
      case "ArrowDown":
        return goTo(entries[Math.min(index + 1, entries.length - 1)]);
      case "ArrowUp":
        return goTo(entries[Math.max(index - 1, 0)]);
      case "Home":
        return goTo(entries[0]);
      case "End":
        return goTo(entries.at(-1));
      case "ArrowRight":
        if (current?.branch) {
          if (!current.branch.open) void this.toggle(current.entry.path);
          else if (entries[index + 1]?.parent === current.entry.path) this.#stand(entries[index + 1]);
        }
        return nothing;
      case "ArrowLeft":
        if (current?.branch?.open) void this.toggle(current.entry.path);
        else if (current?.parent) this.#stand(this.rowOf(current.parent) ?? undefined);
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
    this.#anchor = entry.path;
    this.select([entry.path]);
    if (leadsTo(entry) === "dir") {
      void this.toggle(entry.path);
      return null;
    }
    return entry;
  }

  #stand(row: EntryRow | undefined): void {
    if (!row) return;
    this.cursor = row.entry.path;
    this.#anchor = row.entry.path;
    this.select([row.entry.path]);
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
    // The one that gets another name is there, under a field.
    const isGone = (known: string) => !this.#byPath.has(known) && this.draft?.entry?.path !== known;
    for (const known of this.selected) if (isGone(known)) this.selected.delete(known);
    const gone = this.cursor !== null && isGone(this.cursor);
    if (gone || this.cursor === null) this.cursor = this.#entries[0]?.entry.path ?? null;
  }

  #collect(rows: Row[], path: string, branch: Branch, depth: number, parent: string | null): void {
    const note = (what: string, text: string, bad = false) =>
      rows.push({ kind: "note", key: `${what} ${path}`, depth, text, bad });
    const known = branch.entries ?? [];
    const entries = this.showHidden ? known : known.filter(({ name }) => !name.startsWith("."));
    const { draft } = this;
    const type = (at: number, typed: Draft) => {
      rows.push({ kind: "draft", key: "draft", depth: at, draft: typed });
      if (typed.problem !== null) rows.push({ kind: "note", key: "problem", depth: at, text: typed.problem, bad: true });
    };
    if (draft?.entry === null && draft.folder === path) type(depth, draft);
    for (const [index, entry] of entries.entries()) {
      const child = leadsTo(entry) === "dir" ? (this.#branches.get(entry.path) ?? null) : null;
      if (draft?.entry?.path === entry.path) type(depth, draft);
      else {
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
      }
      if (child?.open) this.#collect(rows, entry.path, child, depth + 1, entry.path);
    }
    if (branch.failure !== null) note("failure", branch.failure, true);
    else if (branch.entries === null) note("loading", "Reading…");
    else if (known.length > entries.length && entries.length === 0) note("empty", "Only hidden files");
    else if (entries.length === 0 && draft?.folder !== path) note("empty", depth === 1 ? "No files yet" : "Empty");
    if (branch.truncated) note("truncated", `Only the first ${known.length} are shown`);
  }
}

/** The folder that an entry is in. */
export function folderOf(row: EntryRow): string {
  return row.parent ?? WORKSPACE;
}

/** How much of a name is selected when it gets another: all but the extension. */
export function stemLength(name: string, isFolder: boolean): number {
  const dot = name.lastIndexOf(".");
  return isFolder || dot <= 0 ? name.length : dot;
}

/** What an entry is in the end: symbolic links are followed. */
export function leadsTo(entry: FileEntry): FileKind {
  return entry.kind === "symlink" ? (entry.target_kind ?? "other") : entry.kind;
}
