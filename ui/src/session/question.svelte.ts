// A dialog that asks one thing about a session: its new name, its image, the name of its copy. It says
// what was wrong with the answer, and sends one at a time.

import type { ErrorReport } from "../bindings/ErrorReport";
import { problemsOf, reportOf } from "../lib/ipc/error";
import type { Run } from "./run.svelte";

export class Question {
  /** About which session; null when nothing is asked. */
  run = $state.raw<Run | null>(null);
  answer = $state("");
  problem = $state<string | null>(null);
  /** What went wrong that is not about the answer. */
  failure = $state.raw<ErrorReport | null>(null);
  submitting = $state(false);

  /** What the other side calls the answer. */
  readonly #field: string;
  readonly #send: (run: Run, answer: string) => Promise<unknown>;

  constructor(field: string, send: (run: Run, answer: string) => Promise<unknown>) {
    this.#field = field;
    this.#send = send;
  }

  show(run: Run, answer: string): void {
    if (this.submitting) return;
    this.run = run;
    this.answer = answer;
    this.problem = null;
    this.failure = null;
  }

  close(): void {
    this.run = null;
  }

  async submit(): Promise<void> {
    const { run } = this;
    if (run === null || this.submitting) return;
    this.submitting = true;
    this.problem = null;
    this.failure = null;
    try {
      await this.#send(run, this.answer.trim());
      this.run = null;
    } catch (thrown) {
      const failure = reportOf(thrown);
      this.problem = problemsOf(failure)[this.#field] ?? null;
      this.failure = this.problem === null ? failure : null;
    } finally {
      this.submitting = false;
    }
  }
}
