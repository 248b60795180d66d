import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { Settling } from "./settling";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function follow() {
  const settled = vi.fn();
  const settling = new Settling(settled);
  const rest = (ms: number) => vi.advanceTimersByTime(ms);
  return { settling, rest, times: () => settled.mock.calls.length };
}

it("output that comes to rest after Enter is the end of a command, and so is what comes later", () => {
  const { settling, rest, times } = follow();
  settling.typed("touch x\r");
  for (let n = 0; n < 5; n += 1) {
    settling.heard();
    rest(100);
  }
  expect(times()).toBe(0);
  rest(1_000);
  expect(times()).toBe(1);
  settling.heard();
  rest(1_000);
  expect(times()).toBe(2);
});

it("the echo of what is typed is none", () => {
  const { settling, rest, times } = follow();
  settling.typed("ls\r");
  settling.typed("\x1b[1;1R");
  settling.heard();
  rest(1_000);
  settling.typed("v");
  settling.heard();
  rest(1_000);
  expect(times()).toBe(1);
});

it("nothing is heard of a terminal that is gone", () => {
  const { settling, rest, times } = follow();
  settling.typed("\r");
  settling.heard();
  settling.end();
  rest(1_000);
  expect(times()).toBe(0);
});
