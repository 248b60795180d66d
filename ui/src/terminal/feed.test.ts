import { Terminal } from "@xterm/xterm";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { Feed } from "./feed";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

/** A terminal that takes in what is written as xterm.js does: later, one after the other, what is written meanwhile too. */
function terminal(cost: (bytes: Uint8Array) => number) {
  const clock = { now: 0 };
  const seen = { slices: [] as number[], turns: 0, text: "" };
  const waiting: Array<{ bytes: Uint8Array | string; taken: () => void }> = [];
  const takeIn = () => {
    seen.turns += 1;
    for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
      if (typeof next.bytes !== "string") {
        clock.now += cost(next.bytes);
        seen.slices.push(next.bytes.length);
        seen.text += new TextDecoder().decode(next.bytes);
      }
      next.taken();
      waiting.shift();
    }
  };
  const write = (bytes: Uint8Array | string, taken: () => void) => {
    waiting.push({ bytes, taken });
    if (waiting.length === 1) setTimeout(takeIn);
  };
  return { write, now: () => clock.now, seen };
}

function feed(cost: (bytes: Uint8Array) => number) {
  const { write, now, seen } = terminal(cost);
  const listener = { ontaken: vi.fn(), onbroken: vi.fn() };
  return { feed: new Feed(write, listener, now), listener, seen };
}

const bytes = (text: string) => new TextEncoder().encode(text);
const LONG = bytes("all of it, in order. ".repeat(20_000));

describe("output on its way into the terminal", () => {
  it("arrives whole and in order, and is told as it is taken in", async () => {
    const { feed: fed, listener, seen } = feed(() => 0);
    for (let at = 0; at < LONG.length; at += 50_001) fed.push(LONG.subarray(at, at + 50_001));
    const over = vi.fn();
    fed.then(() => over(seen.text.length));
    await vi.runAllTimersAsync();
    expect(seen.text).toBe(new TextDecoder().decode(LONG));
    expect(listener.ontaken.mock.calls.reduce((sum, [taken]) => sum + Number(taken), 0)).toBe(LONG.length);
    expect(over).toHaveBeenCalledExactlyOnceWith(LONG.length);
    expect(listener.onbroken).not.toHaveBeenCalled();
    expect(seen.turns).toBe(1);
  });

  it("that is much work goes in small slices, and plain output after it in large ones", async () => {
    const { feed: fed, seen } = feed((slice) => slice.length * (slice[0] === 35 ? 0.01 : 0.000_01));
    fed.push(bytes("#".repeat(1_000_000)));
    await vi.runAllTimersAsync();
    expect(Math.max(...seen.slices.slice(8))).toBeLessThanOrEqual(1_000);
    expect(seen.turns).toBeGreaterThan(50);
    const before = seen.turns;
    seen.slices = [];
    fed.push(LONG);
    await vi.runAllTimersAsync();
    expect(Math.max(...seen.slices)).toBeGreaterThan(60_000);
    expect(seen.turns - before).toBeLessThan(5);
  });

  it("waits for the next frame at a pause, also where none is drawn", async () => {
    const frames: FrameRequestCallback[] = [];
    vi.stubGlobal("requestAnimationFrame", (frame: FrameRequestCallback) => frames.push(frame));
    const { feed: fed, seen } = feed(() => 0);
    fed.push(bytes("a"));
    fed.pause();
    fed.push(bytes("b"));
    fed.pause();
    fed.push(bytes("c"));
    await vi.advanceTimersByTimeAsync(50);
    expect(seen.text).toBe("a");
    frames.shift()?.(0);
    await vi.advanceTimersByTimeAsync(10);
    expect(seen.text).toBe("ab");
    await vi.advanceTimersByTimeAsync(200);
    expect(seen.text).toBe("abc");
    vi.unstubAllGlobals();
  });

  it("that the terminal throws at is said once, with what was thrown", async () => {
    const listener = { ontaken: vi.fn(), onbroken: vi.fn() };
    // What xterm.js does when its parser throws: the rest stays where it is, for good.
    const fed = new Feed((slice, taken) => void (slice === "" && setTimeout(taken)), listener);
    fed.push(LONG);
    fed.heard(new Error("no such row"));
    await vi.advanceTimersByTimeAsync(10_000);
    fed.push(LONG);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(listener.onbroken.mock.calls).toEqual([[new Error("no such row")]]);
  });
});

it("the terminal's own library takes it all in", async () => {
  vi.useRealTimers();
  const xterm = new Terminal({ allowProposedApi: true, scrollback: 0 });
  const listener = { ontaken: vi.fn(), onbroken: vi.fn() };
  const fed = new Feed((slice, taken) => xterm.write(slice, taken), listener);
  for (let n = 0; n < 20; n += 1) {
    fed.push(LONG.subarray(0, 30_000));
    fed.pause();
  }
  fed.push(bytes("\r\nthe end é"));
  await new Promise<void>((done) => fed.then(done));
  const { active } = xterm.buffer;
  expect(active.getLine(active.cursorY)?.translateToString(true)).toBe("the end é");
  expect(listener.onbroken).not.toHaveBeenCalled();
  xterm.dispose();
});
