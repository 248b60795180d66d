// The question when the app is to end while sessions are being set up or their files exported.

import type { ErrorReport } from "../bindings/ErrorReport";
import { count } from "../lib/format";
import type { LeaveChoice } from "../lib/ipc/commands";
import { reportOf } from "../lib/ipc/error";
import type { UnderWay } from "../lib/ipc/events";

export class Leaving {
  /** What is under way; null when nothing is asked. */
  underWay = $state.raw<UnderWay | null>(null);
  /** What was answered, until the other side has heard it. */
  answering = $state<LeaveChoice | null>(null);
  failure = $state.raw<ErrorReport | null>(null);

  /** Whether any of that was seen here, so that seeing none means that all has ended. */
  #seen = false;
  readonly #leave: (choice: LeaveChoice) => Promise<void>;

  constructor(leave: (choice: LeaveChoice) => Promise<void>) {
    this.#leave = leave;
  }

  readonly title = $derived.by(() => {
    const { running, exporting, transferring } = this.underWay ?? { running: 0, exporting: 0, transferring: 0 };
    const parts = [
      ...(running > 0 ? [`${count(running, "session")} ${running === 1 ? "is" : "are"} being set up`] : []),
      ...(exporting > 0 ? [`${count(exporting, "export")} ${exporting === 1 ? "is" : "are"} under way`] : []),
      ...(transferring > 0 ? [`${count(transferring, "transfer")} ${transferring === 1 ? "is" : "are"} under way`] : []),
    ];
    return parts.join(", ");
  });

  ask(underWay: UnderWay): void {
    this.#seen = false;
    this.failure = null;
    this.underWay = underWay;
  }

  /** Follows what is under way here. When all has ended there is nothing left to ask. */
  follow(underWay: UnderWay): void {
    const asked = this.underWay;
    if (asked === null) return;
    const { running, exporting, transferring } = underWay;
    if (running + exporting + transferring > 0) {
      this.#seen = true;
      const isAsAsked = running === asked.running && exporting === asked.exporting && transferring === asked.transferring;
      if (!isAsAsked) this.underWay = underWay;
    } else if (this.#seen) void this.answer("stay");
  }

  async answer(choice: LeaveChoice): Promise<void> {
    if (this.underWay === null || this.answering !== null) return;
    this.answering = choice;
    this.failure = null;
    try {
      await this.#leave(choice);
      this.underWay = null;
    } catch (thrown) {
      this.failure = reportOf(thrown);
    } finally {
      this.answering = null;
    }
  }
}
