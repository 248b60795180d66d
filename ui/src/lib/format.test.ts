import { describe, expect, it } from "vitest";

import type { Eta } from "../bindings/Eta";
import { ago, bytes, clock, count, duration, memory, percent, pullLine, timeLeft, transferred } from "./format";

const pull = {
  fraction: 0.4,
  downloaded_bytes: 182_000_000,
  total_bytes: 431_000_000,
  total_is_exact: true,
  extracted_bytes: 0,
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
    [0, "0 B"],
    [462_848, "452 KiB"],
    [33_882_112, "32 MiB"],
    [64 * 1024 ** 2, "64 MiB"],
    [512 * 1024 ** 2, "512 MiB"],
    [1_000 * 1024 ** 2, "1 GiB"],
    [1.5 * 1024 ** 3, "1.5 GiB"],
    [64 * 1024 ** 3, "64 GiB"],
  ])("memory of %d bytes reads %s", (count, text) => expect(memory(count)).toBe(text));

  it.each([
    [0, "0 %"],
    [0.04, "0 %"],
    [0.4, "0.4 %"],
    [3, "3 %"],
    [3.06, "3.1 %"],
    [9.96, "10 %"],
    [250.2, "250 %"],
  ])("%d per cent reads %s", (value, text) => expect(percent(value)).toBe(text));

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
    [0, "0 B"],
    [999, "999 B"],
    [1_000, "1 kB"],
    [1_500, "1.5 kB"],
    [431_000_000, "431 MB"],
    [999_600_000, "1 GB"],
    [1_240_000_000, "1.2 GB"],
  ])("%d bytes read %s", (n, text) => expect(bytes(n)).toBe(text));

  it.each([
    [120_000_000, 431_000_000, "120 of 431 MB"],
    [400, 1_240_000_000, "0 of 1.2 GB"],
    [120_000_000, null, "120 MB"],
    [120_000_000, 100_000_000, "120 MB"],
  ])("%d of %o bytes read %s", (done, total, text) => expect(transferred(done, total)).toBe(text));

  it.each([
    [-5, "just now"],
    [59_000, "just now"],
    [60_000, "1 minute ago"],
    [2 * 3_600_000 + 1, "2 hours ago"],
    [3 * 86_400_000, "3 days ago"],
    [400 * 86_400_000, /^on .*1970/],
  ])("%d ms later it is %s", (since, text) => expect(ago(0, since)).toMatch(text));

  it("counts one and many", () => {
    expect([count(1, "session"), count(0, "session"), count(2, "entry", "entries")]).toEqual([
      "1 session",
      "0 sessions",
      "2 entries",
    ]);
  });
});

const CALCULATING: Eta = { kind: "calculating" };
const point = (ms: number): Eta => ({ kind: "point", ms });
const range = (low_ms: number, high_ms: number): Eta => ({ kind: "range", low_ms, high_ms });
const stalled = (idle_ms: number): Eta => ({ kind: "stalled", idle_ms, layer: null });

describe("the time left", () => {
  const heardNow: Array<[Eta, string]> = [
    [CALCULATING, "calculating…"],
    [point(0), "about 0:01 left"],
    [point(11_200), "about 0:12 left"],
    [point(12_000), "about 0:12 left"],
    [point(125_000), "about 2:05 left"],
    [range(10_900, 24_100), "0:10 – 0:25 left"],
    [range(200, 3_000), "0:01 – 0:03 left"],
    [range(58_000, 61_000), "0:58 – 1:01 left"],
    [range(12_000, 12_000), "about 0:12 left"],
    [range(0, 800), "about 0:01 left"],
    [stalled(3_000), "stalled: no data for 3 s"],
    [stalled(12_900), "stalled: no data for 12 s"],
    [stalled(75_000), "stalled: no data for 1:15"],
  ];
  it.each(heardNow)("%o reads %s", (eta, text) => expect(timeLeft(eta, 0)).toBe(text));

  const later: Array<[Eta, number, string]> = [
    [CALCULATING, 9_000, "calculating…"],
    [point(12_000), 999, "about 0:12 left"],
    [point(12_000), 1_000, "about 0:11 left"],
    [point(12_000), 60_000, "about 0:01 left"],
    [range(10_000, 25_000), 4_000, "0:06 – 0:21 left"],
    [range(10_000, 25_000), 20_000, "0:01 – 0:05 left"],
    [range(10_000, 25_000), 60_000, "about 0:01 left"],
    [stalled(12_900), 100, "stalled: no data for 13 s"],
    [stalled(58_000), 2_000, "stalled: no data for 1:00"],
  ];
  it.each(later)("%o goes on with the clock, and after %d ms reads %s", (eta, since, text) =>
    expect(timeLeft(eta, since)).toBe(text),
  );
});

const downloaded = { ...pull, downloaded_bytes: 431_000_000 };

describe("the pull line", () => {
  it.each([
    [pull, "182 of 431 MB · 24 MB/s · 5 of 9 layers"],
    [{ ...pull, total_is_exact: false }, "182 of ≥ 431 MB · 24 MB/s · 5 of 9 layers"],
    [{ ...pull, bytes_per_second: null }, "182 of 431 MB · 5 of 9 layers"],
    [{ ...pull, bytes_per_second: 0 }, "182 of 431 MB · 5 of 9 layers"],
    [{ ...pull, downloaded_bytes: 431_000_000, total_is_exact: false }, "431 of ≥ 431 MB · 5 of 9 layers"],
    [{ ...pull, total_bytes: 0, layers_total: 1, layers_done: 0, bytes_per_second: null }, "0 of 1 layer"],
    [{ ...pull, total_bytes: 0, layers_total: 0, bytes_per_second: null }, ""],
    [{ ...downloaded, extracted_bytes: 120_000_000 }, "extracting 120 of 431 MB · 5 of 9 layers"],
    [{ ...downloaded, extracted_bytes: 431_000_000, layers_done: 9 }, "431 of 431 MB · 9 of 9 layers"],
    [{ ...pull, extracted_bytes: 120_000_000 }, "182 of 431 MB · 24 MB/s · 5 of 9 layers"],
  ])("%#", (figures, text) => expect(pullLine(figures)).toBe(text));
});
