// What a file may hold that would keep the viewer from drawing it in time.

/** The most marks on one character that are drawn: that of Unicode's stream-safe format. */
const MOST_MARKS = 30;
/** How deep brackets may be nested in a file that is coloured. */
const DEEPEST = 1_000;

/** Returns a text without the marks beyond the thirtieth on a character: layout takes seconds over a long run. */
export function drawable(text: string): string {
  return text.replace(new RegExp(`(\\p{M}{${MOST_MARKS}})\\p{M}+`, "gu"), "$1");
}

/** Returns whether brackets are nested so deep that a grammar would take seconds over them. */
export function isDeep(text: string): boolean {
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    switch (text[at]) {
      case "(":
      case "[":
      case "{":
      case "<":
        depth += 1;
        if (depth > DEEPEST) return true;
        break;
      case ")":
      case "]":
      case "}":
      case ">":
        depth = Math.max(0, depth - 1);
        break;
      default:
    }
  }
  return false;
}
