// The keys of terminals beside each other, as in VS Code; all others belong to the programs.

/** Returns whether a key splits the tab. By its place, because with Shift it is another character on each keyboard. */
export function isSplit(event: KeyboardEvent): boolean {
  return event.ctrlKey && event.shiftKey && !event.altKey && !event.metaKey && event.code === "Digit5";
}

/** Returns which way a key leads from one terminal to another: along the row that they are in, or the stack. */
export function stepOf(event: KeyboardEvent, stacked: boolean, isMac: boolean): 1 | -1 | null {
  // On macOS, Option with an arrow is a word's length in every shell.
  if (!event.altKey || event.ctrlKey || event.shiftKey || event.metaKey !== isMac) return null;
  const [back, on] = stacked ? ["ArrowUp", "ArrowDown"] : ["ArrowLeft", "ArrowRight"];
  if (event.key === on) return 1;
  return event.key === back ? -1 : null;
}
