// What programs want to put into the clipboard (OSC 52). They are never told what is in it.

/** Returns the text that is to be copied; null where nothing is, or where it is only asked what there is. */
export function copyOf52(data: string): string | null {
  const base64 = data.slice(data.indexOf(";") + 1);
  if (!data.includes(";") || base64 === "" || base64 === "?") return null;
  try {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text === "" ? null : text;
  } catch {
    // Half a text is none.
    return null;
  }
}
