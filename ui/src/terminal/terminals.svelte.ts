// The terminals of one session, and the tabs that show them: one to four beside each other in each.

import type { ErrorReport } from "../bindings/ErrorReport";
import type { TerminalTab as KeptTab } from "../bindings/TerminalTab";
import { type Attention, mostOf } from "../lib/attention";
import type { TerminalBegins, TerminalExit } from "../lib/ipc/commands";
import { visibleName } from "../lib/names";

/** The most terminals of a tab. */
export const MOST_PANES = 4;
/** The most characters of a tab's name. */
export const LONGEST_TAB_NAME = 80;
/** The least of a tab's room that a terminal has, in percent. */
export const LEAST_SHARE = 10;

export class TerminalPane {
  readonly key: string;
  readonly number: number;
  /** The Rust side's name for it; null until it is open. */
  terminalId = $state<string | null>(null);
  /** Where it is to begin, until it has. */
  begins: TerminalBegins | null;
  /** Set once its process has ended. */
  exit = $state.raw<TerminalExit | null>(null);
  title = $state("");
  /** Why it could not be opened, where the user can do something about that here. */
  refused = $state.raw<ErrorReport | null>(null);
  attention = $state<Attention>("none");
  /** How much of its tab's room it has, in percent. */
  share = $state(100);
  #watched = false;
  /** Whether it was ever looked at: what comes before is from before a reload. */
  #known = false;

