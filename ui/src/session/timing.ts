// What a timing report says, row by row: the phases, the parts of the pull, the whole. How the rows are
// drawn or written down is not decided here.

import type { PhaseTiming } from "../bindings/PhaseTiming";
import type { PullTiming } from "../bindings/PullTiming";
import type { RunOutcome } from "../bindings/RunOutcome";
import type { TimingReport } from "../bindings/TimingReport";
import { bytes, count, duration } from "../lib/format";
import { PHASE_NAMES } from "./phases";

// What is slow here is what the report's own verdict calls slow: by a factor, and by a time that is felt.
const SLOW_FACTOR = 1.4;
const SLOW_MS = 1_000;
/** No registry is usually silent for longer. */
const FAIR_WAIT_MS = 1_000;

/** Milliseconds; or there is too little known yet; or there is nothing to know. */
export type Usual = number | "unknown" | "none";

export interface TimingRow {
  /** Unique in its report. */
  name: string;
  /** Whether it is a part of the row before it that is none. */
  isPart: boolean;
  tookMs: number;
  usual: Usual;
  /** Milliseconds that nobody would call slow; null while that is not known. */
  fairMs: number | null;
  /** What else there is to say of it. */
  notes: string[];
}

const ENDED_HERE: Record<RunOutcome, string | null> = {
  ready: null,
  failed: "failed here",
  cancelled: "cancelled here",
};

/** Returns the phases in order, with the parts of the pull below theirs. */
export function timingRows({ phases, pull, outcome }: TimingReport): TimingRow[] {
  const worked = phases.filter(({ phase }) => phase !== "Ready");
  return worked.flatMap((timing, index) => {
    const pulled = timing.phase === "PullingImage" ? pull : null;
    const end = index === worked.length - 1 ? ENDED_HERE[outcome] : null;
    return [phaseRow(timing, pulled, end), ...(pulled ? pullRows(pulled, timing.took_ms) : [])];
  });
}

/** Returns the whole run. One that was cut short is not compared with those that were not. */
export function totalRow({ total_ms, usual_ms, outcome }: TimingReport): TimingRow {
  const usual = usual_ms ?? (outcome === "ready" ? "unknown" : "none");
  return { name: "Total", isPart: false, tookMs: total_ms, usual, fairMs: usual_ms, notes: [] };
}

/** Milliseconds beyond what is fair, where it was slow; 0 otherwise. */
export function beyondFair({ tookMs, fairMs }: TimingRow): number {
  if (fairMs === null || tookMs < fairMs * SLOW_FACTOR) return 0;
  const beyond = tookMs - fairMs;
  return beyond >= SLOW_MS ? beyond : 0;
}

/** How many times as long as usual it took, where it was slow; null otherwise. */
export function slowdown(row: TimingRow): number | null {
  return typeof row.usual === "number" && beyondFair(row) > 0 ? row.tookMs / Math.max(1, row.usual) : null;
}

/** `2.4× as long`; whole from ten on. */
export function slowdownWords(factor: number): string {
  return `${factor < 9.95 ? factor.toFixed(1) : Math.round(factor)}× as long`;
}

/** Returns how the usual is written; nothing where there is nothing to know. */
export function usualWords(usual: Usual): string {
  if (usual === "none") return "";
  return usual === "unknown" ? "–" : duration(usual);
}

function phaseRow({ phase, took_ms, usual_ms }: PhaseTiming, pull: PullTiming | null, end: string | null): TimingRow {
  const notes: string[] = [];
  if (end !== null) notes.push(end);
  if (pull?.joined) notes.push("joined a pull already under way");
  if (pull) notes.push(layersWords(pull));
  return { name: PHASE_NAMES[phase], isPart: false, tookMs: took_ms, usual: usual_ms ?? "unknown", fairMs: usual_ms, notes };
}

function pullRows(pull: PullTiming, wholeMs: number): TimingRow[] {
  const overlap = pull.waiting_ms + pull.download_ms + pull.extract_ms > wholeMs;
  const compared = (usual: number | null): Pick<TimingRow, "usual" | "fairMs"> => ({ usual: usual ?? "unknown", fairMs: usual });
  const rows: Array<Omit<TimingRow, "isPart">> = [
    { name: "Waiting for the registry", tookMs: pull.waiting_ms, usual: "none", fairMs: FAIR_WAIT_MS, notes: [] },
    { name: "Download", tookMs: pull.download_ms, ...compared(pull.usual_download_ms), notes: [downloadWords(pull)] },
    {
      name: "Extraction",
      tookMs: pull.extract_ms,
      ...compared(pull.usual_extract_ms),
      notes: overlap ? ["partly during the download"] : [],
    },
  ];
  if (pull.stalled_ms > 0) {
    rows.push({ name: "Stalled", tookMs: pull.stalled_ms, usual: "none", fairMs: 0, notes: ["part of the times above"] });
  }
  return rows.map((row) => ({ ...row, isPart: true }));
}

/** `7 layers, 2 more were there already`. */
function layersWords({ layers, existing_layers }: PullTiming): string {
  if (existing_layers === 0) return count(layers, "layer");
  const more = `${existing_layers} more ${existing_layers === 1 ? "was" : "were"} there already`;
  return `${count(layers, "layer")}, ${more}`;
}

/** `431 MB at 12 MB/s, usually 36 MB/s`. */
function downloadWords({ downloaded_bytes, bytes_per_second, usual_bytes_per_second }: PullTiming): string {
  const rate = bytes_per_second === null ? "" : ` at ${bytes(bytes_per_second)}/s`;
  const usual = usual_bytes_per_second === null ? "" : `, usually ${bytes(usual_bytes_per_second)}/s`;
  return `${bytes(downloaded_bytes)}${rate}${usual}`;
}
