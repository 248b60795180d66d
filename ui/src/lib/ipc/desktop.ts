// What the window asks of the desktop around it: taskbar progress, clipboard, the browser.

import { getCurrentWindow, ProgressBarStatus } from "@tauri-apps/api/window";
import { openUrl as openWithSystem } from "@tauri-apps/plugin-opener";

export type System = "linux" | "macos" | "windows";

/** Shows a percentage on the window's taskbar entry, or nothing. Not every desktop can. */
export async function showTaskbarProgress(percent: number | null): Promise<void> {
  try {
    await getCurrentWindow().setProgressBar(
      percent === null
        ? { status: ProgressBarStatus.None }
        : { status: ProgressBarStatus.Normal, progress: Math.round(percent) },
    );
  } catch {
    // Progress is shown in the window too: a desktop that has no place for it loses nothing.
  }
}

/** Opens a web page in the user's browser; other kinds of address are refused. */
export async function openUrl(url: string): Promise<void> {
  if (!/^https?:\/\//i.test(url)) return;
  await openWithSystem(url);
}

export async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyThroughSelection(text);
  }
}

export function currentSystem(): System {
  const agent = navigator.userAgent;
  if (/Windows/i.test(agent)) return "windows";
  if (/Mac OS|Macintosh/i.test(agent)) return "macos";
  return "linux";
}

/** The older way, for web views that keep the clipboard from scripts. */
function copyThroughSelection(text: string): void {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.setAttribute("aria-hidden", "true");
  area.style.position = "fixed";
  area.style.opacity = "0";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
}
