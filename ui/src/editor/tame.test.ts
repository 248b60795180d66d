import { expect, it } from "vitest";

import { drawable, isDeep } from "./tame";

it("a run of marks is cut, and nothing else", () => {
  expect(drawable(`a${"\u0301".repeat(500_000)}b`)).toBe(`a${"\u0301".repeat(30)}b`);
  for (const text of ["", "plain", "e\u0301\u0323 हिन्दी ส้้ שָׁלוֹם", "\u0301".repeat(30)]) expect(drawable(text)).toBe(text);
});

it.each([
  ["[".repeat(1_000_000), true],
  ["<a>".repeat(2_000), false],
  ["{[(".repeat(400), true],
  ["()[]{}".repeat(10_000), false],
  [")".repeat(5_000) + "[".repeat(900), false],
])("%#", (text, deep) => expect(isDeep(text)).toBe(deep));
