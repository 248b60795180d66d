import { describe, expect, it } from "vitest";

import { bytes, clock, count, duration, pullLine, timeLeft } from "./format";

const pull = {
  fraction: 0.4,
  downloaded_bytes: 182_000_000,
  total_bytes: 431_000_000,
  total_is_exact: true,
  bytes_per_second: 24_000_000,
  layers_done: 5,
  layers_total: 9,
};

describe("figures", () => {
  it.each([
    [0, "0:00"],
    [999, "0:00"],
    [21_400, "0:21"],
    [725_000, "12:05"],
    [3_729_000, "1:02:09"],
    [-5, "0:00"],
  ])("elapsed %d ms reads %s", (ms, text) => expect(clock(ms)).toBe(text));

  it.each([
    [0, "0 ms"],
    [44, "44 ms"],
    [95, "0.1 s"],
    [9_940, "9.9 s"],
    [9_960, "9 s"],
    [17_400, "17 s"],
    [65_000, "1:05"],
  ])("a phase of %d ms took %s", (ms, text) => expect(duration(ms)).toBe(text));

  it.each([
    [null, "calculating…"],
    [0, "about 0:01 left"],
    [11_200, "about 0:12 left"],
    [12_000, "about 0:12 left"],
    [125_000, "about 2:05 left"],
  ])("an estimate of %o ms reads %s", (eta, text) => expect(timeLeft(eta)).toBe(text));

  it.each([
    [0, "0 B"],
    [999, "999 B"],
    [1_000, "1 kB"],
    [1_500, "1.5 kB"],
    [431_000_000, "431 MB"],
    [999_600_000, "1 GB"],
    [1_240_000_000, "1.2 GB"],
  ])("%d bytes read %s", (n, text) => expect(bytes(n)).toBe(text));

  it("counts one and many", () => {
    expect([count(1, "session"), count(0, "session"), count(2, "entry", "entries")]).toEqual([
      "1 session",
      "0 sessions",
      "2 entries",
    ]);
  });
});

describe("the pull line", () => {
  it.each([
    [pull, "182 of 431 MB · 24 MB/s · 5 of 9 layers"],
    [{ ...pull, total_is_exact: false }, "182 of ≥ 431 MB · 24 MB/s · 5 of 9 layers"],
    [{ ...pull, bytes_per_second: null }, "182 of 431 MB · 5 of 9 layers"],
    [{ ...pull, downloaded_bytes: 431_000_000 }, "431 of 431 MB · 5 of 9 layers"],
    [{ ...pull, total_bytes: 0, layers_total: 1, layers_done: 0, bytes_per_second: null }, "0 of 1 layer"],
    [{ ...pull, total_bytes: 0, layers_total: 0, bytes_per_second: null }, ""],
  ])("%#", (figures, text) => expect(pullLine(figures)).toBe(text));
});
