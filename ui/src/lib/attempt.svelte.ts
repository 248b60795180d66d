// What is asked for at the press of a button: whether it is under way, and why it failed.

import { reportOf } from "./ipc/error";

export class Attempt {
  busy = $state(false);
  failure = $state<string | null>(null);

  /** Does this, and keeps what went wrong. */
  async run(action: () => Promise<unknown>): Promise<void> {
    this.busy = true;
    this.failure = null;
    try {
      await action();
    } catch (thrown) {
      this.failure = reportOf(thrown).message;
    } finally {
      this.busy = false;
    }
  }
}
