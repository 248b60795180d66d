// Timing reports of runs that are worth looking at.

import type { PullTiming } from "../src/bindings/PullTiming";
import type { TimingReport } from "../src/bindings/TimingReport";

const MEGA = 1_000_000;

const PULLED: PullTiming = {
  joined: false,
  layers: 7,
  existing_layers: 2,
  downloaded_bytes: 431 * MEGA,
  waiting_ms: 820,
  download_ms: 36_400,
  usual_download_ms: 12_100,
  extract_ms: 7_600,
  usual_extract_ms: 7_100,
  stalled_ms: 0,
  bytes_per_second: 11_840_000,
  usual_bytes_per_second: 35_620_000,
};

/** A download at a third of the usual rate. */
export const SLOW_PULL: TimingReport = {
  outcome: "ready",
  total_ms: 42_310,
  usual_ms: 17_480,
  phases: [
    { phase: "Starting", took_ms: 120, usual_ms: 110 },
    { phase: "PullingImage", took_ms: 41_200, usual_ms: 16_400 },
    { phase: "CreatingVolume", took_ms: 44, usual_ms: 40 },
    { phase: "CreatingContainer", took_ms: 210, usual_ms: 190 },
    { phase: "StartingContainer", took_ms: 740, usual_ms: 690 },
  ],
  pull: PULLED,
  verdict: "The download was slow: 11.8 MB/s, where 35.6 MB/s is usual.",
};

/** Joined late, and then stood still for longer than it moved. */
export const STALLED_PULL: TimingReport = {
  ...SLOW_PULL,
  total_ms: 252_900,
  phases: SLOW_PULL.phases.map((timing) => (timing.phase === "PullingImage" ? { ...timing, took_ms: 251_800 } : timing)),
  pull: {
    ...PULLED,
    joined: true,
    existing_layers: 0,
    waiting_ms: 1_900,
    download_ms: 246_000,
    extract_ms: 9_100,
    stalled_ms: 213_400,
    bytes_per_second: 1_752_000,
  },
  verdict: "The pull stood still for 213.4 s.",
};

/** The first run on this machine: nothing to compare it with. */
export const FIRST_RUN: TimingReport = {
  ...SLOW_PULL,
  usual_ms: null,
  phases: SLOW_PULL.phases.map((timing) => ({ ...timing, usual_ms: null })),
  pull: { ...PULLED, existing_layers: 0, usual_download_ms: null, usual_extract_ms: null, usual_bytes_per_second: null },
  verdict: "Most of the time went into the download (36.4 s at 11.8 MB/s).",
};

/** Nothing was pulled and nothing was slow. */
export const AS_USUAL: TimingReport = {
  ...SLOW_PULL,
  total_ms: 1_094,
  usual_ms: 1_030,
  phases: SLOW_PULL.phases.map((timing) => (timing.phase === "PullingImage" ? { ...timing, took_ms: 12, usual_ms: 11 } : timing)),
  pull: null,
  verdict: "Nothing took notably longer than usual.",
};

/** Ended in the midst of a pull. */
export function cutShort(outcome: "failed" | "cancelled"): TimingReport {
  return {
    outcome,
    total_ms: 9_420,
    usual_ms: null,
    phases: [
      { phase: "Starting", took_ms: 120, usual_ms: 110 },
      { phase: "PullingImage", took_ms: 9_300, usual_ms: 16_400 },
    ],
    pull: { ...PULLED, layers: 3, downloaded_bytes: 50 * MEGA, waiting_ms: 5_100, download_ms: 4_200, extract_ms: 900 },
    verdict: "The registry took 5.1 s to send the first byte.",
  };
}
