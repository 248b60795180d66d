// The terminal tabs of one session.

import type { ErrorReport } from "../bindings/ErrorReport";
import type { Attention } from "../lib/attention";
import type { TerminalExit } from "../lib/ipc/commands";

export class TerminalTab {
  readonly key: string;
  readonly number: number;
  /** The Rust side's name for it; null until it is open. */
  terminalId = $state<string | null>(null);
  /** Set once its process has ended. */
  exit = $state.raw<TerminalExit | null>(null);
  title = $state("");
  /** Why it could not be opened, where the user can do something about that here. */
  refused = $state.raw<ErrorReport | null>(null);
  attention = $state<Attention>("none");
  #watched = false;
  /** Whether it was ever looked at: what comes before is from before a reload. */
  #known = false;

  constructor(number: number, terminalId: string | null) {
    this.number = number;
    this.key = `terminal-${number}`;
    this.terminalId = terminalId;
  }

  readonly label = $derived.by(() => `Terminal ${this.number}`);

  /** Whether somebody looks at it. */
  set watched(watched: boolean) {
    this.#watched = watched;
    this.#known ||= watched;
    if (watched) this.attention = "none";
  }

  /** There was output. */
  wrote(): void {
    if (this.#known && !this.#watched && this.attention === "none") this.attention = "unseen";
  }

  /** A program wants to be looked at; returns whether nobody does. */
  waits(): boolean {
    if (!this.#known || this.#watched) return false;
    this.attention = "waiting";
    return true;
  }
}

export class Terminals {
  tabs = $state.raw<TerminalTab[]>([]);
  activeKey = $state<string | null>(null);
  #made = 0;

  readonly active = $derived.by(() => this.tabs.find((tab) => tab.key === this.activeKey) ?? null);

  /** Takes over the terminals that are open already, and opens one where there is none. */
  begin(openIds: readonly string[]): void {
    if (this.tabs.length > 0) return;
    for (const id of openIds) this.#add(id);
    if (this.tabs.length === 0) this.open();
    this.activeKey = this.tabs[0]?.key ?? null;
  }

  /** Adds a tab; the terminal itself opens when the tab is shown. */
  open(): TerminalTab {
    const tab = this.#add(null);
    this.activeKey = tab.key;
    return tab;
  }

  /** Takes a tab away and returns the terminal to close: one that has ended is there until it is closed. */
  close(key: string): string | null {
    const index = this.tabs.findIndex((tab) => tab.key === key);
    const tab = this.tabs[index];
    this.tabs = this.tabs.filter((other) => other.key !== key);
    if (this.activeKey === key) {
      this.activeKey = (this.tabs[index] ?? this.tabs[index - 1])?.key ?? null;
    }
    return tab?.terminalId ?? null;
  }

  #add(terminalId: string | null): TerminalTab {
    if (this.tabs.length === 0) this.#made = 0;
    this.#made += 1;
    const tab = new TerminalTab(this.#made, terminalId);
    this.tabs = [...this.tabs, tab];
    return tab;
  }
}

/** What stands below a terminal whose process has ended. */
export function exitLine(exit: TerminalExit): string {
  return `${exit.message.replace(/\.$/, "")} — press Enter to open a new one`;
}
