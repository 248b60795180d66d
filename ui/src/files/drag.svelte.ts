// Entries that are carried over the tree by the pointer. By the events of the mouse and not by the web view's drag and drop,
// which each system does in its own way and none lets a keyboard cancel for sure.

import type { EntryRow } from "./tree.svelte";

/** As far as a pointer goes before a press is a drag. */
const SLACK = 5;

export class Drag {
  /** What is carried; empty until the pointer has moved. */
  rows = $state.raw<EntryRow[]>([]);
  /** The folder that it would fall into; null where it may not. */
  folder = $state<string | null>(null);
  copies = $state(false);
  at = $state.raw({ x: 0, y: 0 });

  #pressed: { rows: EntryRow[]; x: number; y: number } | null = null;
  /** Whether the click that may come is none: it ends a drag, or belongs to another button. */
  #swallow = false;

  get isUnderWay(): boolean {
    return this.rows.length > 0;
  }

  press(rows: EntryRow[], at: { x: number; y: number }): void {
    this.#pressed = { rows, ...at };
    this.#swallow = false;
  }

  /** Takes note of a press of another button. Some web views call its end a click like any other. */
  pressOther(): void {
    this.#end();
    this.#swallow = true;
  }

  /** Returns whether something is carried now. */
  move(at: { x: number; y: number }): boolean {
    if (this.#pressed === null) return false;
    const { rows, x, y } = this.#pressed;
    if (!this.isUnderWay && Math.hypot(at.x - x, at.y - y) >= SLACK) this.rows = rows;
    this.at = at;
    return this.isUnderWay;
  }

  /** Ends it; returns what falls where, or null. */
  drop(): { rows: EntryRow[]; folder: string; copies: boolean } | null {
    if (this.#pressed === null) return null;
    const { rows, folder, copies } = this;
    this.#swallow = this.isUnderWay;
    this.#end();
    return rows.length > 0 && folder !== null ? { rows, folder, copies } : null;
  }

  cancel(): void {
    if (this.isUnderWay) this.#swallow = true;
    this.#end();
  }

  #end(): void {
    this.#pressed = null;
    this.rows = [];
    this.folder = null;
    this.copies = false;
  }

  /** Returns, once, whether a click by a pointer is none. */
  takeClick(): boolean {
    const swallow = this.#swallow;
    this.#swallow = false;
    return swallow;
  }
}
