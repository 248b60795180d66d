import { describe, expect, it, vi } from "vitest";

import type { FileEntry } from "../bindings/FileEntry";
import { CommandError, report } from "../lib/ipc/error";
import { FileTree, type ReadDirectory, type Row } from "./tree.svelte";

function entry(name: string, kind: FileEntry["kind"] = "file", more: Partial<FileEntry> = {}): FileEntry {
  return { name, path: `opaque:${name}`, kind, target_kind: null, size: 1, modified_ms: 0, mode: 0o644, ignored: false, unreadable: false, ...more };
}

const ROOT = [
  entry("src", "dir"),
  entry("tests", "dir"),
  entry("link", "symlink", { target_kind: "dir" }),
  entry("a.txt"),
  entry("abc.txt"),
  entry("zed"),
];
const DIRECTORIES: Record<string, FileEntry[]> = {
  "/workspace": ROOT,
  "opaque:src": [entry("main.py")],
  "opaque:tests": [],
  "opaque:link": [entry("inside")],
};

async function loaded() {
  const read = vi.fn((path: string) => Promise.resolve({ entries: DIRECTORIES[path] ?? [], truncated: false }));
  const tree = new FileTree(read);
  await tree.load();
  return { tree, read };
}

const shown = (tree: FileTree) =>
  tree.rows.map((row) => "  ".repeat(row.depth - 1) + words(row));

function words(row: Row): string {
  if (row.kind === "entry") return row.entry.name;
  return row.kind === "draft" ? `[${row.draft.entry?.name ?? row.draft.kind}]` : `(${row.text})`;
}

async function press(tree: FileTree, ...keys: string[]) {
  for (const key of keys) {
    tree.key(key, 0);
    await new Promise((done) => setTimeout(done));
  }
}

describe("lazy reading", () => {
  it("reads a directory when it is opened, with the path as it came", async () => {
    const { tree, read } = await loaded();
    expect(read.mock.calls).toEqual([["/workspace"]]);
    await tree.toggle("opaque:src");
    await tree.toggle("opaque:tests");
    expect(read.mock.calls.slice(1)).toEqual([["opaque:src"], ["opaque:tests"]]);
    expect(shown(tree)).toEqual(["src", "  main.py", "tests", "  (Empty)", "link", "a.txt", "abc.txt", "zed"]);
  });

  it("follows a link to a directory", async () => {
    const { tree } = await loaded();
    await tree.toggle("opaque:link");
    expect(shown(tree)).toContain("  inside");
  });

  it("refreshes what is open and keeps it open", async () => {
    const { tree, read } = await loaded();
    await tree.toggle("opaque:src");
    read.mockClear();
    await tree.refresh();
    expect(read.mock.calls).toEqual([["/workspace"], ["opaque:src"]]);
    expect(shown(tree)[1]).toBe("  main.py");
  });

  it("says what is cut off and what failed, in its place", async () => {
    const tree = new FileTree((path) =>
      path === "/workspace"
        ? Promise.resolve({ entries: [entry("locked", "dir")], truncated: true })
        : Promise.reject(new CommandError(report("FILE_NOT_USABLE", "permission denied", ""))),
    );
    await tree.load();
    await tree.toggle("opaque:locked");
    expect(shown(tree)).toEqual(["locked", "  (permission denied)", "(Only the first 1 are shown)"]);
  });
});

it("of all refreshes that are asked for at once there are two, and it is known when", async () => {
  const { tree, read } = await loaded();
  const before = tree.readAt;
  expect(before).not.toBeNull();
  read.mockClear();
  await Promise.all([tree.freshen(), tree.freshen(), tree.freshen(), tree.freshen()]);
  expect(read.mock.calls).toEqual([["/workspace"], ["/workspace"]]);
  expect(tree.readAt).not.toBe(before);
});

it("whatever a path is called, nothing but the tree knows it", async () => {
  const named = ["__proto__", "constructor", "toString"].map((path) => entry(path, "dir", { path }));
  const tree = new FileTree((path) => Promise.resolve({ entries: path === "/workspace" ? named : [], truncated: false }));
  await tree.load();
  for (const { path } of named) await tree.toggle(path);
  expect(Object.keys(Object.prototype)).toEqual([]);
  expect({}).not.toHaveProperty("open");
});

