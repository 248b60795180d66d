// What is done to the files of one session from the tree: new, renamed, moved, copied, deleted and restored. One thing
// at a time; after each the folders are read again and the tree stands on what has come to be.

import type { ErrorReport } from "../bindings/ErrorReport";
import { WORKSPACE, type NewKind } from "../lib/ipc/commands";
import { reportOf } from "../lib/ipc/error";
import { Draft, folderOf, leadsTo, type EntryRow, type FileTree } from "./tree.svelte";

/** What is asked of the session. Each answers with a path, or with what stands for a delete. */
export interface FileActions {
  create: (folder: string, name: string, kind: NewKind) => Promise<string>;
  /** With null the entry keeps its name. */
  move: (from: string, folder: string, name: string | null) => Promise<string>;
  /** Where its name is taken, the copy gets one like it. */
  copy: (from: string, folder: string) => Promise<string>;
  remove: (paths: string[]) => Promise<string>;
  restore: (trash: string) => Promise<void>;
  /** Asks what is uploaded into a folder, and begins. */
  upload: (folder: string, wanted: "files" | "folder") => Promise<unknown>;
  uploadDropped: (folder: string, dropped: string) => Promise<unknown>;
  /** Asks where entries go, and begins; a file goes under a name that is asked for, too. */
  download: (paths: string[], fileName: string | null) => Promise<unknown>;
}

/** Hears that entries were deleted, by their names, and how to take that back. Returns how to say so no longer. */
export type OnDeleted = (names: string[], undo: () => void) => () => void;

/** A delete that can be taken back. */
interface Deleted {
  trash: string;
  rows: EntryRow[];
  hush: () => void;
}

/** What waits to be pasted. */
interface Clipboard {
  rows: EntryRow[];
  cut: boolean;
}

export class Changes {
  /** Why the last operation failed; a name that is refused is said at its field instead. */
  failure = $state.raw<ErrorReport | null>(null);
  /** What is under way, in words; null when nothing is. */
  busy = $state<string | null>(null);
  clipboard = $state.raw<Clipboard | null>(null);

  readonly #tree: FileTree;
  readonly #actions: FileActions;
  readonly #ondeleted: OnDeleted;
  /** The deletes that can be taken back, the last at the end. */
  #deleted: Deleted[] = [];

  constructor(tree: FileTree, actions: FileActions, ondeleted: OnDeleted) {
    this.#tree = tree;
    this.#actions = actions;
    this.#ondeleted = ondeleted;
  }

  /** Whether an entry is going to be moved by the next paste. */
  isCut(path: string): boolean {
    return this.clipboard?.cut === true && this.clipboard.rows.some((row) => row.entry.path === path);
  }

  /** Opens the field for the name of a new entry. */
  async begin(kind: NewKind): Promise<void> {
    const { folder } = this.#tree;
    if (folder !== WORKSPACE && !this.#tree.isOpen(folder)) await this.#tree.reread(folder);
    this.#type(new Draft(folder, kind));
  }

  /** Opens the field for another name of the entry where the keyboard stands. */
  beginRename(): void {
    const row = this.#tree.rowOf(this.#tree.cursor);
    if (row) this.#type(new Draft(folderOf(row), leadsTo(row.entry) === "dir" ? "dir" : "file", row.entry));
  }

  #type(draft: Draft): void {
    this.failure = null;
    this.#tree.draft = draft;
    this.#tree.sought += 1;
  }

  cancel(draft: Draft): void {
    if (this.#tree.draft === draft && !draft.busy) this.#tree.draft = null;
  }

  /** Asks for what was typed. If that is refused, the field stays and says why. */
  async commit(draft: Draft, name: string): Promise<void> {
    if (draft.busy) return;
    draft.busy = true;
    const { folder, entry, kind } = draft;
    try {
      const wasOpen = entry !== null && this.#tree.isOpen(entry.path);
      const path =
        entry === null
          ? await this.#actions.create(folder, name, kind)
          : await this.#actions.move(entry.path, folder, name);
      this.#tree.draft = null;
      await this.#show([folder], [path]);
      if (wasOpen) await this.#tree.reread(path);
    } catch (thrown) {
      draft.failure = reportOf(thrown);
    } finally {
      draft.busy = false;
    }
  }

  cut(): void {
    this.#keep(true);
  }

  copy(): void {
    this.#keep(false);
  }

  #keep(cut: boolean): void {
    const rows = this.#tree.targets;
    this.clipboard = rows.length === 0 ? null : { rows, cut };
  }

  /** Forgets what waits to be pasted. */
  forget(): void {
    this.clipboard = null;
  }

