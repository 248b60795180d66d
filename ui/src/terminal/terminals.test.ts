import { expect, it } from "vitest";

import type { TerminalTab as KeptTab } from "../bindings/TerminalTab";
import { exitLine, LONGEST_TAB_NAME, MOST_PANES, type TerminalTab, Terminals } from "./terminals.svelte";

function kept(...ids: string[]): KeptTab {
  return { name: "", stacked: false, panes: ids.map((terminal_id) => ({ terminal_id, share: Math.round(100 / ids.length) })) };
}

function idsOf(terminals: Terminals): Array<Array<string | null>> {
  return terminals.tabs.map((tab) => tab.panes.map((pane) => pane.terminalId));
}

function first(terminals: Terminals): TerminalTab {
  const [tab] = terminals.tabs;
  if (!tab) throw new Error("there is no tab");
  return tab;
}

it("takes over the terminals of before a reload as they were shown, and opens one where there is none", () => {
  const again = new Terminals();
  const build = { ...kept("t1", "t2"), name: "build", stacked: true };
  again.begin([build, kept("t3")]);
  expect(again.tabs.map((tab) => tab.label)).toEqual(["build", "Terminal 3"]);
  expect(idsOf(again)).toEqual([["t1", "t2"], ["t3"]]);
  expect(again.active?.active?.terminalId).toBe("t1");
  expect(again.kept).toEqual([build, kept("t3")]);

  const fresh = new Terminals();
  fresh.begin([]);
  expect(idsOf(fresh)).toEqual([[null]]);
  expect(fresh.kept).toEqual([]);
});

it("one that is asked for before it is known what there is has its place behind what there is", () => {
  const terminals = new Terminals();
  const early = terminals.open({ folder: "/workspace/a" });
  terminals.begin([kept("t1")]);
  expect(idsOf(terminals)).toEqual([["t1"], [null]]);
  expect(terminals.active).toBe(early);
  expect(new Set(terminals.tabs.flatMap((tab) => tab.panes.map((pane) => pane.key))).size).toBe(2);
});

it("shares that leave a terminal no room are none", () => {
  const terminals = new Terminals();
  const [one, two] = [{ terminal_id: "t1", share: 100 }, { terminal_id: "t2", share: 0 }];
  terminals.begin([{ name: "", stacked: false, panes: [one, two] }]);
  expect(first(terminals).panes.map((pane) => pane.share)).toEqual([50, 50]);
});

it("closing goes on to the neighbour and names the terminal to close, also one that has ended", () => {
  const terminals = new Terminals();
  terminals.begin([kept("t1"), kept("t2"), kept("t3")]);
  terminals.activeKey = terminals.tabs[1]?.key ?? null;
  expect(terminals.close(terminals.active?.active?.key ?? "")).toBe("t2");
  expect(terminals.active?.active?.terminalId).toBe("t3");
  const last = terminals.active?.active;
  if (last) last.exit = { code: 0, message: "" };
  expect(terminals.close(last?.key ?? "")).toBe("t3");
  expect(terminals.active?.active?.terminalId).toBe("t1");
});

it("a split is beside the active terminal, begins where that is, and leaves its room to the others when it is closed", () => {
  const terminals = new Terminals();
  terminals.begin([kept("t1")]);
  const tab = first(terminals);
  terminals.split(tab, true);
  const [, second] = tab.panes;
  expect([tab.stacked, tab.active, terminals.focusKey]).toEqual([true, second, second?.key]);
  expect(second?.begins).toEqual({ like: "t1" });
  tab.activeKey = tab.panes[0]?.key ?? null;
  // The direction is that of the tab, once it has one.
  terminals.split(tab, false);
  expect([tab.stacked, tab.panes.length, tab.panes[1] === tab.active]).toEqual([true, 3, true]);
  terminals.split(tab, true);
  terminals.split(tab, true);
  expect(tab.panes.length).toBe(MOST_PANES);
  expect(tab.panes.map((pane) => pane.share)).toEqual([25, 25, 25, 25]);
  for (const pane of tab.panes.slice(1)) expect(terminals.close(pane.key)).toBe(null);
  expect(idsOf(terminals)).toEqual([["t1"]]);
  expect([first(terminals).active?.terminalId, first(terminals).panes[0]?.share]).toEqual(["t1", 100]);
});

it("goes from one terminal of a tab to the next, and stays at the last", () => {
  const terminals = new Terminals();
  terminals.begin([kept("t1", "t2")]);
  const tab = first(terminals);
  const went: Array<string | null | undefined> = [];
  for (const by of [1, 1, -1, -1] as const) {
    terminals.step(tab, by);
    went.push(tab.active?.terminalId);
  }
  expect(went).toEqual(["t2", "t2", "t1", "t1"]);
});

it("a tab is called by its user, by the program that is in front in it, or by its number, and marked for all in it", () => {
  const terminals = new Terminals();
  terminals.begin([kept("t1", "t2")]);
  const tab = first(terminals);
  const [one, two] = tab.panes;
  if (!one || !two) throw new Error("one is missing");
  const labels = [tab.label];
  two.title = "vim";
  labels.push(tab.label);
  terminals.step(tab, 1);
  labels.push(tab.label);
  tab.name = "build";
  labels.push(tab.label);
  tab.name = "";
  labels.push(tab.label);
  expect(labels).toEqual(["Terminal 1", "Terminal 1", "vim", "build", "vim"]);
  one.attention = "waiting";
  two.attention = "unseen";
  expect(tab.attention).toBe("waiting");
});

it("a name that comes from a container is tamed and bounded", () => {
  const terminals = new Terminals();
  terminals.begin([{ ...kept("t1"), name: `a\u202e\u0007${"x".repeat(200)}` }]);
  const { name } = first(terminals);
  expect(name.startsWith("a⟨U+202E⟩␇xxx")).toBe(true);
  expect([...name].length).toBe(LONGEST_TAB_NAME);
});

it.each([
  [{ code: 7, message: "The shell ended with code 7." }, "The shell ended with code 7 — press Enter to open a new one"],
  [
    { code: null, message: "The connection to the container ended." },
    "The connection to the container ended — press Enter to open a new one",
  ],
])("an end %o reads %s", (exit, line) => expect(exitLine(exit)).toBe(line));
