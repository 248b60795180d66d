// When a figure is so near its limit that the user should know, and in which words.

import type { Figures } from "../bindings/Figures";
import type { Usage } from "../bindings/Usage";
import { bytes, memory } from "../lib/format";

/** From this share of its limit on, a figure is near it. */
const NEAR = 0.9;
/** Below this share of a disk, what is free on it is little. */
const LITTLE_FREE = 0.05;

export type Measured = "memory" | "pids" | "disk";

export interface Warning {
  of: Measured;
  /** For the status bar, `Memory 93 %`. */
  short: string;
  /** What will happen, in a sentence. */
  words: string;
}

/** Returns what is near its limit, the most pressing first. */
export function warningsOf(figures: Figures | null, usage: Usage | null): Warning[] {
  const warnings: Warning[] = [];
  const inMemory = share(figures?.memory ?? null, figures?.memory_limit ?? null);
  if (inMemory !== null && inMemory >= NEAR) {
    warnings.push({
      of: "memory",
      short: `Memory ${floored(inMemory)} %`,
      words: `Near the limit of ${memory(figures?.memory_limit ?? 0)}: when it is used up, a program is ended.`,
    });
  }
  const running = share(figures?.pids ?? null, figures?.pids_limit ?? null);
  if (running !== null && running >= NEAR) {
    warnings.push({
      of: "pids",
      short: `Processes ${floored(running)} %`,
      words: "Near the limit: when it is reached, no program can start.",
    });
  }
  const free = share(usage?.free_bytes ?? null, usage?.disk_bytes ?? null);
  if (free !== null && free < LITTLE_FREE) {
    warnings.push({
      of: "disk",
      short: "Disk almost full",
      words: `Only ${bytes(usage?.free_bytes ?? 0)} are free on the engine's disk.`,
    });
  }
  return warnings;
}

/** Returns which part of a whole is used; null when one of them is not known. */
export function share(used: number | null, whole: number | null): number | null {
  return used === null || whole === null || whole <= 0 ? null : used / whole;
}

/** 99.6 per cent are not yet all. */
function floored(part: number): number {
  return Math.min(100, Math.floor(part * 100));
}
