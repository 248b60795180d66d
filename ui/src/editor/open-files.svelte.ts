// The files that are open in the editor of one session: what is on the disk, what of it was edited, and how the two come
// together again. Text that is not saved is kept as a draft, so that it outlives the window and the app.

import type { Charset } from "../bindings/Charset";
import type { Draft } from "../bindings/Draft";
import type { ErrorReport } from "../bindings/ErrorReport";
import type { FileContent } from "../bindings/FileContent";
import type { FileEntry } from "../bindings/FileEntry";
import type { Picture } from "../bindings/Picture";
import type { WrittenCharset } from "../bindings/WrittenCharset";
import type { WriteCondition, WrittenText } from "../lib/ipc/commands";
import { reportOf } from "../lib/ipc/error";
import { DraftKeeper } from "./draft-keeper.svelte";
import { EditedText, type Place } from "./edited-text.svelte";
import { configsOf, wishesOf } from "./editorconfig";
import { drawable } from "./tame";

/** What the editor asks of the session. */
export interface Disk {
  read: (path: string, charset: string | null) => Promise<FileContent>;
  /** Returns the revision of what was written. */
  write: (path: string, text: WrittenText, condition: WriteCondition) => Promise<string>;
  drafts: () => Promise<Draft[]>;
  keepDraft: (draft: Draft) => Promise<void>;
  dropDraft: (path: string) => Promise<void>;
}

export type Content =
  | { kind: "loading" }
  /** `charset` is null where the file is plain UTF-8. */
  | { kind: "text"; text: string; size: number; truncated: boolean; charset: Charset | null }
  | { kind: "image"; source: string; picture: Picture; size: number }
  /** One that is not drawn: it is too large, or only its beginning was read. */
  | { kind: "picture"; picture: Picture; size: number }
  /** `bytes` are the beginning of it where it is truncated. */
  | { kind: "binary"; size: number; bytes: Uint8Array; truncated: boolean }
  | { kind: "failed"; failure: ErrorReport };

type TextContent = Extract<Content, { kind: "text" }>;

/** What happened to a file on the disk while it was open here. */
export type Trouble = { kind: "changed"; disk: FileContent } | { kind: "deleted" };

/** What is to become of unsaved text when its tab is closed. */
export type ClosingChoice = "save" | "discard" | "cancel";

export class OpenFile {
  /** Where it is; it is followed when it is moved in the tree. */
  path = $state("");
  name = $state("");
  content = $state.raw<Content>({ kind: "loading" });
  /** The text as it is edited; null for what is no text. */
  edited = $state.raw<EditedText | null>(null);
  /** The encoding that the user chose for it; null for what it looks like. */
  charset = $state<string | null>(null);
  trouble = $state.raw<Trouble | null>(null);
  /** Why the last save failed. */
  failure = $state.raw<ErrorReport | null>(null);
  /** Whether the text is shown beside that on the disk. */
  comparing = $state(false);
  saving = $state.raw<Promise<void> | null>(null);
  /** What was on the disk when the text was read or saved last; null for nothing. */
  revision: string | null = null;
  /** Whether the project wants the last line to end like the others. */
  finalNewline = false;
  /** What is to be shown of it once its text is there. */
  wanted: { place: Place | null; takesFocus: boolean } | null = null;
  /** Counts what asks or changes the disk; only the answer to the last question holds. */
  turn = 0;
  readonly draft: DraftKeeper;

  constructor(path: string, name: string, draft: DraftKeeper) {
    this.path = path;
    this.name = name;
    this.draft = draft;
  }

  get unsaved(): boolean {
    return this.edited?.unsaved ?? false;
  }
}

export class OpenFiles {
  files = $state.raw<OpenFile[]>([]);
  activePath = $state<string | null>(null);
  /** The file whose tab is to be closed with unsaved text. */
  closing = $state.raw<OpenFile | null>(null);

  readonly #disk: Disk;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  readonly active = $derived.by(() => this.files.find((file) => file.path === this.activePath) ?? null);
  readonly unsaved = $derived.by(() => this.files.filter((file) => file.unsaved).length);

  /** Opens a file, or shows the one that is open and looks at it again. */
  async open(entry: Pick<FileEntry, "path" | "name">): Promise<void> {
    const file = this.#tab(entry);
    this.activePath = file.path;
    await this.look(file);
  }

  /**
   * Opens a file and shows what is at a place of it, if it is text; without one it is shown as it was left. Whoever goes on
   * to another file meanwhile stays there.
   */
  async openAt(entry: Pick<FileEntry, "path" | "name">, place: Place | null, takesFocus: boolean): Promise<void> {
    const file = this.#tab(entry);
    this.activePath = file.path;
    file.wanted = { place, takesFocus };
    // What is there already need not wait for the disk, which may have another text by now.
    const before = file.edited;
    this.#showWanted(file);
    file.wanted = before === null ? { place, takesFocus } : null;
    await this.look(file);
  }