  async paste(): Promise<void> {
    const { clipboard } = this;
    if (clipboard === null) return;
    if (clipboard.cut) this.clipboard = null;
    await this.#carry(clipboard.rows, this.#tree.folder, !clipboard.cut);
  }

  /** Makes a copy beside each. */
  async duplicate(): Promise<void> {
    await this.#each("Copying…", this.#tree.targets, (row) => this.#actions.copy(row.entry.path, folderOf(row)), []);
  }

  /** Moves or copies entries into a folder. */
  async drop(rows: EntryRow[], folder: string, copies: boolean): Promise<void> {
    await this.#carry(rows, folder, copies);
  }

  async #carry(rows: EntryRow[], folder: string, copies: boolean): Promise<void> {
    if (copies) {
      await this.#each("Copying…", rows, (row) => this.#actions.copy(row.entry.path, folder), [folder]);
    } else {
      const moved = rows.filter((row) => folderOf(row) !== folder);
      await this.#each("Moving…", moved, (row) => this.#actions.move(row.entry.path, folder, null), [folder]);
    }
  }

  /** Does something to one entry after another, up to the first that fails. */
  async #each(
    words: string,
    rows: EntryRow[],
    act: (row: EntryRow) => Promise<string>,
    folders: string[],
  ): Promise<void> {
    if (rows.length === 0) return;
    const made: string[] = [];
    await this.#alone(words, async () => {
      try {
        for (const row of rows) made.push(await act(row));
      } finally {
        await this.#show([...rows.map(folderOf), ...folders], made);
      }
    });
  }

  /** Moves what is selected into the trash. */
  async remove(): Promise<void> {
    const rows = this.#tree.targets;
    if (rows.length === 0) return;
    await this.#alone("Deleting…", async () => {
      const trash = await this.#actions.remove(rows.map((row) => row.entry.path));
      const neighbour = this.#tree.neighbour(rows);
      const deleted: Deleted = { trash, rows, hush: () => {} };
      this.#deleted.push(deleted);
      const names = rows.map((row) => row.entry.name);
      deleted.hush = this.#ondeleted(names, () => void this.#restore(deleted));
      await this.#show(rows.map(folderOf), neighbour === null ? [] : [neighbour]);
    });
  }

  /** Takes the last delete back. */
  async undo(): Promise<void> {
    const deleted = this.#deleted.at(-1);
    if (deleted) await this.#restore(deleted);
  }

  async #restore(deleted: Deleted): Promise<void> {
    if (!this.#deleted.includes(deleted)) return;
    await this.#alone("Putting back…", async () => {
      await this.#actions.restore(deleted.trash);
      this.#deleted = this.#deleted.filter((other) => other !== deleted);
      deleted.hush();
      await this.#show(
        deleted.rows.map(folderOf),
        deleted.rows.map((row) => row.entry.path),
      );
    });
  }

  async #alone(words: string, action: () => Promise<void>): Promise<void> {
    if (this.busy !== null) return;
    this.busy = words;
    this.failure = null;
    try {
      await action();
    } catch (thrown) {
      this.failure = reportOf(thrown);
    } finally {
      this.busy = null;
    }
  }

  /** Asks for files or a folder of this machine and copies them into the folder where the keyboard stands. */
  upload(wanted: "files" | "folder"): Promise<void> {
    const { folder } = this.#tree;
    return this.#begun(() => this.#actions.upload(folder, wanted));
  }

  uploadDropped(folder: string, dropped: string): Promise<void> {
    return this.#begun(() => this.#actions.uploadDropped(folder, dropped));
  }

  /** Asks where what is selected goes on this machine, and copies it there. */
  download(): Promise<void> {
    const entries = this.#tree.targets.map((row) => row.entry);
    if (entries.length === 0) return Promise.resolve();
    const [first] = entries;
    const fileName = entries.length === 1 && first?.kind === "file" ? first.name : null;
    return this.#begun(() => this.#actions.download(entries.map((entry) => entry.path), fileName));
  }

  /** What goes on for longer says itself how it ends; here only that it could not begin. */
  async #begun(begin: () => Promise<unknown>): Promise<void> {
    this.failure = null;
    try {
      await begin();
    } catch (thrown) {
      this.failure = reportOf(thrown);
    }
  }

  /** Reads folders again and stands on these entries. */
  async #show(folders: string[], paths: string[]): Promise<void> {
    await Promise.all([...new Set(folders)].map((folder) => this.#tree.reread(folder)));
    if (paths.length > 0) this.#tree.standOn(paths);
  }
}
