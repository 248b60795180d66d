import { expect, it } from "vitest";

import { isSplit, stepOf } from "./keys";

function key(init: KeyboardEventInit): KeyboardEvent {
  return new KeyboardEvent("keydown", init);
}

it("a split is where 5 is on the keyboard, whatever it writes", () => {
  expect(isSplit(key({ ctrlKey: true, shiftKey: true, code: "Digit5", key: "%" }))).toBe(true);
  expect(isSplit(key({ ctrlKey: true, code: "Digit5", key: "5" }))).toBe(false);
  expect(isSplit(key({ ctrlKey: true, shiftKey: true, altKey: true, code: "Digit5", key: "%" }))).toBe(false);
});

it("arrows lead along the row or the stack, and no other arrow is taken from the shell", () => {
  const alt = (name: string, more: KeyboardEventInit = {}) => key({ altKey: true, key: name, ...more });
  expect(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].map((name) => stepOf(alt(name), false, false))).toEqual([-1, 1, null, null]);
  expect(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].map((name) => stepOf(alt(name), true, false))).toEqual([null, null, -1, 1]);
  expect(stepOf(key({ key: "ArrowLeft" }), false, false)).toBe(null);
  expect(stepOf(alt("ArrowLeft", { ctrlKey: true }), false, false)).toBe(null);
  expect(stepOf(alt("ArrowLeft"), false, true)).toBe(null);
  expect(stepOf(alt("ArrowLeft", { metaKey: true }), false, true)).toBe(-1);
});
