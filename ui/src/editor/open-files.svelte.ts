// The files that are open in the viewer of one session.

import type { Charset } from "../bindings/Charset";
import type { ErrorReport } from "../bindings/ErrorReport";
import type { FileContent } from "../bindings/FileContent";
import type { FileEntry } from "../bindings/FileEntry";
import type { Picture } from "../bindings/Picture";
import { reportOf } from "../lib/ipc/error";

export type Content =
  | { kind: "loading" }
  /** `charset` is null where the file is plain UTF-8. */
  | { kind: "text"; text: string; size: number; truncated: boolean; charset: Charset | null }
  | { kind: "image"; source: string; picture: Picture; size: number }
  /** One that is not drawn: it is too large, or only its beginning was read. */
  | { kind: "picture"; picture: Picture; size: number }
  | { kind: "binary"; size: number }
  | { kind: "failed"; failure: ErrorReport };

export class OpenFile {
  readonly path: string;
  readonly name: string;
  content = $state.raw<Content>({ kind: "loading" });
  /** The encoding that the user chose for it; null for what it looks like. */
  charset = $state<string | null>(null);
  /** How often it was read; only the answer to the last time counts. */
  reads = 0;

  constructor(path: string, name: string) {
    this.path = path;
    this.name = name;
  }
}

export class OpenFiles {
  files = $state.raw<OpenFile[]>([]);
  activePath = $state<string | null>(null);

  readonly #read: (path: string, charset: string | null) => Promise<FileContent>;

  constructor(read: (path: string, charset: string | null) => Promise<FileContent>) {
    this.#read = read;
  }

  readonly active = $derived.by(() => this.files.find((file) => file.path === this.activePath) ?? null);

  /** Opens a file, or shows the one that is open and reads it again. */
  async open(entry: Pick<FileEntry, "path" | "name">): Promise<void> {
    let file = this.files.find((open) => open.path === entry.path);
    if (!file) {
      file = new OpenFile(entry.path, entry.name);
      this.files = [...this.files, file];
    }
    this.activePath = file.path;
    await this.#load(file);
  }

  /** Shows a file as a text in this encoding; with null as what it looks like. */
  async choose(file: OpenFile, charset: string | null): Promise<void> {
    file.charset = charset;
    await this.#load(file);
  }

  async #load(file: OpenFile): Promise<void> {
    const read = ++file.reads;
    let content: Content;
    try {
      content = contentOf(await this.#read(file.path, file.charset));
    } catch (thrown) {
      content = { kind: "failed", failure: reportOf(thrown) };
    }
    // It may have been read again meanwhile, or in another encoding.
    if (file.reads === read) file.content = content;
  }

  /** Returns what is open, as text that `restore` takes. */
  remembered(): string | null {
    if (this.files.length === 0) return null;
    const files = this.files.map(({ path, name }) => ({ path, name }));
    return JSON.stringify({ files, active: this.activePath });
  }

  /** Opens again what was open before a reload. What cannot be understood is forgotten. */
  async restore(text: string | null): Promise<void> {
    const { files, active } = parse(text);
    await Promise.all(files.map((file) => this.open(file)));
    if (this.files.some((file) => file.path === active)) this.activePath = active;
  }

  close(path: string): void {
    const index = this.files.findIndex((file) => file.path === path);
    this.files = this.files.filter((file) => file.path !== path);
    if (this.activePath === path) {
      this.activePath = (this.files[index] ?? this.files[index - 1])?.path ?? null;
    }
  }
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

export function contentOf(read: FileContent): Content {
  const { content, size, truncated, charset, picture } = read;
  switch (read.encoding) {
    case "utf-8":
    case "decoded":
      return { kind: "text", text: content, size, truncated, charset };
    case "base64": {
      if (picture === null) return { kind: "binary", size };
      if (truncated || !picture.drawable) return { kind: "picture", picture, size };
      return { kind: "image", source: `data:${picture.media_type};base64,${content}`, picture, size };
    }
    default:
      return read.encoding satisfies never;
  }
}

export function extensionOf(name: string): string {
  const dot = name.lastIndexOf(".");
  return dot < 0 ? "" : name.slice(dot + 1).toLowerCase();
}
