import { beforeEach, describe, expect, it, vi } from "vitest";

import type { FoundFile } from "../bindings/FoundFile";
import type { SearchEnd } from "../bindings/SearchEnd";
import type { SearchNews } from "../bindings/SearchNews";
import type { TextQuery } from "../lib/ipc/commands";
import { type Place, Search } from "./search.svelte";

interface Asked {
  query: TextQuery;
  hear: (news: SearchNews) => void;
  begun: () => Promise<void>;
  refuse: (fields: Record<string, string>) => Promise<void>;
}

let asked: Asked[];
let cancelled: string[];
let opened: Array<{ path: string; place: Place; takesFocus: boolean }>;
let search: Search;

beforeEach(() => {
  vi.useFakeTimers();
  asked = [];
  cancelled = [];
  opened = [];
  search = new Search(
    {
      search: (query, hear) =>
        new Promise<string>((resolve, reject) => {
          const id = String(asked.length);
          const after = async (how: () => void) => {
            how();
            await vi.advanceTimersByTimeAsync(0);
          };
          asked.push({
            query,
            hear,
            begun: () => after(() => resolve(id)),
            refuse: (fields) => after(() => reject({ ok: false, error: "VALIDATION_ERROR", message: "no", hint: "", details: { fields } })),
          });
        }),
      cancel: async (id) => void cancelled.push(id),
    },
    ({ path }, place, takesFocus) => opened.push({ path, place, takesFocus }),
  );
});

function file(path: string, ...numbers: number[]): FoundFile {
  const lines = numbers.map((number) => ({
    number,
    column: 4,
    length: 2,
    text: "x",
    cut_before: false,
    cut_after: false,
    marks: [[0, 1]] as Array<[number, number]>,
    matches: 2,
  }));
  return { name: path.slice(11), path, folder: "", lines };
}

function end(change: Partial<SearchEnd> = {}): SearchNews {
  return { end: { searched: 9, matches: 4, truncated: false, unread: 0, cancelled: false, error: null, ...change } };
}

async function find(text: string, ...files: FoundFile[]): Promise<void> {
  search.text = text;
  search.now();
  await asked.at(-1)?.begun();
  asked.at(-1)?.hear({ files });
  asked.at(-1)?.hear(end());
}

function rows(): string[] {
  return search.rows.map((row) => (row.kind === "file" ? `${row.file.name} (${row.matches})` : String(row.line.number)));
}

describe("a search", () => {
  it("begins a moment after the last letter, and at once by Enter", async () => {
    search.text = "a";
    search.typed();
    await vi.advanceTimersByTimeAsync(200);
    search.text = "ab";
    search.typed();
    await vi.advanceTimersByTimeAsync(200);
    expect(asked).toEqual([]);
    await vi.advanceTimersByTimeAsync(200);
    expect(asked.map(({ query }) => query.query)).toEqual(["ab"]);
    search.text = "abc";
    search.typed();
    search.now();
    await vi.advanceTimersByTimeAsync(1000);
    expect(asked.map(({ query }) => query.query)).toEqual(["ab", "abc"]);
  });

  it("ends the one before, and hears no more of it", async () => {
    search.text = "a";
    search.now();
    await asked[0]?.begun();
    search.toggle("case");
    expect(cancelled).toEqual(["0"]);
    expect(asked[1]?.query).toMatchObject({ query: "a", case: true });
    asked[0]?.hear({ files: [file("/workspace/old", 1)] });
    asked[0]?.hear(end());
    expect(search.files).toEqual([]);
    expect(search.running).toBe(true);
    // One that is dropped before it has its id is ended as soon as it has one.
    search.text = "b";
    search.now();
    await asked[1]?.begun();
    expect(cancelled).toEqual(["0", "1"]);
  });

  it("puts together what is told of a file, in the order of the paths", async () => {
    search.text = "a";
    search.now();
    asked[0]?.hear({ files: [file("/workspace/b", 1, 2)] });
    asked[0]?.hear({ files: [file("/workspace/a", 7), file("/workspace/b", 9)] });
    expect(rows()).toEqual(["a (2)", "7", "b (6)", "1", "2", "9"]);
    expect(search.summary).toBe("8 results in 2 files, searching…");
    asked[0]?.hear(end({ truncated: true, unread: 1 }));
    expect(search.summary).toBe("8 results in 2 files");
    expect(search.remark).toBe("More were found than are shown: narrow the search. 1 file or folder could not be read.");
  });

  it("says that there is nothing, that it was stopped, and what is wrong", async () => {
    await find("a");
    expect(search.summary).toBe("No results");
    search.now();
    await asked.at(-1)?.begun();
    search.stop();
    expect(cancelled.length).toBe(1);
    expect(search.summary).toBe("Stopped before anything was found");
    search.now();
    await asked.at(-1)?.refuse({ query: "is not a regular expression" });
    expect(search.problems).toEqual({ query: "is not a regular expression" });
    expect([search.running, search.failure, search.summary]).toEqual([false, null, ""]);
    search.now();
    await asked.at(-1)?.begun();
    const error = { ok: false, error: "AGENT_UNAVAILABLE", message: "it broke", hint: "", details: {} } as const;
    asked.at(-1)?.hear(end({ error }));
    expect(search.failure).toBe("it broke");
    search.clear();
    expect([search.failure, search.summary, search.text]).toEqual([null, "", ""]);
  });

  it("is gone through by keys, which fold, unfold and open", async () => {
    await find("a", file("/workspace/a", 1, 2), file("/workspace/b", 3));
    for (const key of ["ArrowDown", "ArrowDown", "ArrowDown"]) expect(search.key(key)).toBe(true);
    search.key(" ");
    expect(opened).toEqual([{ path: "/workspace/a", place: { line: 2, column: 4, length: 2 }, takesFocus: false }]);
    search.key("ArrowLeft");
    search.key("ArrowLeft");
    expect(rows()).toEqual(["a (4)", "b (2)", "3"]);
    search.key("End");
    search.key("Enter");
    expect(opened.at(-1)).toEqual({ path: "/workspace/b", place: { line: 3, column: 4, length: 2 }, takesFocus: true });
    search.key("Home");
    search.key("ArrowRight");
    expect(rows().length).toBe(5);
    expect(search.key("x")).toBe(false);
  });

  it("goes from result to result, around the ends", async () => {
    await find("a", file("/workspace/a", 1), file("/workspace/b", 2));
    const lines = (by: 1 | -1) => {
      search.step(by);
      return opened.at(-1)?.place.line;
    };
    expect([lines(1), lines(1), lines(1), lines(-1), lines(-1)]).toEqual([1, 2, 1, 2, 1]);
    search.foldAll();
    search.step(1);
    expect(opened.length).toBe(5);
  });
});
