// The question when the window is closed while sessions are being set up.

import type { ErrorReport } from "../bindings/ErrorReport";
import type { LeaveChoice } from "../lib/ipc/commands";
import { reportOf } from "../lib/ipc/error";

export class Leaving {
  /** How many are being set up; null when nothing is asked. */
  running = $state<number | null>(null);
  /** What was answered, until the other side has heard it. */
  answering = $state<LeaveChoice | null>(null);
  failure = $state.raw<ErrorReport | null>(null);

  /** Whether any of them was seen here, so that seeing none means that they ended. */
  #seen = false;
  readonly #leave: (choice: LeaveChoice) => Promise<void>;

  constructor(leave: (choice: LeaveChoice) => Promise<void>) {
    this.#leave = leave;
  }

  ask(running: number): void {
    this.#seen = false;
    this.failure = null;
    this.running = running;
  }

  /** Follows how many are running here. When all have ended there is nothing left to ask. */
  follow(running: number): void {
    if (this.running === null) return;
    if (running > 0) {
      this.#seen = true;
      this.running = running;
    } else if (this.#seen) void this.answer("stay");
  }

  async answer(choice: LeaveChoice): Promise<void> {
    if (this.running === null || this.answering !== null) return;
    this.answering = choice;
    this.failure = null;
    try {
      await this.#leave(choice);
      this.running = null;
    } catch (thrown) {
      this.failure = reportOf(thrown);
    } finally {
      this.answering = null;
    }
  }
}
