// Names as they may be shown: what would be invisible or reorder the line is made visible, and what
// is too long to be read is shortened.

/** Returns a name with control characters as their pictures (`␤`) and hidden ones as `⟨U+202E⟩`. */
export function visibleName(name: string): string {
  let shown = "";
  for (const character of name) shown += visible(character);
  return shown;
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

/** C1 controls, soft hyphen, zero-width and bidirectional formatting, line separators, lone surrogates. */
function isHidden(code: number): boolean {
  return (
    (code >= 0x80 && code <= 0x9f) ||
    code === 0xad ||
    code === 0x61c ||
    code === 0x200b ||
    (code >= 0x200e && code <= 0x200f) ||
    (code >= 0x2028 && code <= 0x202e) ||
    (code >= 0x2060 && code <= 0x2069) ||
    code === 0xfeff ||
    (code >= 0xd800 && code <= 0xdfff)
  );
}
