import { beforeEach, describe, expect, it, vi } from "vitest";

import type { FoundFiles } from "../bindings/FoundFiles";
import { type FileName, QuickOpen } from "./quick-open.svelte";
import { Recent } from "./recent.svelte";

interface Asked {
  query: string;
  fresh: boolean;
  answer: (names: string[], settled?: boolean) => Promise<void>;
  refuse: () => Promise<void>;
}

let asked: Asked[];
let opened: FileName[];
let recent: FileName[];
let quick: QuickOpen;

beforeEach(() => {
  vi.useFakeTimers();
  asked = [];
  opened = [];
  recent = [];
  quick = new QuickOpen(
    (query, fresh) =>
      new Promise<FoundFiles>((resolve, reject) => {
        const settle = async (how: () => void) => {
          how();
          await vi.advanceTimersByTimeAsync(0);
        };
        asked.push({
          query,
          fresh,
          answer: (names, settled = true) => settle(() => resolve(found(names, settled))),
          refuse: () => settle(() => reject({ ok: false, error: "AGENT_UNAVAILABLE", message: "gone", hint: "", details: {} })),
        });
      }),
    () => recent,
    (file) => opened.push(file),
  );
});

function found(names: string[], settled: boolean): FoundFiles {
  const entries = names.map((name) => ({ name, path: `/workspace/${name}`, folder: "", name_marks: [], folder_marks: [], ignored: false }));
  return { entries, total: names.length, truncated: false, settled };
}

function names(): string[] {
  return quick.rows.map(({ name, recent: is }) => (is ? `recent ${name}` : name));
}

describe("quick open", () => {
  it("asks with the first letter anew and while one types for what is typed last", async () => {
    quick.show();
    quick.type("a");
    quick.type("ab");
    expect(asked.map(({ query, fresh }) => [query, fresh])).toEqual([["", true]]);
    await asked[0]?.answer(["all"]);
    expect(asked.map(({ query, fresh }) => [query, fresh])).toEqual([
      ["", true],
      ["ab", false],
    ]);
    await asked[1]?.answer(["ab"]);
    expect(names()).toEqual(["ab"]);
    expect(quick.settled).toBe(true);
    expect(asked.length).toBe(2);
  });

  it("asks again until all names are read", async () => {
    quick.show();
    await asked[0]?.answer(["a"], false);
    expect(quick.settled).toBe(false);
    await vi.advanceTimersByTimeAsync(1000);
    await asked[1]?.answer(["a", "b"]);
    await vi.advanceTimersByTimeAsync(1000);
    expect(asked.length).toBe(2);
    expect(names()).toEqual(["a", "b"]);
  });

  it("opens what is typed last, also when Enter is quicker than the answer", async () => {
    quick.show();
    await asked[0]?.answer(["first"]);
    quick.type("x");
    quick.accept();
    expect(opened).toEqual([]);
    await asked[1]?.answer(["x.rs"]);
    expect(opened).toEqual([{ path: "/workspace/x.rs", name: "x.rs" }]);
    expect(quick.shown).toBe(false);
  });

  it("does not open what was not meant any more", async () => {
    quick.show();
    await asked[0]?.answer(["first"]);
    quick.type("x");
    quick.accept();
    quick.type("xy");
    await asked[1]?.answer(["x.rs"]);
    await asked[2]?.answer(["xy.rs"]);
    expect(opened).toEqual([]);
    quick.hide();
    await vi.advanceTimersByTimeAsync(1000);
    expect(asked.length).toBe(3);
  });

  it("shows first what was looked at last, until something is typed", async () => {
    recent = [{ path: "/workspace/src/b", name: "b" }];
    quick.show();
    await asked[0]?.answer(["a", "src/b"]);
    expect(names()).toEqual(["recent b", "a"]);
    expect(quick.rows[0]?.folder).toBe("src");
    quick.move(-1);
    expect(quick.cursor).toBe(1);
    quick.move(1);
    quick.accept();
    expect(opened).toEqual([{ path: "/workspace/src/b", name: "b" }]);
    quick.show();
    quick.type("a");
    await asked[1]?.answer([]);
    await asked[2]?.answer(["a"]);
    expect(names()).toEqual(["a"]);
  });

  it("says why there is no answer, and takes the next one", async () => {
    quick.show();
    await asked[0]?.refuse();
    expect(quick.failure).toBe("gone");
    quick.type("a");
    await asked[1]?.answer(["a"]);
    expect(quick.failure).toBeNull();
    expect(names()).toEqual(["a"]);
  });
});

describe("what was looked at last", () => {
  it("has each file once, the last one first, and survives what cannot be understood", () => {
    const files = new Recent(null);
    for (const name of ["a", "b", "a"]) files.add({ path: `/workspace/${name}`, name });
    const text = files.remembered();
    expect(new Recent(text).files.map(({ name }) => name)).toEqual(["a", "b"]);
    for (let n = 0; n < 40; n += 1) files.add({ path: `/workspace/${n}`, name: `${n}` });
    expect(files.files.length).toBe(12);
    for (const broken of ["", "{}", "[1]", '[{"path":1,"name":"a"}]', "[null]"]) expect(new Recent(broken).files).toEqual([]);
  });
});