  constructor(number: number, terminalId: string | null, begins: TerminalBegins | null) {
    this.number = number;
    this.key = `terminal-${number}`;
    this.terminalId = terminalId;
    this.begins = begins;
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

export class TerminalTab {
  readonly key: string;
  /** What the user calls it; empty when that is left to the programs in it. */
  name = $state("");
  /** Whether its terminals are one above the other. */
  stacked = $state(false);
  /** At least one. */
  panes = $state.raw<TerminalPane[]>([]);
  /** Which of them is typed into. */
  activeKey = $state<string | null>(null);

  constructor(first: TerminalPane) {
    this.key = `tab-${first.number}`;
    this.panes = [first];
    this.activeKey = first.key;
  }

  readonly active = $derived.by(() => this.panes.find((pane) => pane.key === this.activeKey) ?? this.panes[0] ?? null);

  /** What it is called: by the user, by the program in it, or by its number. */
  readonly label = $derived.by(() => this.name || this.active?.title || this.active?.label || "");

  readonly attention = $derived.by(() => mostOf(this.panes.map((pane) => pane.attention)));

  /** Gives each terminal as much room as the others. */
  share(): void {
    for (const pane of this.panes) pane.share = 100 / this.panes.length;
  }

  /** Takes note of how much room each has. */
  settle(shares: readonly number[]): void {
    if (shares.length !== this.panes.length) return;
    for (const [index, pane] of this.panes.entries()) pane.share = Math.round(shares[index] ?? pane.share);
  }
}

export class Terminals {
  tabs = $state.raw<TerminalTab[]>([]);
  activeKey = $state<string | null>(null);
  /** The terminal that is to have the focus when it can. */
  focusKey = $state<string | null>(null);
  /** Whether it is known which terminals there are. */
  isKnown = $state(false);
  #made = 0;

  readonly active = $derived.by(() => this.tabs.find((tab) => tab.key === this.activeKey) ?? null);

  /** How they are shown, for the next window; a terminal that is not open yet is in none. */
  readonly kept = $derived.by(() =>
    this.tabs
      .map(({ name, stacked, panes }): KeptTab => ({
        name,
        stacked,
        panes: panes.flatMap(({ terminalId, share }) =>
          terminalId === null ? [] : [{ terminal_id: terminalId, share: Math.round(share) }],
        ),
      }))
      .filter((tab) => tab.panes.length > 0),
  );

  /** Takes over the terminals that are open already, and opens one where there is none. */
  begin(kept: readonly KeptTab[]): void {
    // One may have been asked for before it was known what there is.
    const early = this.tabs;
    const found = kept.flatMap(({ name, stacked, panes }) => {
      const [first, ...others] = panes.map(({ terminal_id }) => this.#pane(terminal_id));
      if (!first) return [];
      const tab = new TerminalTab(first);
      tab.name = tabName(name);
      tab.stacked = stacked;
      tab.panes = [first, ...others];
      const shares = panes.map(({ share }) => share);
      if (shares.every((share) => share >= LEAST_SHARE)) tab.settle(shares);
      else tab.share();
      return [tab];
    });
    this.tabs = [...found, ...early];
    this.isKnown = true;
    if (this.tabs.length === 0) this.open();
    if (early.length === 0) this.activeKey = this.tabs[0]?.key ?? null;
  }

  /** Adds a tab; the terminal itself opens when the tab is shown. */
  open(begins: TerminalBegins | null = null): TerminalTab {
    if (this.tabs.length === 0) this.#made = 0;
    const pane = this.#pane(null, begins);
    const tab = new TerminalTab(pane);
    this.tabs = [...this.tabs, tab];
    this.activeKey = tab.key;
    this.focusKey = pane.key;
    return tab;
  }

  /** Adds a terminal beside the active one of a tab, in the same folder; nothing where there is no more room. */
  split(tab: TerminalTab, stacked: boolean): void {
    if (tab.panes.length >= MOST_PANES) return;
    const pane = this.#pane(null, hereAs(tab.active));
    const at = tab.panes.findIndex((other) => other.key === tab.active?.key) + 1;
    if (tab.panes.length === 1) tab.stacked = stacked;
    tab.panes = [...tab.panes.slice(0, at), pane, ...tab.panes.slice(at)];
    tab.share();
    tab.activeKey = pane.key;
    this.activeKey = tab.key;
    this.focusKey = pane.key;
  }

  /** Leads to the next terminal of a tab, or with -1 to the one before; stays at the last. */
  step(tab: TerminalTab, by: 1 | -1): void {
    const at = tab.panes.findIndex((pane) => pane.key === tab.active?.key);
    const next = tab.panes[at + by];
    if (!next) return;
    tab.activeKey = next.key;
    this.focusKey = next.key;
  }

  /** Gives the keyboard to the terminal that is typed into. */
  focus(): void {
    this.focusKey = this.active?.active?.key ?? null;
  }

  /** Returns the tab that a terminal is in. */
  tabOf(key: string): TerminalTab | null {
    return this.tabs.find((tab) => tab.panes.some((pane) => pane.key === key)) ?? null;
  }

  /**
   * Takes a terminal away, and its tab if it was the last; the others have its room. Returns the terminal to close: one that
   * has ended is there until it is closed.
   */
  close(key: string): string | null {
    const tab = this.tabOf(key);
    if (tab === null) return null;
    const at = tab.panes.findIndex((pane) => pane.key === key);
    const closed = tab.panes[at];
    if (tab.panes.length === 1) this.#remove(tab);
    else {
      tab.panes = tab.panes.filter((pane) => pane.key !== key);
      tab.share();
      if (tab.activeKey === key) {
        tab.activeKey = (tab.panes[at] ?? tab.panes[at - 1])?.key ?? null;
        this.focusKey = tab.activeKey;
      }
    }
    return closed?.terminalId ?? null;
  }

  #remove(tab: TerminalTab): void {
    const index = this.tabs.indexOf(tab);
    this.tabs = this.tabs.filter((other) => other !== tab);
    if (this.activeKey === tab.key) {
      this.activeKey = (this.tabs[index] ?? this.tabs[index - 1])?.key ?? null;
    }
  }

  #pane(terminalId: string | null, begins: TerminalBegins | null = null): TerminalPane {
    this.#made += 1;
    return new TerminalPane(this.#made, terminalId, begins);
  }
}

/** Returns where a terminal begins that is to be where another is. */
export function hereAs(pane: TerminalPane | null): TerminalBegins | null {
  return pane?.terminalId ? { like: pane.terminalId } : null;
}

/** Returns a name for a tab, fit to be shown and to be kept. */
export function tabName(name: string): string {
  return [...visibleName(name.trim(), LONGEST_TAB_NAME)].slice(0, LONGEST_TAB_NAME).join("");
}

/** What stands below a terminal whose process has ended. */
export function exitLine(exit: TerminalExit): string {
  return `${exit.message.replace(/\.$/, "")} — press Enter to open a new one`;
}
