// Output on its way into the terminal, in slices that take about as long as a frame may: the terminal takes each in
// as a whole, and the same number of bytes can be a microsecond's work or a second's.

/** The first slice, in bytes. */
const FIRST = 8 * 1024;
/** The largest slice, in bytes. */
const LARGEST = 64 * 1024;
/** The smallest slice, in bytes. */
const SMALLEST = 256;
/** A slice that took longer than this is followed by a smaller one, in milliseconds. */
const LONG_MS = 8;
/** How long slices follow each other before the page has its turn, in milliseconds. */
const TURN_MS = 12;
/** The longest pause, in milliseconds: a page that is not on the screen draws no frames. */
const PAUSE_MS = 100;
/** How long the terminal may stand still with output before it is called broken, in milliseconds. */
const BROKEN_MS = 2_000;

/** Writes to a terminal and says when that was taken in. */
type Write = (bytes: Uint8Array | string, taken: () => void) => void;

interface Listener {
  /** So many bytes were taken in. */
  ontaken: (bytes: number) => void;
  /** Something was thrown at the output; the terminal takes no more. Called once. */
  onbroken: (thrown: unknown) => void;
}

/** What waits: output, a pause until the next frame, or something to be done when all before is taken in. */
type Waiting = Uint8Array | "pause" | (() => void);

export class Feed {
  readonly #write: Write;
  readonly #listener: Listener;
  readonly #now: () => number;
  readonly #queue: Waiting[] = [];
  readonly #state: { slice: number; busy: boolean; over: boolean; steps: number; watched: boolean; thrown: unknown } = {
    slice: FIRST,
    busy: false,
    over: false,
    steps: 0,
    watched: false,
    thrown: null,
  };

  constructor(write: Write, listener: Listener, now: () => number = () => performance.now()) {
    this.#write = write;
    this.#listener = listener;
    this.#now = now;
  }

  /** Takes output, which comes in any size. */
  push(bytes: Uint8Array): void {
    this.#add(bytes);
  }

  /** Lets the page draw what came so far before more is taken in. */
  pause(): void {
    this.#add("pause");
  }

  /** Calls back when all that came so far is taken in. */
  then(done: () => void): void {
    this.#add(done);
  }

  /** Notes what the page says was thrown: if the terminal then stands still, that is why. */
  heard(thrown: unknown): void {
    this.#state.thrown = thrown;
  }

  end(): void {
    this.#state.over = true;
    this.#queue.length = 0;
  }

  #add(waiting: Waiting): void {
    if (this.#state.over) return;
    this.#queue.push(waiting);
    if (!this.#state.busy) this.#turn();
  }

  /** Takes in for as long as a turn may last. */
  #turn(): void {
    if (this.#state.over) return;
    this.#state.busy = true;
    if (!this.#state.watched) this.#watch();
    try {
      // The terminal takes this in when it gets to it, and what is written from there at once.
      this.#write("", () => this.#slices(this.#now()));
    } catch (thrown) {
      this.#break(thrown);
    }
  }

  #slices(begin: number): void {
    if (this.#state.over) return;
    this.#state.steps += 1;
    const before = this.#now();
    const next = this.#queue[0];
    if (next === undefined) {
      this.#state.busy = false;
    } else if (next === "pause") {
      this.#queue.shift();
      afterFrame(() => this.#turn());
    } else if (typeof next === "function") {
      this.#queue.shift();
      next();
      this.#slices(begin);
    } else if (before - begin >= TURN_MS) {
      // A new turn begins when the terminal has left its own.
      queueMicrotask(() => this.#turn());
    } else {
      const slice = this.#slice(next);
      this.#write(slice, () => {
        this.#judge(slice.length, this.#now() - before);
        this.#listener.ontaken(slice.length);
        this.#slices(begin);
      });
    }
  }

  #slice(bytes: Uint8Array): Uint8Array {
    const slice = bytes.subarray(0, this.#state.slice);
    if (slice.length === bytes.length) this.#queue.shift();
    else this.#queue[0] = bytes.subarray(slice.length);
    return slice;
  }

  #judge(bytes: number, took: number): void {
    const { slice } = this.#state;
    if (took > LONG_MS) this.#state.slice = Math.max(SMALLEST, Math.floor(Math.min(slice, bytes) / 2));
    else if (took < LONG_MS / 4) this.#state.slice = Math.min(LARGEST, slice * 2);
  }

  /** A terminal that throws at its output takes no more and says nothing. */
  #watch(): void {
    const { steps } = this.#state;
    this.#state.watched = true;
    setTimeout(() => {
      const { over, busy, thrown } = this.#state;
      this.#state.watched = false;
      if (over || !busy) return;
      // However busy the page is, the terminal's own turn was due before this one.
      if (this.#state.steps === steps) this.#break(thrown);
      else this.#watch();
    }, BROKEN_MS);
  }

  #break(thrown: unknown): void {
    if (this.#state.over) return;
    this.end();
    this.#listener.onbroken(thrown);
  }
}

function afterFrame(then: () => void): void {
  const state = { over: false };
  const once = () => {
    if (state.over) return;
    state.over = true;
    clearTimeout(timer);
    then();
  };
  const timer = setTimeout(once, PAUSE_MS);
  // Behind the frame, not in it.
  requestAnimationFrame(() => setTimeout(once));
}
