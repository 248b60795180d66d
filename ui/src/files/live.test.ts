import { beforeEach, describe, expect, it, vi } from "vitest";

import { Live } from "./live.svelte";

let asked: Array<{ paths: string[]; answer: (limited?: boolean) => Promise<void>; refuse: () => Promise<void> }>;
let renewed: string[][];
let reading: (() => void) | null;
let slow: boolean;
let live: Live;

const settle = () => vi.advanceTimersByTimeAsync(0);

beforeEach(() => {
  vi.useFakeTimers();
  asked = [];
  renewed = [];
  reading = null;
  slow = false;
  live = new Live(
    (paths) =>
      new Promise((resolve, reject) => {
        asked.push({
          paths,
          answer: async (limited = false) => {
            resolve({ limited });
            await settle();
          },
          refuse: async () => {
            reject(new Error("gone"));
            await settle();
          },
        });
      }),
    (paths) => {
      renewed.push(paths);
      return slow ? new Promise((resolve) => (reading = resolve)) : Promise.resolve();
    },
  );
});

const changed = (paths: string[], overflowed = false) => live.hear({ session_id: "s", paths, overflowed });

describe("what follows the disk", () => {
  it("watches what is shown last, one request at a time, and reads again what is new in it", async () => {
    void live.show(["/workspace"]);
    void live.show(["/workspace", "/workspace/a"]);
    void live.show(["/workspace", "/workspace/b"]);
    expect(asked.map(({ paths }) => paths)).toEqual([["/workspace"]]);
    expect(live.following).toBe("none");
    await asked[0]?.answer();
    expect(asked.map(({ paths }) => paths)).toEqual([["/workspace"], ["/workspace", "/workspace/b"]]);
    await asked[1]?.answer();
    expect(live.following).toBe("all");
    await vi.advanceTimersByTimeAsync(1000);
    expect(renewed).toEqual([["/workspace"], ["/workspace/b"]]);
    // What is watched already is not asked for again.
    void live.show(["/workspace/b", "/workspace"]);
    await settle();
    expect(asked.length).toBe(2);
  });

  it("has a change read at once, and what comes meanwhile together after a rest", async () => {
    void live.show(["a", "b"]);
    await asked[0]?.answer();
    await vi.advanceTimersByTimeAsync(1000);
    renewed = [];
    slow = true;
    changed(["a"]);
    await settle();
    expect(renewed).toEqual([["a"]]);
    for (let n = 0; n < 1000; n += 1) changed([n % 2 ? "a" : "b", "not shown"]);
    await vi.advanceTimersByTimeAsync(300);
    expect(renewed.length).toBe(1);
    // It took 300 ms, so that there is a rest of 600.
    slow = false;
    reading?.();
    await vi.advanceTimersByTimeAsync(590);
    expect(renewed.length).toBe(1);
    await vi.advanceTimersByTimeAsync(20);
    expect(renewed).toEqual([["a"], ["a", "b"]]);
  });

  it("says when it follows only some, or was overrun, or does not follow", async () => {
    void live.show(["a"]);
    await asked[0]?.answer(true);
    expect(live.following).toBe("some");
    expect(live.overflowedAt).toBeNull();
    changed(["a"], true);
    expect(live.overflowedAt).not.toBeNull();
    void live.show(["a", "b"]);
    await asked[1]?.refuse();
    expect(live.following).toBe("none");
    // It is tried again with whatever is shown next, even if that is the same.
    void live.show(["a", "b"]);
    await asked[2]?.answer();
    expect(live.following).toBe("all");
    // And as soon as there is news, which says that somebody watches.
    void live.show(["a", "c"]);
    await asked[3]?.refuse();
    expect(live.following).toBe("none");
    changed(["a"]);
    await asked[4]?.answer();
    expect(live.following).toBe("all");
    void live.show([]);
    await asked[5]?.answer();
    expect(live.following).toBe("none");
  });
});
