// What the programs of a terminal say to a user who may be looking elsewhere.

import { visibleName } from "../lib/names";

/** The most characters of such a notice that are shown. */
const LONGEST_NOTICE = 200;

/** Returns the words of OSC 9, as iTerm2 has it; null for ConEmu's numbered commands, which have the same beginning. */
export function noticeOf9(data: string): string | null {
  return /^\d+(;|$)/.test(data) ? null : words(data);
}

/** Returns the words of OSC 777, as urxvt has it: `notify;TITLE;BODY`. */
export function noticeOf777(data: string): string | null {
  const [what, title = "", ...body] = data.split(";");
  if (what !== "notify") return null;
  return words([title, body.join(";")].filter((part) => part !== "").join(": "));
}

function words(text: string): string | null {
  const shown = visibleName(text, LONGEST_NOTICE).trim();
  return shown === "" ? null : shown;
}
