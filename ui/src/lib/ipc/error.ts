// Failures of commands in their one shape.

import type { ErrorCode } from "../../bindings/ErrorCode";
import type { ErrorReport } from "../../bindings/ErrorReport";

/** A command's rejection, carrying the report that came with it. */
export class CommandError extends Error {
  readonly report: ErrorReport;

  constructor(report: ErrorReport) {
    super(report.message);
    this.name = "CommandError";
    this.report = report;
  }
}

/** Returns the report of whatever was thrown; what is not a report becomes `INTERNAL`. */
export function reportOf(thrown: unknown): ErrorReport {
  if (thrown instanceof CommandError) return thrown.report;
  if (isReport(thrown)) return thrown;
  return report("INTERNAL", wordsOf(thrown), "This is a defect in Cove: copy the details and report it.");
}

export function report(error: ErrorCode, message: string, hint: string): ErrorReport {
  return { ok: false, error, message, hint, details: {} };
}

/** Returns what is wrong with each field, where the failure is about fields. */
export function problemsOf(failure: ErrorReport): Record<string, string> {
  const fields = failure.details["fields"];
  if (typeof fields !== "object" || fields === null) return {};
  const problems: Record<string, string> = {};
  for (const [field, problem] of Object.entries(fields)) {
    if (typeof problem === "string") problems[field] = problem;
  }
  return problems;
}

/** Returns a report as text to paste into a message or an issue. */
export function reportAsText(failure: ErrorReport, context: Record<string, string> = {}): string {
  const lines = [`${failure.error}: ${failure.message}`, failure.hint];
  for (const [name, value] of Object.entries(context)) lines.push(`${name}: ${value}`);
  if (Object.keys(failure.details).length > 0) {
    lines.push(`details: ${JSON.stringify(failure.details, null, 2)}`);
  }
  return lines.join("\n");
}

function isReport(thrown: unknown): thrown is ErrorReport {
  if (typeof thrown !== "object" || thrown === null) return false;
  const candidate = thrown as Partial<Record<keyof ErrorReport, unknown>>;
  return (
    candidate.ok === false &&
    typeof candidate.error === "string" &&
    typeof candidate.message === "string" &&
    typeof candidate.hint === "string" &&
    typeof candidate.details === "object" &&
    candidate.details !== null
  );
}

function wordsOf(thrown: unknown): string {
  if (thrown instanceof Error) return thrown.message;
  if (typeof thrown === "string") return thrown;
  return JSON.stringify(thrown) ?? "something failed without saying what";
}
