import { describe, expect, it } from "vitest";

import { mostOf } from "../lib/attention";
import { noticeOf777, noticeOf9 } from "./attention";
import { TerminalPane } from "./terminals.svelte";

describe("what a program says", () => {
  it.each([
    ["tests passed", "tests passed"],
    ["4;1;50", null],
    ["9", null],
    ["9 lives", "9 lives"],
    ["", null],
    ["a\u202eb", "a⟨U+202E⟩b"],
  ])("by OSC 9: %s", (data, notice) => expect(noticeOf9(data)).toBe(notice));

  it.each([
    ["notify;Build;done; in 3 s", "Build: done; in 3 s"],
    ["notify;Build", "Build"],
    ["notify;;done", "done"],
    ["notify", null],
    ["precmd", null],
  ])("by OSC 777: %s", (data, notice) => expect(noticeOf777(data)).toBe(notice));

  it("is cut", () => expect(noticeOf9("x".repeat(5_000))?.length).toBeLessThan(250));
});

describe("a terminal", () => {
  it("asks for nothing while it is looked at, nor before it ever was", () => {
    const pane = new TerminalPane(1, null, null);
    pane.wrote();
    pane.waits();
    expect(pane.attention).toBe("none");
    pane.watched = true;
    pane.wrote();
    expect(pane.waits()).toBe(false);
    expect(pane.attention).toBe("none");
  });

  it("says that there is output, and more so that a program waits, until it is looked at", () => {
    const pane = new TerminalPane(1, null, null);
    pane.watched = true;
    pane.watched = false;
    pane.wrote();
    expect(pane.attention).toBe("unseen");
    expect(pane.waits()).toBe(true);
    pane.wrote();
    expect(pane.attention).toBe("waiting");
    pane.watched = true;
    expect(pane.attention).toBe("none");
  });
});

it("of several the most urgent counts", () => {
  expect(mostOf([])).toBe("none");
  expect(mostOf(["none", "unseen"])).toBe("unseen");
  expect(mostOf(["unseen", "waiting", "none"])).toBe("waiting");
});
