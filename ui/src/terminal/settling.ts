// The moments at which a command may have changed files: output that comes to rest after Enter, until something
// else is typed.

/** How long output rests before it counts as at rest. */
const REST_MS = 400;

export class Settling {
  readonly #settled: () => void;
  readonly #state: { running: boolean; timer: ReturnType<typeof setTimeout> | undefined } = {
    running: false,
    timer: undefined,
  };

  constructor(settled: () => void) {
    this.#settled = settled;
  }

  typed(data: string): void {
    // What the terminal answers by itself begins so, and arrow keys do.
    if (!data.startsWith("\x1b")) this.#state.running = data.includes("\r");
  }

  heard(): void {
    clearTimeout(this.#state.timer);
    if (this.#state.running) this.#state.timer = setTimeout(this.#settled, REST_MS);
  }

  end(): void {
    clearTimeout(this.#state.timer);
  }
}
