import { describe, expect, it, vi } from "vitest";

import { ACK_EVERY_BYTES, Keystrokes, Newest, Rendered, Settled, WAITING } from "./attachment";

/** A send whose answers come when the test says so. */
function slow<T>() {
  const sent: T[] = [];
  const answers: Array<{ resolve: () => void; reject: (reason: unknown) => void }> = [];
  const send = (value: T) => {
    sent.push(value);
    return new Promise<void>((resolve, reject) => answers.push({ resolve, reject }));
  };
  const settle = async (how: "resolve" | "reject" = "resolve") => {
    answers.shift()?.[how](new Error("gone"));
    await new Promise((done) => setTimeout(done));
  };
  return { sent, send, settle };
}

describe("keystrokes", () => {
  it("go one write at a time, and what is typed meanwhile goes together", async () => {
    const { sent, send, settle } = slow<string>();
    const keys = new Keystrokes(send, () => expect.fail("nothing is lost here"));
    for (const key of "abc") keys.push(key);
    expect(sent).toEqual(["a"]);
    await settle();
    expect(sent).toEqual(["a", "bc"]);
    keys.push("d");
    await settle();
    expect(sent).toEqual(["a", "bc", "d"]);
    await settle();
    keys.push("e");
    expect(sent).toEqual(["a", "bc", "d", "e"]);
  });

  it("that cannot be written are reported once, and later ones are tried again", async () => {
    const { sent, send, settle } = slow<string>();
    const lost = vi.fn();
    const keys = new Keystrokes(send, lost);
    keys.push("a");
    keys.push("b");
    await settle("reject");
    expect([sent, lost.mock.calls.length]).toEqual([["a"], 1]);
    keys.push("c");
    expect(sent).toEqual(["a", "c"]);
  });
});

describe("what the terminal answers by itself", () => {
  it("goes as bytes, in order with what is typed", async () => {
    const sent: Array<[string, string]> = [];
    const keys = new Keystrokes(
      async (data, encoding) => {
        await Promise.resolve();
        sent.push([data, encoding]);
      },
      () => expect.fail("nothing is lost here"),
    );
    keys.push("a");
    keys.pushBytes("\x1b[M\xe9\x80 ");
    keys.push("b");
    keys.push("c");
    await new Promise((done) => setTimeout(done));
    expect(sent).toEqual([
      ["a", "utf-8"],
      [btoa("\x1b[M\xe9\x80 "), "base64"],
      ["bc", "utf-8"],
    ]);
  });

  it("does not pile up without a limit where nobody reads it", async () => {
    const reading = { begin: () => {} };
    const read = new Promise<void>((resolve) => (reading.begin = resolve));
    const lengths: number[] = [];
    const keys = new Keystrokes(
      async (data) => {
        lengths.push(data.length);
        await read;
      },
      () => expect.fail("nothing is lost here"),
    );
    for (let n = 0; n < 200; n += 1) keys.push("x".repeat(100_000));
    reading.begin();
    await new Promise((done) => setTimeout(done));
    expect(lengths.reduce((sum, length) => sum + length)).toBeLessThanOrEqual(WAITING + 100_000);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(100_000);
  });
});

it("a long paste goes in pieces, and no character is cut", async () => {
  const sent: string[] = [];
  const keys = new Keystrokes(
    async (data) => {
      await Promise.resolve();
      sent.push(data);
    },
    () => expect.fail("nothing is lost here"),
  );
  const text = `a${"🚀".repeat(100_000)}`;
  keys.push(text);
  await new Promise((done) => setTimeout(done, 10));
  expect(sent.join("")).toBe(text);
  expect(sent.length).toBeGreaterThan(2);
  for (const piece of sent) expect(new TextDecoder().decode(new TextEncoder().encode(piece))).toBe(piece);
});

describe("acknowledging", () => {
  it("says the total when nothing is waiting", async () => {
    const { sent, send, settle } = slow<number>();
    const rendered = new Rendered(send);
    rendered.received(10);
    rendered.received(5);
    rendered.rendered(10);
    expect(sent).toEqual([]);
    rendered.rendered(5);
    expect(sent).toEqual([15]);
    await settle();
    rendered.received(1);
    rendered.rendered(1);
    expect(sent).toEqual([15, 16]);
  });

  it("says it every so many bytes while more is waiting, one at a time", async () => {
    const { sent, send, settle } = slow<number>();
    const rendered = new Rendered(send);
    const chunk = 64 * 1024;
    rendered.received(10 * chunk);
    for (let n = 0; n < 6; n += 1) rendered.rendered(chunk);
    expect(sent).toEqual([2 * chunk]);
    expect(2 * chunk).toBeGreaterThanOrEqual(ACK_EVERY_BYTES);
    await settle();
    expect(sent).toEqual([2 * chunk, 6 * chunk]);
    for (let n = 0; n < 4; n += 1) rendered.rendered(chunk);
    await settle();
    expect(sent).toEqual([2 * chunk, 6 * chunk, 10 * chunk]);
  });

  it("ends with exactly what was received, whatever the order of answers", async () => {
    let last = 0;
    const rendered = new Rendered(async (bytes) => {
      await Promise.resolve();
      expect(bytes).toBeGreaterThan(last);
      last = bytes;
    });
    let total = 0;
    for (let n = 1; n <= 500; n += 1) {
      rendered.received(n * 37);
      total += n * 37;
      await Promise.resolve();
      rendered.rendered(n * 37);
    }
    await new Promise((done) => setTimeout(done));
    expect(last).toBe(total);
  });
});

it("of the sizes asked for while one is under way only the newest is sent", async () => {
  const { sent, send, settle } = slow<number>();
  const sizes = new Newest(send);
  for (const size of [1, 2, 3, 4]) sizes.push(size);
  expect(sent).toEqual([1]);
  await settle("reject");
  expect(sent).toEqual([1]);
  sizes.push(5);
  expect(sent).toEqual([1, 5]);
});

it("of sizes that follow each other soon, the first and the one that it comes to rest at are passed on", () => {
  vi.useFakeTimers();
  try {
    const passed: number[] = [];
    const sizes = new Settled<number>((size) => passed.push(size));
    for (const size of [1, 2, 3, 4]) {
      sizes.push(size);
      vi.advanceTimersByTime(50);
    }
    expect(passed).toEqual([1]);
    vi.advanceTimersByTime(100);
    expect(passed).toEqual([1, 4]);
    sizes.push(5);
    expect(passed).toEqual([1, 4, 5]);
    sizes.push(6);
    sizes.end();
    vi.advanceTimersByTime(1_000);
    expect(passed).toEqual([1, 4, 5]);
  } finally {
    vi.useRealTimers();
  }
});
