// The files of a session that were looked at last.

import type { FileName } from "./quick-open.svelte";

const MOST = 12;

export class Recent {
  files = $state.raw<FileName[]>([]);

  /** Takes what `remembered` has returned. What cannot be understood is forgotten. */
  constructor(text: string | null) {
    this.files = parse(text);
  }

  add({ path, name }: FileName): void {
    if (this.files[0]?.path === path) return;
    this.files = [{ path, name }, ...this.files.filter((file) => file.path !== path)].slice(0, MOST);
  }

  remembered(): string | null {
    return this.files.length === 0 ? null : JSON.stringify(this.files);
  }
}

function parse(text: string | null): FileName[] {
  if (text === null) return [];
  try {
    const files: unknown = JSON.parse(text);
    if (!Array.isArray(files)) return [];
    return files
      .flatMap((file: { path?: unknown; name?: unknown } | null) =>
        typeof file?.path === "string" && typeof file.name === "string" ? [{ path: file.path, name: file.name }] : [],
      )
      .slice(0, MOST);
  } catch {
    return [];
  }
}