  /** Does what was wanted of a file that is shown, as soon as there is a text; whoever has read it. */
  #showWanted(file: OpenFile): void {
    const { wanted, edited } = file;
    if (wanted === null || edited === null || this.active !== file) return;
    file.wanted = null;
    if (wanted.place !== null) edited.goTo(wanted.place);
    if (wanted.takesFocus) edited.focus();
  }

  /** Shows a file as a text in this encoding; with null as what it looks like. */
  async choose(file: OpenFile, charset: string | null): Promise<void> {
    if (file.unsaved) return;
    file.charset = charset;
    file.revision = null;
    await this.look(file);
  }

  /** Looks at what is on the disk: takes it where nothing was edited, and says so where something was. */
  async look(file: OpenFile): Promise<void> {
    // What a save finds out is newer.
    if (file.saving) return;
    const turn = ++file.turn;
    let disk: FileContent;
    try {
      disk = await this.#disk.read(file.path, file.charset);
    } catch (thrown) {
      if (file.turn === turn) this.#miss(file, reportOf(thrown));
      return;
    }
    if (file.turn !== turn) return;
    this.#meet(file, disk);
    this.#showWanted(file);
  }

  /** Writes the text if it is unsaved or its file has gone. */
  async save(file: OpenFile): Promise<void> {
    await file.saving;
    const { edited } = file;
    if (!edited || edited.readOnly || (!edited.unsaved && file.trouble === null)) return;
    const { doc } = edited;
    if (file.finalNewline && doc.line(doc.lines).length > 0) edited.append("\n");
    await this.#write(file, edited, file.trouble?.kind === "deleted" ? null : file.revision);
  }

  /** Writes the text over what was last seen on the disk. */
  async overwrite(file: OpenFile): Promise<void> {
    const { edited, trouble } = file;
    if (edited && trouble?.kind === "changed") await this.#write(file, edited, trouble.disk.revision);
  }

  /** Takes what is on the disk in place of what was edited. */
  takeTheirs(file: OpenFile): void {
    const { trouble } = file;
    if (trouble?.kind !== "changed") return;
    this.#accept(file, trouble.disk, true);
  }

  /**
   * Goes with an entry that has moved: with a file, or with those that are open in a folder. Its name is null where that
   * stays. What was edited stays unsaved.
   */
  async follow(from: string, to: string, name: string | null): Promise<void> {
    const inside = `${from}/`;
    const moved = this.files.filter(({ path }) => path === from || path.startsWith(inside));
    await Promise.all(
      moved.map(async (file) => {
        const { path } = file;
        // A draft that is just being kept is kept under the old path.
        await file.draft.settled();
        if (this.activePath === path) this.activePath = to + path.slice(from.length);
        file.path = to + path.slice(from.length);
        if (path === from && name !== null) file.name = name;
        // What was read meanwhile was not there any more.
        file.turn += 1;
        if (file.trouble?.kind === "deleted") file.trouble = null;
        if (file.unsaved) {
          file.draft.changed();
          await file.draft.settled();
          await this.#disk.dropDraft(path).catch(() => {});
        }
      }),
    );
  }

  /** Closes a tab, or asks what is to become of its text first. */
  close(path: string): void {
    const file = this.files.find((open) => open.path === path);
    if (!file) return;
    if (file.unsaved) {
      this.activePath = path;
      this.closing = file;
    } else this.#remove(file);
  }

  async answerClosing(choice: ClosingChoice): Promise<void> {
    const file = this.closing;
    this.closing = null;
    if (!file || choice === "cancel") return;
    if (choice === "save") {
      await this.save(file);
      if (file.unsaved) return;
    }
    this.#remove(file);
  }

  /** Returns what is open, as text that `restore` takes. */
  remembered(): string | null {
    if (this.files.length === 0) return null;
    const files = this.files.map(({ path, name }) => ({ path, name }));
    return JSON.stringify({ files, active: this.activePath });
  }

  /** Opens again what was open before a reload, and what was not saved at any time. What cannot be understood is forgotten. */
  async restore(text: string | null): Promise<void> {
    const { files, active } = parse(text);
    const drafts = await this.#drafts();
    const shown = this.activePath;
    const opening = files.filter(({ path }) => !drafts.some((draft) => draft.path === path));
    for (const entry of files) this.#tab(entry);
    for (const draft of drafts) this.#tab(draft);
    const wanted = shown ?? active ?? drafts[0]?.path ?? null;
    this.activePath = this.files.some((file) => file.path === wanted) ? wanted : (this.files[0]?.path ?? null);
    await Promise.all([
      ...opening.map((entry) => this.look(this.#tab(entry))),
      ...drafts.map((draft) => this.#resume(this.#tab(draft), draft)),
    ]);
  }

  /** Keeps at once what was not kept yet: nobody may be there in a moment. */
  flush(): void {
    for (const file of this.files) file.draft.flush();
  }

  #tab({ path, name }: Pick<FileEntry, "path" | "name">): OpenFile {
    const known = this.files.find((open) => open.path === path);
    if (known) return known;
    const keeper: DraftKeeper = new DraftKeeper(
      () => this.#draftOf(file),
      (draft) => this.#disk.keepDraft(draft),
      () => this.#disk.dropDraft(file.path),
    );
    const file: OpenFile = new OpenFile(path, name, keeper);
    this.files = [...this.files, file];
    return file;
  }

  #remove(file: OpenFile): void {
    const index = this.files.indexOf(file);
    this.files = this.files.filter((open) => open !== file);
    if (this.activePath === file.path) {
      this.activePath = (this.files[index] ?? this.files[index - 1])?.path ?? null;
    }
    file.turn += 1;
    file.edited = null;
    file.draft.changed();
    file.draft.flush();
  }

  /** The file could not be read. */
  #miss(file: OpenFile, failure: ErrorReport): void {
    // Text that is open stays: it may be all that is left.
    if (file.edited === null) file.content = { kind: "failed", failure };
    else if (failure.error === "FILE_NOT_FOUND" && !file.edited.readOnly) this.#differ(file, { kind: "deleted" });
  }

  /** The file was read. */
  #meet(file: OpenFile, disk: FileContent): void {
    const { edited } = file;
    if (edited !== null && file.revision === disk.revision) return this.#agree(file, disk.revision);
    if (edited === null || !edited.unsaved) return this.#accept(file, disk, false);
    if (fits(file, disk)) {
      // The answer to a save may have been lost, or somebody else has made the same change.
      const now = edited.snapshot();
      if (now.content === disk.content) {
        edited.markSaved(now);
        return this.#agree(file, disk.revision);
      }
      // It was written anew with the text that was edited here.
      if (edited.wasSavedAs(disk.content)) return this.#agree(file, disk.revision);
    }
    this.#differ(file, { kind: "changed", disk });
  }

  #agree(file: OpenFile, revision: string): void {
    file.revision = revision;
    file.trouble = null;
    file.comparing = false;
    file.draft.changed();
  }

  #differ(file: OpenFile, trouble: Trouble): void {
    const before = file.trouble;
    const known = trouble.kind === "changed" && before?.kind === "changed" && before.disk.revision === trouble.disk.revision;
    // What is shown beside the text is not made anew for nothing.
    if (!known) file.trouble = trouble;
    if (trouble.kind === "deleted") file.comparing = false;
  }

  /** Takes what is on the disk, whatever was here. */
  #accept(file: OpenFile, disk: FileContent, undoable: boolean): void {
    const content = contentOf(disk);
    const { edited } = file;
    if (content.kind === "text" && edited && !edited.readOnly && fits(file, disk)) edited.reload(content.text, undoable);
    else file.edited = content.kind === "text" ? this.#edit(file, content.text, reasonToOnlyRead(content) !== null) : null;
    file.content = content;
    file.failure = null;
    this.#agree(file, disk.revision);
  }

  #edit(file: OpenFile, content: string, readOnly: boolean): EditedText {
    const edited = new EditedText({ name: file.name, content, readOnly, onchange: () => file.draft.changed() });
    if (!readOnly) void this.#obey(file, edited);
    return edited;
  }

  /** Does as the project's `.editorconfig` says. */
  async #obey(file: OpenFile, edited: EditedText): Promise<void> {
    const configs = await configsOf(file.path, async (path) => {
      try {
        const { content, encoding } = await this.#disk.read(path, null);
        return encoding === "utf-8" ? content : null;
      } catch {
        // None is as usual as one.
        return null;
      }
    });
    const { indentation, finalNewline } = wishesOf(file.path, configs);
    file.finalNewline = finalNewline;
    if (indentation) edited.indent(indentation);
  }

  /** Writes the text if the file is still this; with null if there is none. */
  async #write(file: OpenFile, edited: EditedText, revision: string | null, again = false): Promise<void> {
    if (file.saving || file.content.kind !== "text") return;
    const { charset } = file.content;
    const now = edited.snapshot();
    const condition: WriteCondition = revision === null ? { missing: true } : { revision };
    const writing = (async () => {
      try {
        const written = await this.#disk.write(file.path, { content: now.content, charset: charset && plainly(charset) }, condition);
        edited.markSaved(now);
        file.failure = null;
        this.#agree(file, written);
        return null;
      } catch (thrown) {
        return reportOf(thrown);
      } finally {
        // What was read meanwhile may be from before.
        file.turn += 1;
        file.saving = null;
      }
    })();
    file.saving = writing.then(() => {});
    const failure = await writing;
    if (failure === null) return;
    if (failure.error !== "CONFLICT") file.failure = failure;
    else {
      await this.look(file);
      // Its time is another, and its text the one that was edited here: nothing of others is lost.
      const isAsBefore = !again && file.trouble === null && edited.unsaved && file.edited === edited;
      if (isAsBefore && file.revision !== null) await this.#write(file, edited, file.revision, true);
    }
  }

  async #drafts(): Promise<Draft[]> {
    try {
      return await this.#disk.drafts();
    } catch {
      // Those that cannot be read now are still there the next time.
      return [];
    }
  }

  /** Goes on with text that was not saved, beside what is on the disk by now. */
  async #resume(file: OpenFile, draft: Draft): Promise<void> {
    file.draft.found();
    file.charset = draft.charset?.name ?? null;
    const turn = ++file.turn;
    let disk: FileContent | null = null;
    let failure: ErrorReport | null = null;
    try {
      disk = await this.#disk.read(file.path, file.charset);
    } catch (thrown) {
      failure = reportOf(thrown);
    }
    if (file.turn !== turn) return;
    file.content = contentOfDraft(draft);
    file.revision = draft.revision;
    if (disk !== null && fits(file, disk)) {
      // What was saved is one step back, where there is nothing in between.
      file.edited = this.#edit(file, disk.content, false);
      file.content = contentOf(disk);
      file.edited.replace(draft.content);
      if (disk.revision === draft.revision || !file.edited.unsaved) return this.#agree(file, disk.revision);
    } else file.edited = this.#edit(file, draft.content, false);
    file.edited.markSaved(null);
    if (disk !== null) this.#differ(file, { kind: "changed", disk });
    else if (failure?.error === "FILE_NOT_FOUND") this.#differ(file, { kind: "deleted" });
  }

  #draftOf(file: OpenFile): Draft | null {
    const { path, name, content, edited, revision } = file;
    if (!edited?.unsaved || content.kind !== "text") return null;
    return { path, name, content: edited.content, charset: content.charset && plainly(content.charset), revision };
  }
}

