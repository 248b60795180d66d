// How a file indents, by its own lines.

import type { Text } from "@codemirror/state";

export interface Indentation {
  /** What one step is: a tab, or spaces. */
  unit: string;
  /** How many columns a tab takes. */
  tabWidth: number;
}

/** For a file that shows none. */
export const USUAL: Indentation = { unit: "    ", tabWidth: 4 };
/** Lines that are looked at: what they show, the rest of a file does too. */
const MOST_LINES = 2_000;
const WIDEST = 8;

/** Returns what most lines do that are indented further than the one before. */
export function indentationOf(doc: Text): Indentation {
  const steps = new Map<string, number>();
  let before = "";
  for (const line of doc.iterLines(1, Math.min(doc.lines, MOST_LINES) + 1)) {
    const text = line.trimStart();
    // An empty line says nothing, and in a comment's block a star stands one column further.
    if (text === "" || text.startsWith("*")) continue;
    const indent = line.slice(0, line.length - text.length);
    const step = stepOf(before, indent);
    if (step !== null) steps.set(step, (steps.get(step) ?? 0) + 1);
    before = indent;
  }
  let unit = USUAL.unit;
  let most = 0;
  for (const [step, count] of steps) {
    if (count > most || (count === most && step.length < unit.length)) [unit, most] = [step, count];
  }
  return { unit, tabWidth: USUAL.tabWidth };
}

/** Returns by what a line is indented further than the one before, or null. */
function stepOf(before: string, indent: string): string | null {
  if (indent.startsWith("\t")) return indent.length > before.length || before.startsWith(" ") ? "\t" : null;
  const step = indent.length - before.length;
  // One space is an alignment or an accident.
  return /^ *$/.test(indent) && !before.includes("\t") && step > 1 && step <= WIDEST ? " ".repeat(step) : null;
}
