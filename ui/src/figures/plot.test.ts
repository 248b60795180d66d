import { expect, it } from "vitest";

import { areaOf, lineOf, mostOf, runsOf } from "./plot";

const FRAME = { width: 100, height: 10, now: 100_000, span: 100_000, most: 20 };

it("draws time from left to right and values from the bottom up", () => {
  const runs = runsOf([{ at: 90_000, value: 0 }, { at: 95_000, value: 10 }, { at: 100_000, value: 20 }], FRAME);
  expect(runs).toEqual([[[90, 10], [95, 5], [100, 0]]]);
  expect(lineOf(runs[0] ?? [])).toBe("M90 10L95 5L100 0");
  expect(areaOf(runs[0] ?? [], 10)).toBe("M90 10L95 5L100 0L100 10L90 10Z");
  expect(areaOf([], 10)).toBe("");
});

it("leaves out what is older, interrupts the line where nothing was measured, and stays in its frame", () => {
  const points = [
    { at: -1, value: 5 },
    { at: 10_000, value: 5 },
    { at: 11_000, value: null },
    { at: 12_000, value: 5 },
    { at: 60_000, value: 500 },
  ];
  expect(runsOf(points, FRAME)).toEqual([[[10, 7.5]], [[12, 7.5]], [[60, 0]]]);
});

it.each([
  ["nothing yet", [], 10, null, 10],
  ["a little above the highest", [40], 10, 1000, 50],
  ["the limit, when that is near", [70], 10, 100, 100],
  ["no less than the highest, whatever the limit says", [120], 10, 100, 150],
])("the upper edge is %s", (_, values, floor, limit, most) => {
  expect(mostOf(values.map((value, at) => ({ at, value })), floor, limit)).toBe(most);
});
