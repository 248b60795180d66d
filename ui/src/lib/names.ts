// Names as they may be shown: what would be invisible or reorder the line is made visible, and what
// is too long to be read is shortened.

/** The most characters of a name that are shown: the longest that a file can have. */
export const LONGEST_NAME = 255;
/** The most characters that are shown of what engines, registries and containers say. */
export const LONGEST_WORDS = 2_000;
/** The most marks on one character: that of Unicode's stream-safe format. Layout takes long over more. */
const MOST_MARKS = 30;

/**
 * Returns a name with control characters as their pictures (`␤`) and hidden ones as `⟨U+202E⟩`. Beyond `longest`
 * characters it is cut.
 */
export function visibleName(name: string, longest = LONGEST_NAME): string {
  const shown: string[] = [];
  let taken = 0;
  let marks = 0;
  for (const character of name) {
    if (taken === longest) return `${shown.join("")}…`;
    taken += 1;
    marks = isMark(character) ? marks + 1 : 0;
    if (marks <= MOST_MARKS) shown.push(visible(character));
  }
  return shown.join("");
}

/** Returns words of others fit to be shown: as a name is, but with their lines and without the secrets of addresses. */
export function visibleWords(words: string): string {
  // The cut comes first: nothing else should have to look at megabytes.
  const cut = words.length > 2 * LONGEST_WORDS ? `${words.slice(0, 2 * LONGEST_WORDS)}…` : words;
  const lines = withoutQueries(cut).split("\n", LONGEST_WORDS);
  return visibleName(lines.join("\u2028"), LONGEST_WORDS).replaceAll("⟨U+2028⟩", "\n");
}

/** Returns an address as the browser understands it, so that it can be judged by its host. */
export function visibleAddress(address: string): string {
  return visibleName(URL.canParse(address) ? new URL(address).href : address, 200);
}

/** Signed addresses of registries carry in their query what lets anybody fetch the same. */
function withoutQueries(words: string): string {
  return words.replace(/(\bhttps?:\/\/[^\s?#"'<>`]*)\?[^\s"'<>`]*/g, "$1?…");
}

/** Returns a layer as `docker pull` calls it: the first twelve digits of its digest. */
export function layerName(layer: string): string {
  return visibleName(layer.replace(/^[a-z0-9]+:/, "").slice(0, 12));
}

function visible(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  if (code === 0x0a) return "\u2424";
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  if (isHidden(code)) return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  return character;
}

function isMark(character: string): boolean {
  return /^\p{M}$/u.test(character);
}

/**
 * C1 controls, soft hyphen, fillers and blanks that look like nothing, zero-width and bidirectional formatting, line
 * separators, interlinear and musical controls, tags, lone surrogates. Joiners and variation selectors stay: emoji and
 * several scripts need them.
 */
function isHidden(code: number): boolean {
  return HIDDEN.some(([first, last]) => code >= first && code <= last);
}

const HIDDEN: ReadonlyArray<readonly [first: number, last: number]> = [
  [0x80, 0x9f],
  [0xad, 0xad],
  [0x34f, 0x34f],
  [0x61c, 0x61c],
  [0x115f, 0x1160],
  [0x17b4, 0x17b5],
  [0x180b, 0x180f],
  [0x200b, 0x200b],
  [0x200e, 0x200f],
  [0x2028, 0x202e],
  [0x2060, 0x206f],
  [0x2800, 0x2800],
  [0x3164, 0x3164],
  [0xd800, 0xdfff],
  [0xfeff, 0xfeff],
  [0xffa0, 0xffa0],
  [0xfff0, 0xfffb],
  [0x1bca0, 0x1bca3],
  [0x1d173, 0x1d17a],
  [0xe0000, 0xe01ef],
];
