// The terminal's colours and font, read from the design tokens.

import type { ITheme } from "@xterm/xterm";

export function themeFromTokens(): ITheme {
  const token = reader();
  return {
    background: token("--terminal-background"),
    foreground: token("--terminal-text"),
    cursor: token("--accent"),
    cursorAccent: token("--terminal-background"),
    selectionBackground: token("--selection"),
    black: token("--terminal-black"),
    red: token("--terminal-red"),
    green: token("--terminal-green"),
    yellow: token("--terminal-yellow"),
    blue: token("--terminal-blue"),
    magenta: token("--terminal-magenta"),
    cyan: token("--terminal-cyan"),
    white: token("--terminal-white"),
    brightBlack: token("--terminal-bright-black"),
    brightRed: token("--terminal-bright-red"),
    brightGreen: token("--terminal-bright-green"),
    brightYellow: token("--terminal-bright-yellow"),
    brightBlue: token("--terminal-bright-blue"),
    brightMagenta: token("--terminal-bright-magenta"),
    brightCyan: token("--terminal-bright-cyan"),
    brightWhite: token("--terminal-bright-white"),
  };
}

export function fontFromTokens(): { fontFamily: string; fontSize: number } {
  const token = reader();
  return { fontFamily: token("--font-code"), fontSize: Number.parseFloat(token("--size")) };
}

function reader(): (name: string) => string {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(name).trim();
}
