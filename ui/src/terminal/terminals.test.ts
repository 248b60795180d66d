import { expect, it } from "vitest";

import { exitLine, Terminals } from "./terminals.svelte";

it("takes over the terminals of before a reload, and opens one where there is none", () => {
  const again = new Terminals();
  again.begin(["t1", "t2"]);
  expect(again.tabs.map((tab) => [tab.label, tab.terminalId])).toEqual([
    ["Terminal 1", "t1"],
    ["Terminal 2", "t2"],
  ]);
  expect(again.active?.terminalId).toBe("t1");

  const fresh = new Terminals();
  fresh.begin([]);
  fresh.begin(["late"]);
  expect(fresh.tabs.map((tab) => tab.terminalId)).toEqual([null]);
});

it("closing goes on to the neighbour and names the terminal to close, also one that has ended", () => {
  const terminals = new Terminals();
  terminals.begin(["t1", "t2", "t3"]);
  terminals.activeKey = terminals.tabs[1]?.key ?? null;
  expect(terminals.close(terminals.tabs[1]?.key ?? "")).toBe("t2");
  expect(terminals.active?.terminalId).toBe("t3");
  const last = terminals.tabs[1];
  if (last) last.exit = { code: 0, message: "" };
  expect(terminals.close(last?.key ?? "")).toBe("t3");
  expect(terminals.active?.terminalId).toBe("t1");
});

it.each([
  [{ code: 7, message: "The shell ended with code 7." }, "The shell ended with code 7 — press Enter to open a new one"],
  [
    { code: null, message: "The connection to the container ended." },
    "The connection to the container ended — press Enter to open a new one",
  ],
])("an end %o reads %s", (exit, line) => expect(exitLine(exit)).toBe(line));
