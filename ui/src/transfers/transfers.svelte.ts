// Uploads and downloads: how far each is, how fast, and what is asked of the user. They go on in Rust, whatever the page
// does.

import { SvelteMap } from "svelte/reactivity";

import type { ErrorReport } from "../bindings/ErrorReport";
import type { NameTaken } from "../bindings/NameTaken";
import type { TransferEvent } from "../bindings/TransferEvent";
import { bytes, count, timeLeft, transferred } from "../lib/format";
import { reportOf } from "../lib/ipc/error";
import { visibleName } from "../lib/names";

/** Over how long the speed is measured. */
const WINDOW_MS = 5_000;
/** A speed from less than this says nothing. */
const LEAST_MS = 900;
/** The most transfers that are shown; the oldest go. */
const MOST = 64;

export interface TransferCommands {
  answerTransfer: (id: string, transferId: string, choice: NameTaken) => Promise<void>;
  retryTransfer: (id: string, transferId: string) => Promise<void>;
  cancelTransfer: (id: string, transferId: string) => Promise<void>;
}

export class Transfer {
  readonly id: string;
  readonly sessionId: string;
  news: TransferEvent;
  /** From the press of a button until what it does is heard of. */
  busy = $state(false);
  /** Why what was pressed could not be done. */
  failure = $state.raw<ErrorReport | null>(null);
  /** How many bytes there were when. */
  #seen: Array<{ at: number; bytes: number }> = $state.raw([]);

  constructor(news: TransferEvent, now: number) {
    this.id = news.transfer_id;
    this.sessionId = news.session_id;
    this.news = $state.raw(news);
    this.#seen = [{ at: now, bytes: news.bytes }];
  }

  hear(news: TransferEvent, now: number): void {
    this.news = news;
    // The last of those that are too old is where the window begins.
    const old = this.#seen.filter(({ at }) => now - at >= WINDOW_MS);
    this.#seen = [...this.#seen.slice(Math.max(old.length - 1, 0)), { at: now, bytes: news.bytes }];
    if (news.outcome !== null) this.busy = false;
  }

  readonly title = $derived.by(() => {
    const { name, things } = this.news;
    return things > 1 ? `${visibleName(name)} and ${things - 1} more` : visibleName(name);
  });

  /** Null while nobody knows. */
  readonly percent = $derived.by(() => {
    const { bytes: done, total_bytes: total } = this.news;
    if (total === null) return null;
    return total === 0 ? 100 : Math.min(100, (100 * done) / total);
  });

  /** Bytes a second; null while it cannot be said. */
  readonly speed = $derived.by(() => {
    const [first, last] = [this.#seen[0], this.#seen.at(-1)];
    if (!first || !last || last.at - first.at < LEAST_MS) return null;
    return Math.max(0, ((last.bytes - first.bytes) * 1000) / (last.at - first.at));
  });

  /** `12 of 40 MB · 7 files · 24 MB/s · about 0:02 left`. */
  readonly line = $derived.by(() => {
    const { bytes: done, total_bytes: total, files } = this.news;
    const parts = [transferred(done, total)];
    if (files > 1) parts.push(count(files, "file"));
    if (this.speed !== null && this.speed > 0) {
      parts.push(`${bytes(this.speed)}/s`);
      if (total !== null && total > done) parts.push(timeLeft({ kind: "point", ms: ((total - done) * 1000) / this.speed }, 0));
    }
    return parts.join(" · ");
  });
}

export class Transfers {
  listed = $state.raw<Transfer[]>([]);

  readonly #commands: TransferCommands;
  /** By a session's id, how many uploads have arrived. */
  readonly #landed = new SvelteMap<string, number>();

  constructor(commands: TransferCommands) {
    this.#commands = commands;
  }

  /** How many go on. */
  get underWay(): number {
    return this.listed.filter(({ news }) => news.outcome === null).length;
  }

  of(sessionId: string): Transfer[] {
    return this.listed.filter((transfer) => transfer.sessionId === sessionId);
  }

  landed(sessionId: string): number {
    return this.#landed.get(sessionId) ?? 0;
  }

  /** Forgets those of sessions that are gone: nobody tells how they ended. */
  keepThoseOf(isKnown: (sessionId: string) => boolean): void {
    if (this.listed.some(({ sessionId }) => !isKnown(sessionId))) {
      this.listed = this.listed.filter(({ sessionId }) => isKnown(sessionId));
    }
  }

  hear(news: TransferEvent, now: number): void {
    const known = this.listed.find(({ id }) => id === news.transfer_id);
    switch (news.outcome) {
      case null:
      case "failed":
      case "asks":
        if (known) known.hear(news, now);
        else this.listed = [...this.listed, new Transfer(news, now)].slice(-MOST);
        break;
      case "done":
        if (news.direction === "upload") this.#landed.set(news.session_id, this.landed(news.session_id) + 1);
        this.#forget(news.transfer_id);
        break;
      case "cancelled":
        this.#forget(news.transfer_id);
        break;
      default:
        news.outcome satisfies never;
    }
  }

  /** Ends one, or forgets one that has ended. */
  async cancel(transfer: Transfer): Promise<void> {
    if (transfer.news.outcome !== null) this.#forget(transfer.id);
    await this.#ask(transfer, () => this.#commands.cancelTransfer(transfer.sessionId, transfer.id));
  }

  /** Begins one again that failed; it gets another id. */
  async retry(transfer: Transfer): Promise<void> {
    const done = await this.#ask(transfer, () => this.#commands.retryTransfer(transfer.sessionId, transfer.id));
    if (done) this.#forget(transfer.id);
  }

  /** Says what becomes of names that are taken; it goes on under another id. */
  async answer(transfer: Transfer, choice: NameTaken): Promise<void> {
    const done = await this.#ask(transfer, () => this.#commands.answerTransfer(transfer.sessionId, transfer.id, choice));
    if (done) this.#forget(transfer.id);
  }

  async #ask(transfer: Transfer, ask: () => Promise<void>): Promise<boolean> {
    transfer.busy = true;
    transfer.failure = null;
    try {
      await ask();
      return true;
    } catch (thrown) {
      transfer.failure = reportOf(thrown);
      transfer.busy = false;
      return false;
    }
  }

  #forget(id: string): void {
    this.listed = this.listed.filter((transfer) => transfer.id !== id);
  }
}

/** What is said of a transfer that is done; null for any other. */
export function transferEnd(news: TransferEvent): string | null {
  if (news.outcome !== "done") return null;
  const what = news.things > 1 ? count(news.things, "entry", "entries") : visibleName(news.name, 60);
  return `${news.direction === "upload" ? "Uploaded" : "Downloaded"} ${what}`;
}
