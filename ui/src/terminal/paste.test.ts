import { expect, it } from "vitest";

import { firstLines, LONGEST_PASTE, pasteOf } from "./paste";

it.each([
  ["echo safe\x1b[201~\r touch x\r", true, { kind: "now", text: "echo safe[201~\r touch x\r" }],
  ["echo safe\x9b201~\r touch x\r", true, { kind: "now", text: "echo safe201~\r touch x\r" }],
  ["a\tb", false, { kind: "now", text: "a\tb" }],
  ["\x03\x04\x7f", false, { kind: "nothing" }],
  ["", false, { kind: "nothing" }],
  ["echo one\n touch x\n", false, { kind: "ask", text: "echo one\n touch x\n", lines: 2 }],
  ["echo one\r\necho two", false, { kind: "ask", text: "echo one\r\necho two", lines: 2 }],
  ["rm x\n", false, { kind: "ask", text: "rm x\n", lines: 1 }],
  ["a\nb", true, { kind: "now", text: "a\nb" }],
  ["x".repeat(LONGEST_PASTE + 1), true, { kind: "too-long", length: LONGEST_PASTE + 1 }],
])("%#", (text, bracketed, expected) => expect(pasteOf(text, bracketed)).toEqual(expected));

it("shows where a long paste begins", () => {
  const { shown, more } = firstLines("line\n".repeat(20));
  expect([shown.length, more]).toEqual([12, 8]);
  expect(firstLines("one\r\n")).toEqual({ shown: ["one"], more: 0 });
});
