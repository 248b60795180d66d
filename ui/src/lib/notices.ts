// Notices on the desktop, for a user who is in another window.

/** The shortest time between two of one session: programs can ring a bell as fast as they write. */
const PAUSE_MS = 10_000;

export class Notices {
  readonly #show: (sessionId: string, notice: string | null) => Promise<void>;
  /** By a session's id, when the last one was shown. */
  readonly #shown = new Map<string, number>();

  constructor(show: (sessionId: string, notice: string | null) => Promise<void>) {
    this.#show = show;
  }

  /** Says that a program of a session waits, unless the window is in front. */
  say(sessionId: string, notice: string | null, now = performance.now()): void {
    const last = this.#shown.get(sessionId) ?? -Infinity;
    if (document.hasFocus() || now - last < PAUSE_MS) return;
    this.#shown.set(sessionId, now);
    // The mark in the window says it too.
    this.#show(sessionId, notice).catch(() => {});
  }
}
