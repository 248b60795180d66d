// What is pasted into a terminal. It may come from a page that owns the clipboard: controls in it could end
// the brackets that a shell knows a paste by, and a shell without them runs each line at once.

/** The most characters that are pasted; more belongs into a file. */
export const LONGEST_PASTE = 4 * 1024 * 1024;
/** The most lines that are shown before they are pasted. */
const SHOWN_LINES = 12;

export type Paste =
  | { kind: "nothing" }
  | { kind: "now"; text: string }
  /** Several lines, or one with its Enter, into what would run them at once. */
  | { kind: "ask"; text: string; lines: number }
  | { kind: "too-long"; length: number };

/** Returns what is to be done with a text; `bracketed` says that the program knows a paste from typing. */
export function pasteOf(text: string, bracketed: boolean): Paste {
  if (text.length > LONGEST_PASTE) return { kind: "too-long", length: text.length };
  const clean = withoutControls(text);
  if (clean === "") return { kind: "nothing" };
  const breaks = clean.split(/\r\n|\r|\n/).length - 1;
  if (bracketed || breaks === 0) return { kind: "now", text: clean };
  return { kind: "ask", text: clean, lines: /[\r\n]$/.test(clean) ? breaks : breaks + 1 };
}

/** Returns the first lines of a paste, for showing. */
export function firstLines(text: string): { shown: string[]; more: number } {
  const lines = text.replace(/(\r\n|\r|\n)$/, "").split(/\r\n|\r|\n/);
  return { shown: lines.slice(0, SHOWN_LINES), more: Math.max(0, lines.length - SHOWN_LINES) };
}

/** Takes out C0 and C1 controls, save tab and line breaks. */
function withoutControls(text: string): string {
  // eslint-disable-next-line no-control-regex -- they are what it is about
  return text.replace(/[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g, "");
}