describe("the keyboard", () => {
  it("goes up and down and stops at the ends", async () => {
    const { tree } = await loaded();
    expect(tree.cursor).toBe("opaque:src");
    await press(tree, "ArrowUp", "ArrowDown", "ArrowDown");
    expect(tree.cursor).toBe("opaque:link");
    await press(tree, "End", "ArrowDown");
    expect(tree.cursor).toBe("opaque:zed");
    await press(tree, "Home");
    expect(tree.cursor).toBe("opaque:src");
  });

  it("opens and enters with right, leaves and closes with left", async () => {
    const { tree } = await loaded();
    await press(tree, "ArrowRight");
    expect(shown(tree)[1]).toBe("  main.py");
    await press(tree, "ArrowRight");
    expect(tree.cursor).toBe("opaque:main.py");
    await press(tree, "ArrowLeft");
    expect(tree.cursor).toBe("opaque:src");
    await press(tree, "ArrowLeft");
    expect(shown(tree)[1]).toBe("tests");
  });

  it("right in an empty directory stays", async () => {
    const { tree } = await loaded();
    await press(tree, "ArrowDown", "ArrowRight", "ArrowRight");
    expect(tree.cursor).toBe("opaque:tests");
  });

  it("Enter opens a file and toggles a directory", async () => {
    const { tree } = await loaded();
    expect(tree.key("Enter", 0).open).toBeNull();
    expect(tree.key("End", 0).handled).toBe(true);
    expect(tree.key("Enter", 0).open?.name).toBe("zed");
  });

  it("finds by typing, and by the same letter again and again", async () => {
    const { tree } = await loaded();
    tree.key("a", 0);
    expect(tree.cursor).toBe("opaque:a.txt");
    tree.key("b", 100);
    expect(tree.cursor).toBe("opaque:abc.txt");
    tree.key("a", 5_000);
    expect(tree.cursor).toBe("opaque:a.txt");
    tree.key("a", 5_100);
    expect(tree.cursor).toBe("opaque:abc.txt");
  });

  it("leaves other keys alone", async () => {
    const { tree } = await loaded();
    expect(tree.key("Tab", 0).handled).toBe(false);
    expect(tree.key("F5", 0).handled).toBe(false);
  });
});

it("the cursor comes back to the beginning when its entry is gone", async () => {
  const left = [entry("a"), entry("b")];
  const tree = new FileTree(() => Promise.resolve({ entries: [...left], truncated: false }));
  await tree.load();
  tree.key("End", 0);
  left.pop();
  await tree.refresh();
  expect(tree.cursor).toBe("opaque:a");
});

it("a directory that is opened again reads what was left open in it, too", async () => {
  const inner = [entry("old")];
  const read: ReadDirectory = (path) => {
    if (path === "opaque:inner") return Promise.resolve({ entries: [...inner], truncated: false });
    return Promise.resolve({ entries: [entry(path === "opaque:outer" ? "inner" : "outer", "dir")], truncated: false });
  };
  const tree = new FileTree(read);
  await tree.load();
  await tree.toggle("opaque:outer");
  await tree.toggle("opaque:inner");
  await tree.toggle("opaque:outer");
  inner.splice(0, 1, entry("new"));
  await tree.toggle("opaque:outer");
  expect(shown(tree)).toEqual(["outer", "  inner", "    new"]);
});

it("reads again only what is open of what has changed", async () => {
  const { tree, read } = await loaded();
  await tree.toggle("opaque:src");
  await tree.toggle("opaque:tests");
  expect(tree.openFolders).toEqual(["/workspace", "opaque:src", "opaque:tests"]);
  await tree.toggle("opaque:tests");
  read.mockClear();
  await tree.renew(["opaque:tests", "opaque:src", "/workspace", "opaque:never", "opaque:a.txt"]);
  expect(read.mock.calls.map(([path]) => path)).toEqual(["opaque:src", "/workspace"]);
});
