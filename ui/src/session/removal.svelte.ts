// The question before a session is deleted: what would be lost, and whether its files stay.

import type { Draft } from "../bindings/Draft";
import type { ErrorReport } from "../bindings/ErrorReport";
import type { Usage } from "../bindings/Usage";
import { ago, bytes, count } from "../lib/format";
import { reportOf } from "../lib/ipc/error";
import { visibleName } from "../lib/names";
import type { Session } from "./session.svelte";

const NOT_KNOWN: Usage = { size_bytes: null, stored_bytes: null, at_least: false, modified_ms: null, free_bytes: null, disk_bytes: null, other_volumes: [] };

export class Removal {
  /** What would be deleted; null when nothing is asked. */
  session = $state.raw<Session | null>(null);
  keepFiles = $state(false);
  /** Null while it is measured. */
  usage = $state.raw<Usage | null>(null);
  /** The names of its files that have unsaved changes. */
  unsaved = $state.raw<string[]>([]);
  failure = $state.raw<ErrorReport | null>(null);

  readonly #measure: (id: string) => Promise<Usage>;
  readonly #drafts: (id: string) => Promise<Array<Pick<Draft, "name">>>;
  readonly #remove: (id: string, keepFiles: boolean) => Promise<unknown>;

  constructor(
    measure: (id: string) => Promise<Usage>,
    drafts: (id: string) => Promise<Array<Pick<Draft, "name">>>,
    remove: (id: string, keepFiles: boolean) => Promise<unknown>,
  ) {
    this.#measure = measure;
    this.#drafts = drafts;
    this.#remove = remove;
  }

  /** Files that were kept are all there is: they go, or nothing does. */
  readonly mayKeep = $derived.by(() => this.session !== null && !this.session.kept);
  readonly action = $derived.by(() => {
    if (!this.mayKeep) return "Delete files";
    return this.keepFiles ? "Delete container" : "Delete session and files";
  });

  async show(session: Session): Promise<void> {
    this.session = session;
    this.keepFiles = false;
    this.usage = null;
    this.unsaved = [];
    this.failure = null;
    void this.#drafts(session.id).then(
      (drafts) => {
        if (this.session === session) this.unsaved = drafts.map((draft) => draft.name);
      },
      // What cannot be read cannot be named.
      () => {},
    );
    let usage = NOT_KNOWN;
    try {
      usage = await this.#measure(session.id);
    } catch {
      // That the size is not known is no reason not to delete.
    }
    if (this.session === session) this.usage = usage;
  }

  close(): void {
    this.session = null;
  }

  async submit(): Promise<void> {
    const { session } = this;
    if (session === null) return;
    this.failure = null;
    try {
      await this.#remove(session.id, this.mayKeep && this.keepFiles);
      this.session = null;
    } catch (thrown) {
      this.failure = reportOf(thrown);
    }
  }
}

/** `214 MB in /workspace, last changed 2 hours ago`, as far as it is known. */
export function usageWords(usage: Usage | null, now: number): string {
  if (usage === null) return "Files in `/workspace`: measuring…";
  const { size_bytes, stored_bytes, at_least, modified_ms } = usage;
  const changed = modified_ms === null ? "" : `, last changed ${ago(modified_ms, now)}`;
  if (size_bytes === null) return `How much is in \`/workspace\` is not known${changed}`;
  if (size_bytes === 0 && !at_least) return "`/workspace` is empty";
  // Files with holes look larger than they are.
  const hasHoles = stored_bytes !== null && stored_bytes < size_bytes / 2;
  const stored = hasHoles ? ` (${bytes(stored_bytes)} on the disk)` : "";
  return `${at_least ? "At least " : ""}${bytes(size_bytes)}${stored} in \`/workspace\`${changed}`;
}

/** Says which files lose changes that were not saved; null when there are none. */
export function unsavedWords(names: readonly string[]): string | null {
  const [first] = names;
  if (first === undefined) return null;
  const others = names.length - 1;
  const what = `\`${visibleName(first)}\`${others === 0 ? "" : ` and ${count(others, "other file")}`}`;
  return `${what} ${others === 0 ? "has" : "have"} changes that were not saved: they are lost with the session.`;
}

/** Says which folders outside `/workspace` are lost, with or without its files; null when there are none. */
export function otherVolumesWords(usage: Usage | null): string | null {
  const folders = (usage?.other_volumes ?? []).map((folder) => `\`${folder}\``);
  const last = folders.at(-1);
  if (last === undefined) return null;
  const [names, where] =
    folders.length === 1 ? [last, "a volume that goes"] : [`${folders.slice(0, -1).join(", ")} and ${last}`, "volumes that go"];
  return `What is in ${names} is lost too: the image keeps it in ${where} with the container.`;
}
