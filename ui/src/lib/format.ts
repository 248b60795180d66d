// Figures as people read them.

import type { Eta } from "../bindings/Eta";
import type { PullProgress } from "../bindings/PullProgress";

const UNITS = ["B", "kB", "MB", "GB", "TB"] as const;
const MEMORY_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** `0:21`, `12:05`, `1:02:09`. Whole seconds, rounded down. */
export function clock(ms: number): string {
  const total = Math.max(0, Math.floor(ms / 1000));
  const seconds = String(total % 60).padStart(2, "0");
  const minutes = Math.floor(total / 60) % 60;
  const hours = Math.floor(total / 3600);
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, "0")}:${seconds}` : `${minutes}:${seconds}`;
}

/** `44 ms` below a tenth of a second, `0.1 s` below ten, `42 s` below a minute, then `1:05`. */
export function duration(ms: number): string {
  if (ms < 95) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 60_000) return `${Math.floor(ms / 1000)} s`;
  return clock(ms);
}

/** `431 MB`, `1.2 GB`; powers of a thousand, as the engines count. */
export function bytes(count: number): string {
  const unit = unitOf(count);
  return `${inUnit(count, unit)} ${UNITS[unit] ?? "B"}`;
}

/** `512 MiB`, `1.5 GiB`; powers of 1024, as memory is sold, set and limited. */
export function memory(count: number): string {
  let unit = 0;
  while (unit < MEMORY_UNITS.length - 1 && count >= 999.5 * 1024 ** unit) unit += 1;
  const value = count / 1024 ** unit;
  const figure = unit > 0 && value < 9.95 ? value.toFixed(1) : String(Math.round(value));
  return `${figure.endsWith(".0") ? figure.slice(0, -2) : figure} ${MEMORY_UNITS[unit] ?? "B"}`;
}

/** `3 %`, `0.4 %`; a figure below a tenth is `0 %`. */
export function percent(value: number): string {
  return value >= 0.05 && value < 9.95 ? `${value.toFixed(1).replace(/\.0$/, "")} %` : `${Math.round(value)} %`;
}

/**
 * `182 of 431 MB · 24 MB/s · 5 of 9 layers`; `≥` while the total may still grow. When only extraction
 * remains, `extracting 120 of 431 MB · 5 of 9 layers`.
 */
export function pullLine(pull: PullProgress): string {
  const parts: string[] = [];
  const downloading = pull.downloaded_bytes < pull.total_bytes;
  if (pull.total_bytes > 0) {
    const unit = unitOf(pull.total_bytes);
    const extracting = !downloading && pull.total_is_exact && pull.extracted_bytes < pull.total_bytes;
    const done = inUnit(extracting ? pull.extracted_bytes : pull.downloaded_bytes, unit);
    const atLeast = pull.total_is_exact ? "" : "≥ ";
    parts.push(
      `${extracting ? "extracting " : ""}${done} of ${atLeast}${inUnit(pull.total_bytes, unit)} ${UNITS[unit] ?? "B"}`,
    );
  }
  // No rate at all is a stall, and called one elsewhere.
  if (pull.bytes_per_second !== null && pull.bytes_per_second > 0 && downloading) {
    parts.push(`${bytes(pull.bytes_per_second)}/s`);
  }
  if (pull.layers_total > 0) {
    parts.push(`${pull.layers_done} of ${pull.layers_total} ${pull.layers_total === 1 ? "layer" : "layers"}`);
  }
  return parts.join(" · ");
}

/**
 * Words the time left as it is `since` milliseconds after it was heard: it goes on with the clock until
 * the next word. What is left is never under `0:01`, because "0:00 left" is never true while one waits.
 */
export function timeLeft(eta: Eta, since: number): string {
  switch (eta.kind) {
    case "calculating":
      return "calculating…";
    case "point":
      return `about ${clockUp(eta.ms - since)} left`;
    case "range": {
      const low = clock(Math.max(1_000, eta.low_ms - since));
      const high = clockUp(eta.high_ms - since);
      return low === high ? `about ${high} left` : `${low} – ${high} left`;
    }
    case "stalled": {
      const idle = eta.idle_ms + since;
      return `stalled: no data for ${idle < 60_000 ? `${Math.floor(idle / 1000)} s` : clock(idle)}`;
    }
    default:
      return eta satisfies never;
  }
}

function clockUp(ms: number): string {
  return clock(Math.max(1, Math.ceil(ms / 1000)) * 1000);
}

/** `120 of 431 MB`; `120 MB` while the total is not known. */
export function transferred(done: number, total: number | null): string {
  if (total === null || total < done) return bytes(done);
  const unit = unitOf(total);
  return `${inUnit(done, unit)} of ${bytes(total)}`;
}

/** `just now`, `5 minutes ago`, `2 hours ago`, `3 days ago`; a date when that is longer ago. */
export function ago(ms: number, now: number): string {
  const minutes = Math.floor((now - ms) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${count(minutes, "minute")} ago`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${count(hours, "hour")} ago`;
  const days = Math.floor(hours / 24);
  return days <= 30 ? `${count(days, "day")} ago` : `on ${new Date(ms).toLocaleDateString(undefined, { dateStyle: "medium" })}`;
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}

/** The time on this machine's clock, for something that is close. */
export function timeOfDay(ms: number): string {
  return new Date(ms).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
}

export function dateTime(iso: string): string {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return iso;
  return date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

function unitOf(count: number): number {
  let unit = 0;
  while (unit < UNITS.length - 1 && count >= 999.5 * 1000 ** unit) unit += 1;
  return unit;
}

function inUnit(count: number, unit: number): string {
  const value = count / 1000 ** unit;
  const figure = unit >= 3 || (unit > 0 && value > 0 && value < 9.95) ? value.toFixed(1) : String(Math.round(value));
  return figure.endsWith(".0") ? figure.slice(0, -2) : figure;
}
