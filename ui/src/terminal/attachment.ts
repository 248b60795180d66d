// The two directions of a terminal's connection: keystrokes in order, and output that is acknowledged
// as it is rendered. Counters live in objects, because closures over several awaits share them.

/** Unacknowledged output is reported at the latest after so many rendered bytes. */
export const ACK_EVERY_BYTES = 96 * 1024;

/** Sends what is typed, one write at a time; what is typed meanwhile goes together in the next. */
export class Keystrokes {
  readonly #send: (data: string) => Promise<void>;
  readonly #lost: (thrown: unknown) => void;
  readonly #queue = { text: "", sending: false };

  constructor(send: (data: string) => Promise<void>, lost: (thrown: unknown) => void) {
    this.#send = send;
    this.#lost = lost;
  }

  push(data: string): void {
    this.#queue.text += data;
    if (!this.#queue.sending) void this.#drain();
  }

  async #drain(): Promise<void> {
    this.#queue.sending = true;
    try {
      while (this.#queue.text !== "") {
        const text = this.#queue.text;
        this.#queue.text = "";
        await this.#send(text);
      }
    } catch (thrown) {
      this.#queue.text = "";
      this.#lost(thrown);
    } finally {
      this.#queue.sending = false;
    }
  }
}

/** Counts what has been rendered and says so: every so many bytes, and when nothing is waiting. */
export class Rendered {
  readonly #ack: (bytes: number) => Promise<void>;
  readonly #count = { received: 0, rendered: 0, acknowledged: 0, asking: false };

  constructor(ack: (bytes: number) => Promise<void>) {
    this.#ack = ack;
  }

  received(bytes: number): void {
    this.#count.received += bytes;
  }

  rendered(bytes: number): void {
    this.#count.rendered += bytes;
    if (!this.#count.asking && this.#due()) void this.#drain();
  }

  #due(): boolean {
    const { received, rendered, acknowledged } = this.#count;
    const waiting = rendered - acknowledged;
    return waiting >= ACK_EVERY_BYTES || (waiting > 0 && rendered === received);
  }

  async #drain(): Promise<void> {
    this.#count.asking = true;
    try {
      while (this.#due()) {
        const { rendered } = this.#count;
        await this.#ack(rendered);
        this.#count.acknowledged = rendered;
      }
    } catch {
      // The terminal is gone, and its exit says so.
    } finally {
      this.#count.asking = false;
    }
  }
}

/** Keeps only the newest of what is asked while one is under way. */
export class Newest<T> {
  readonly #send: (value: T) => Promise<void>;
  readonly #state: { next: { value: T } | null; sending: boolean } = { next: null, sending: false };

  constructor(send: (value: T) => Promise<void>) {
    this.#send = send;
  }

  push(value: T): void {
    this.#state.next = { value };
    if (!this.#state.sending) void this.#drain();
  }

  async #drain(): Promise<void> {
    this.#state.sending = true;
    try {
      while (this.#state.next !== null) {
        const { value } = this.#state.next;
        this.#state.next = null;
        await this.#send(value);
      }
    } catch {
      // A size that could not be told is told again with the next change.
    } finally {
      this.#state.sending = false;
    }
  }
}
