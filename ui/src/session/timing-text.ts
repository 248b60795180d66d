// A timing report as plain text, to paste into a message or an issue. It lines up in a monospaced font.

import type { TimingReport } from "../bindings/TimingReport";
import { duration } from "../lib/format";
import { slowdown, slowdownWords, timingRows, totalRow, usualWords } from "./timing";

/** Returns the verdict, what the run was about, and the table. */
export function timingAsText(report: TimingReport, context: Record<string, string> = {}): string {
  const rows = [...timingRows(report), totalRow(report)].map((row) => {
    const factor = slowdown(row);
    return {
      name: `${row.isPart ? "  " : ""}${row.name}`,
      took: duration(row.tookMs),
      usual: usualWords(row.usual),
      words: [...(factor === null ? [] : [slowdownWords(factor)]), ...row.notes].join(", "),
    };
  });
  const all = [{ name: "", took: "took", usual: "usual", words: "" }, ...rows];
  const width = (of: "name" | "took" | "usual") => Math.max(...all.map((row) => row[of].length));
  const [name, took, usual] = [width("name"), width("took"), width("usual")];
  return [
    report.verdict,
    "",
    ...Object.entries(context).map(([key, value]) => `${key}: ${value}`),
    `outcome: ${report.outcome}`,
    "",
    ...all.map((row) =>
      [row.name.padEnd(name), row.took.padStart(took), row.usual.padStart(usual), row.words].join("  ").trimEnd(),
    ),
  ].join("\n");
}
