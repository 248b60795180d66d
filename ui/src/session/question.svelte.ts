// A dialog that asks one thing about a session: its new name, its image, the name of its copy. It says
// what was wrong with the answer, and sends one at a time.

import type { ErrorReport } from "../bindings/ErrorReport";
import { problemsOf, reportOf } from "../lib/ipc/error";
import type { Session } from "./session.svelte";

export class Question {
  /** About which session; null when nothing is asked. */
  session = $state.raw<Session | null>(null);
  answer = $state("");
  problem = $state<string | null>(null);
  /** What went wrong that is not about the answer. */
  failure = $state.raw<ErrorReport | null>(null);
  submitting = $state(false);

  /** What the other side calls the answer. */
  readonly #field: string;
  readonly #send: (session: Session, answer: string) => Promise<unknown>;

  constructor(field: string, send: (session: Session, answer: string) => Promise<unknown>) {
    this.#field = field;
    this.#send = send;
  }

  show(session: Session, answer: string): void {
    if (this.submitting) return;
    this.session = session;
    this.answer = answer;
    this.problem = null;
    this.failure = null;
  }

  close(): void {
    this.session = null;
  }

  async submit(): Promise<void> {
    const { session } = this;
    if (session === null || this.submitting) return;
    this.submitting = true;
    this.problem = null;
    this.failure = null;
    try {
      await this.#send(session, this.answer.trim());
      this.session = null;
    } catch (thrown) {
      const failure = reportOf(thrown);
      this.problem = problemsOf(failure)[this.#field] ?? null;
      this.failure = this.problem === null ? failure : null;
    } finally {
      this.submitting = false;
    }
  }
}