function plainly({ name, marked }: WrittenCharset): WrittenCharset {
  return { name, marked };
}

/** Whether what is on the disk is a text of the kind that is edited here. */
function fits(file: OpenFile, disk: FileContent): boolean {
  const content = contentOf(disk);
  if (content.kind !== "text" || file.content.kind !== "text" || reasonToOnlyRead(content) !== null) return false;
  return content.charset?.name === file.content.charset?.name && content.charset?.marked === file.content.charset?.marked;
}

/** Returns why a text cannot be edited, or null when it can. */
export function reasonToOnlyRead({ text, truncated, charset }: TextContent): string | null {
  if (truncated) return "only its beginning was read";
  if (charset?.lossy) return `some of its bytes make no sense in ${charset.name} and show as \ufffd`;
  if (charset?.exact === false) return `some of its bytes would be others when it is written in ${charset.name}`;
  if (drawable(text) !== text) return "it has more marks on one character than can be shown";
  return null;
}

function contentOfDraft({ content, charset }: Draft): TextContent {
  const whole = charset === null ? null : { ...charset, lossy: false, exact: true };
  return { kind: "text", text: content, size: content.length, truncated: false, charset: whole };
}

type Remembered = { files: Array<Pick<FileEntry, "path" | "name">>; active: string | null };

function parse(text: string | null): Remembered {
  const nothing = { files: [], active: null };
  if (text === null) return nothing;
  try {
    const { files, active }: { files: unknown; active: unknown } = JSON.parse(text);
    if (!Array.isArray(files)) return nothing;
    return {
      files: files.flatMap(({ path, name }: { path: unknown; name: unknown }) =>
        typeof path === "string" && typeof name === "string" ? [{ path, name }] : [],
      ),
      active: typeof active === "string" ? active : null,
    };
  } catch {
    return nothing;
  }
}

function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

export function contentOf(read: FileContent): Content {
  const { content, size, truncated, charset, picture } = read;
  switch (read.encoding) {
    case "utf-8":
    case "decoded":
      return { kind: "text", text: content, size, truncated, charset };
    case "base64": {
      if (picture === null) return { kind: "binary", size, bytes: bytesOf(content), truncated };
      if (truncated || !picture.drawable) return { kind: "picture", picture, size };
      return { kind: "image", source: `data:${picture.media_type};base64,${content}`, picture, size };
    }
    default:
      return read.encoding satisfies never;
  }
}
