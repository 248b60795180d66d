import { describe, expect, it } from "vitest";

import { AS_USUAL, cutShort, FIRST_RUN, SLOW_PULL, STALLED_PULL } from "../../dev/timings";
import type { TimingReport } from "../bindings/TimingReport";
import { beyondFair, slowdown, slowdownWords, type TimingRow, timingRows, totalRow, usualWords } from "./timing";

function row(tookMs: number, usualMs: number | null): TimingRow {
  return { name: "x", isPart: false, tookMs, usual: usualMs ?? "unknown", fairMs: usualMs, notes: [] };
}

/** A row as `name usual | note | note`, with a dot for a part. */
function drawn({ name, isPart, usual, notes }: TimingRow): string {
  return [`${isPart ? "· " : ""}${name} ${usualWords(usual)}`.trimEnd(), ...notes].join(" | ");
}

/** What was slow, and by how many milliseconds. */
function slow(report: TimingReport): Array<[string, number]> {
  return timingRows(report)
    .map((of): [string, number] => [of.name, beyondFair(of)])
    .filter(([, beyond]) => beyond > 0);
}

describe("the rows", () => {
  it("are the phases in order, with the parts of the pull below theirs", () => {
    expect(timingRows(SLOW_PULL).map(drawn)).toEqual([
      "Starting 0.1 s",
      "Pulling image 16 s | 7 layers, 2 more were there already",
      "· Waiting for the registry",
      "· Download 12 s | 431 MB at 12 MB/s, usually 36 MB/s",
      "· Extraction 7.1 s | partly during the download",
      "Creating volume 40 ms",
      "Creating container 0.2 s",
      "Starting container 0.7 s",
    ]);
  });

  it("say so when the pull was joined, and when it stood still", () => {
    expect(timingRows(STALLED_PULL).slice(1, 6).map(drawn)).toEqual([
      "Pulling image 16 s | joined a pull already under way | 7 layers",
      "· Waiting for the registry",
      "· Download 12 s | 431 MB at 1.8 MB/s, usually 36 MB/s",
      "· Extraction 7.1 s | partly during the download",
      "· Stalled | part of the times above",
    ]);
  });

  it("tell what is not known yet from what there is nothing to know of", () => {
    expect(timingRows(FIRST_RUN).map((of) => of.usual)).toEqual([
      "unknown",
      "unknown",
      "none",
      "unknown",
      "unknown",
      "unknown",
      "unknown",
      "unknown",
    ]);
    expect([totalRow(FIRST_RUN).usual, totalRow(cutShort("failed")).usual, totalRow(SLOW_PULL).usual]).toEqual([
      "unknown",
      "none",
      17_480,
    ]);
  });

  it.each([
    ["failed", "failed here"],
    ["cancelled", "cancelled here"],
  ] as const)("of a run that was %s say where it ended", (outcome, words) => {
    const saying = timingRows(cutShort(outcome)).filter((of) => of.notes.includes(words));
    expect(saying.map((of) => of.name)).toEqual(["Pulling image"]);
  });

  it("leave out what was not done: a pull, and the phase that does no work", () => {
    const report = { ...AS_USUAL, phases: [...AS_USUAL.phases, { phase: "Ready" as const, took_ms: 0, usual_ms: null }] };
    expect(timingRows(report).map((of) => of.name)).toEqual([
      "Starting",
      "Pulling image",
      "Creating volume",
      "Creating container",
      "Starting container",
    ]);
  });

  it("call extraction a part of the download only when both together are longer than the pull", () => {
    const apart: TimingReport = { ...SLOW_PULL, phases: [{ phase: "PullingImage", took_ms: 44_820, usual_ms: null }] };
    expect(timingRows(apart).find((of) => of.name === "Extraction")?.notes).toEqual([]);
  });
});

describe("what took notably longer", () => {
  const figures: Array<[TimingRow, string | null]> = [
    [row(41_200, 16_400), "2.5× as long"],
    [row(252_900, 17_480), "14× as long"],
    [row(99_400, 10_000), "9.9× as long"],
    [row(99_600, 10_000), "10× as long"],
    [row(4_200, 3_000), "1.4× as long"],
    [row(4_190, 3_000), null],
    [row(900, 100), null],
    [row(1_200, 0), "1200× as long"],
    [row(1_000, 17_000), null],
    [row(99_000, null), null],
  ];
  it.each(figures)("%# is said by a factor, where it is felt", (of, words) => {
    const factor = slowdown(of);
    expect(factor === null ? null : slowdownWords(factor)).toBe(words);
  });

  it("is marked by what is beyond the usual; a silent registry and a stall are never usual", () => {
    expect(slow(SLOW_PULL)).toEqual([
      ["Pulling image", 24_800],
      ["Download", 24_300],
    ]);
    expect(slow(STALLED_PULL)).toEqual([
      ["Pulling image", 235_400],
      ["Download", 233_900],
      ["Stalled", 213_400],
    ]);
    expect(slow(cutShort("failed"))).toEqual([["Waiting for the registry", 4_100]]);
    expect([slow(AS_USUAL), slow(FIRST_RUN)]).toEqual([[], []]);
  });
});
