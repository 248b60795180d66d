// The two directions of a terminal's connection: keystrokes in order, and output that is acknowledged
// as it is rendered. Counters live in objects, because closures over several awaits share them.

/** Unacknowledged output is reported at the latest after so many rendered bytes. */
export const ACK_EVERY_BYTES = 96 * 1024;

/** The most characters of one write. */
const WRITE = 64 * 1024;
/** The most characters that may wait to be written: programs can make the terminal answer without reading it. */
export const WAITING = 8 * 1024 * 1024;

/** What was typed as text, or what the terminal answers as bytes (in base64). */
type Typed = { data: string; encoding: "utf-8" | "base64" };

/** Sends what is typed, one write at a time; what is typed meanwhile goes together in the next. */
export class Keystrokes {
  readonly #send: (data: string, encoding: Typed["encoding"]) => Promise<void>;
  readonly #lost: (thrown: unknown) => void;
  readonly #queue: { waiting: Typed[]; length: number; sending: boolean } = { waiting: [], length: 0, sending: false };

  constructor(send: (data: string, encoding: Typed["encoding"]) => Promise<void>, lost: (thrown: unknown) => void) {
    this.#send = send;
    this.#lost = lost;
  }

  push(text: string): void {
    this.#add({ data: text, encoding: "utf-8" });
  }

  /** Sends bytes; each character of `binary` is one. */
  pushBytes(binary: string): void {
    this.#add({ data: btoa(binary), encoding: "base64" });
  }

  #add(typed: Typed): void {
    if (this.#queue.length + typed.data.length > WAITING) return;
    this.#queue.length += typed.data.length;
    const last = this.#queue.waiting.at(-1);
    if (last?.encoding === "utf-8" && typed.encoding === "utf-8") last.data += typed.data;
    else this.#queue.waiting.push(typed);
    if (!this.#queue.sending) void this.#drain();
  }

  async #drain(): Promise<void> {
    this.#queue.sending = true;
    try {
      for (let next = this.#take(); next !== null; next = this.#take()) {
        await this.#send(next.data, next.encoding);
      }
    } catch (thrown) {
      this.#queue.waiting = [];
      this.#queue.length = 0;
      this.#lost(thrown);
    } finally {
      this.#queue.sending = false;
    }
  }

  #take(): Typed | null {
    const first = this.#queue.waiting[0];
    if (first === undefined) return null;
    const { encoding } = first;
    const data = encoding === "utf-8" ? beginning(first.data, WRITE) : first.data;
    first.data = first.data.slice(data.length);
    if (first.data === "") this.#queue.waiting.shift();
    this.#queue.length -= data.length;
    return { data, encoding };
  }
}

/** Returns at most so many characters of a text, and both halves of a pair or none. */
function beginning(text: string, length: number): string {
  const isHalf = text.length > length && /[\ud800-\udbff]/.test(text.charAt(length - 1));
  return text.slice(0, isHalf ? length - 1 : length);
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

/** How long something rests before it counts as settled. */
const REST_MS = 100;

/** Passes on the first of a row of values at once, and of those that follow soon only the one that it comes to rest at. */
export class Settled<T> {
  readonly #pass: (value: T) => void;
  readonly #state: { last: { value: T } | null; timer: ReturnType<typeof setTimeout> | undefined } = {
    last: null,
    timer: undefined,
  };

  constructor(pass: (value: T) => void) {
    this.#pass = pass;
  }

  push(value: T): void {
    if (this.#state.timer === undefined) this.#pass(value);
    else this.#state.last = { value };
    clearTimeout(this.#state.timer);
    this.#state.timer = setTimeout(() => this.#rest(), REST_MS);
  }

  end(): void {
    clearTimeout(this.#state.timer);
  }

  #rest(): void {
    const { last } = this.#state;
    this.#state.last = null;
    this.#state.timer = undefined;
    if (last !== null) this.#pass(last.value);
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
