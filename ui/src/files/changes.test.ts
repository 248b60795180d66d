import { beforeEach, describe, expect, it, vi } from "vitest";

import type { FileEntry } from "../bindings/FileEntry";
import { CommandError, report } from "../lib/ipc/error";
import { Changes, type FileActions } from "./changes.svelte";
import { FileTree, stemLength, type Row } from "./tree.svelte";

/** A small disk: what it holds by path, `null` for a folder. */
let disk: Map<string, null | "file">;
let trash: Map<string, string[][]>;
let tree: FileTree;
let changes: Changes;
let deleted: Array<{ names: string[]; undo: () => void }>;
let hushed: number;

function refused(code: "CONFLICT" | "FILE_NOT_FOUND", message: string): CommandError {
  return new CommandError(report(code, message, "Choose another name."));
}

const nameOf = (path: string) => path.slice(path.lastIndexOf("/") + 1);
const folderOf = (path: string) => path.slice(0, path.lastIndexOf("/"));

function entriesOf(folder: string): FileEntry[] {
  return [...disk.keys()]
    .filter((path) => folderOf(path) === folder)
    .map((path) => {
      const kind = disk.get(path) === null ? ("dir" as const) : ("file" as const);
      return { name: nameOf(path), path, kind, target_kind: null, size: 0, modified_ms: 0, mode: 0o644, ignored: false, unreadable: false };
    })
    .sort((a, b) => a.kind.localeCompare(b.kind) || a.name.localeCompare(b.name));
}

function carry(from: string, to: string, keep: boolean): string {
  if (!disk.has(from)) throw refused("FILE_NOT_FOUND", `there is no file \`${from}\``);
  if (disk.has(to)) throw refused("CONFLICT", `there is something at \`${to}\` already`);
  for (const [path, kind] of [...disk]) {
    if (path !== from && !path.startsWith(`${from}/`)) continue;
    disk.set(to + path.slice(from.length), kind);
    if (!keep) disk.delete(path);
  }
  return to;
}

const actions: FileActions = {
  create: vi.fn(async (folder, name, kind) => {
    const path = `${folder}/${name}`;
    if (disk.has(path)) throw refused("CONFLICT", `there is something at \`${path}\` already`);
    disk.set(path, kind === "dir" ? null : "file");
    return path;
  }),
  move: vi.fn(async (from, folder, name) => carry(from, `${folder}/${name ?? nameOf(from)}`, false)),
  copy: vi.fn(async (from, folder) => {
    const to = `${folder}/${nameOf(from)}`;
    return carry(from, disk.has(to) ? `${to} copy` : to, true);
  }),
  remove: vi.fn(async (paths: string[]) => {
    const id = `t${trash.size}`;
    const gone = [...disk].filter(([path]) => paths.some((top) => path === top || path.startsWith(`${top}/`)));
    trash.set(
      id,
      gone.map(([path, kind]) => [path, kind ?? "dir"]),
    );
    for (const [path] of gone) disk.delete(path);
    return id;
  }),
  restore: vi.fn(async (id) => {
    for (const [path, kind] of trash.get(id) ?? []) {
      if (path === undefined) continue;
      if (disk.has(path)) throw refused("CONFLICT", `there is something at \`${path}\` again`);
      disk.set(path, kind === "dir" ? null : "file");
    }
  }),
  upload: vi.fn(async () => {}),
  uploadDropped: vi.fn(async () => {}),
  download: vi.fn(async () => {}),
};

beforeEach(async () => {
  vi.clearAllMocks();
  disk = new Map<string, null | "file">([
    ["/workspace/lib", null],
    ["/workspace/src", null],
    ["/workspace/src/main.rs", "file"],
    ["/workspace/src/other.rs", "file"],
    ["/workspace/.env", "file"],
    ["/workspace/a.txt", "file"],
    ["/workspace/b.txt", "file"],
  ]);
  trash = new Map();
  deleted = [];
  tree = new FileTree((path) => Promise.resolve({ entries: entriesOf(path), truncated: false }));
  hushed = 0;
  changes = new Changes(tree, actions, (names, undo) => {
    deleted.push({ names, undo });
    return () => (hushed += 1);
  });
  await tree.load();
});

function words(row: Row): string {
  if (row.kind === "entry") return row.entry.name;
  return row.kind === "draft" ? `[${row.draft.entry?.name ?? row.draft.kind}]` : `(${row.text})`;
}

const shown = () => tree.rows.map((row) => "  ".repeat(row.depth - 1) + words(row));
const selected = () => [...tree.selected].map(nameOf);
const settled = () => new Promise((done) => setTimeout(done));

function entry(name: string): FileEntry {
  const row = tree.rows.find((at) => at.kind === "entry" && at.entry.name === name);
  if (row?.kind !== "entry") throw new Error(`${name} is not in sight`);
  return row.entry;
}

/** Presses a row, as a click does. */
async function press(name: string) {
  tree.activate(entry(name));
  await settled();
}

async function commit(name: string) {
  if (tree.draft) await changes.commit(tree.draft, name);
}

describe("a new entry", () => {
  it("is typed in the folder where the keyboard stands, and stood on when it is there", async () => {
    tree.pointAt("/workspace/src");
    await changes.begin("file");
    expect(shown()).toEqual(["lib", "src", "  [file]", "  main.rs", "  other.rs", ".env", "a.txt", "b.txt"]);
    await commit("new.rs");
    expect(actions.create).toHaveBeenCalledWith("/workspace/src", "new.rs", "file");
    expect(shown()).toContain("  new.rs");
    expect([tree.draft, selected(), tree.cursor]).toEqual([null, ["new.rs"], "/workspace/src/new.rs"]);
  });

  it("is typed beside a file, and in the workspace where the keyboard stands nowhere", async () => {
    await press("src");
    await press("main.rs");
    await changes.begin("dir");
    expect(tree.draft?.folder).toBe("/workspace/src");
    tree.pointAt(null);
    await changes.begin("dir");
    expect(tree.draft?.folder).toBe("/workspace");
  });

  it("that is refused says why below its field, once, and can be typed again", async () => {
    tree.pointAt(null);
    await changes.begin("file");
    await commit("a.txt");
    expect(shown().slice(0, 2)).toEqual([
      "[file]",
      "(This name is taken. Choose another name.)",
    ]);
    expect(changes.failure).toBeNull();
    await commit("c.txt");
    expect(shown()).toEqual(["lib", "src", ".env", "a.txt", "b.txt", "c.txt"]);
  });

  it("that is given up leaves nothing", async () => {
    tree.pointAt(null);
    await changes.begin("file");
    if (tree.draft) changes.cancel(tree.draft);
    expect(shown()).toEqual(["lib", "src", ".env", "a.txt", "b.txt"]);
    expect(actions.create).not.toHaveBeenCalled();
  });
});

describe("another name", () => {
  it("is typed in the place of the old one, and a folder stays open", async () => {
    await press("src");
    changes.beginRename();
    expect(shown().slice(0, 3)).toEqual(["lib", "[src]", "  main.rs"]);
    await commit("source");
    expect(actions.move).toHaveBeenCalledWith("/workspace/src", "/workspace", "source");
    expect(shown().slice(0, 4)).toEqual(["lib", "source", "  main.rs", "  other.rs"]);
    expect(selected()).toEqual(["source"]);
  });

  it("does not lose its entry by a refresh meanwhile", async () => {
    await press("b.txt");
    changes.beginRename();
    await tree.refresh();
    if (tree.draft) changes.cancel(tree.draft);
    expect(tree.cursor).toBe("/workspace/b.txt");
  });

  it("is selected without its extension", () => {
    expect(stemLength("a.txt", false)).toBe(1);
    expect(stemLength("a.tar.gz", false)).toBe(5);
    expect(stemLength(".env", false)).toBe(4);
    expect(stemLength("Makefile", false)).toBe(8);
    expect(stemLength("v1.2", true)).toBe(4);
  });
});

describe("carrying", () => {
  it("moves what was cut, once, into the folder where the keyboard stands", async () => {
    await press("a.txt");
    tree.pick("/workspace/b.txt");
    changes.cut();
    expect(changes.isCut("/workspace/a.txt")).toBe(true);
    tree.pointAt("/workspace/lib");
    await changes.paste();
    expect(shown()).toEqual(["lib", "  a.txt", "  b.txt", "src", ".env"]);
    expect(selected()).toEqual(["a.txt", "b.txt"]);
    expect(changes.clipboard).toBeNull();
  });

  it("copies what was copied as often as it is pasted, beside itself under another name", async () => {
    await press("a.txt");
    changes.copy();
    await changes.paste();
    expect(actions.copy).toHaveBeenLastCalledWith("/workspace/a.txt", "/workspace");
    expect(selected()).toEqual(["a.txt copy"]);
    tree.pointAt("/workspace/lib");
    await changes.paste();
    expect(actions.copy).toHaveBeenLastCalledWith("/workspace/a.txt", "/workspace/lib");
    await changes.paste();
    await settled();
    expect([...disk.keys()].filter((path) => path.includes("a.txt"))).toHaveLength(4);
  });

  it("that is refused in the middle shows what has come to be and says why, once", async () => {
    disk.set("/workspace/lib/b.txt", "file");
    await press("a.txt");
    tree.pick("/workspace/b.txt");
    await changes.drop(tree.targets, "/workspace/lib", false);
    expect(shown()).toEqual(["lib", "  a.txt", "  b.txt", "src", ".env", "b.txt"]);
    expect(changes.failure?.message).toContain("/workspace/lib/b.txt");
    await changes.drop(tree.targets, "/workspace/src", false);
    expect(changes.failure).toBeNull();
  });

  it("does nothing with what is there already", async () => {
    await press("a.txt");
    await changes.drop(tree.targets, "/workspace", false);
    expect(actions.move).not.toHaveBeenCalled();
  });
});

describe("deleting", () => {
  it("takes all that is selected, goes on to the next, and can be taken back", async () => {
    await press("src");
    await press("main.rs");
    tree.pick("/workspace/a.txt");
    await changes.remove();
    expect(actions.remove).toHaveBeenCalledWith(["/workspace/src/main.rs", "/workspace/a.txt"]);
    expect(shown()).toEqual(["lib", "src", "  other.rs", ".env", "b.txt"]);
    expect(selected()).toEqual(["b.txt"]);
    expect(deleted.map(({ names }) => names)).toEqual([["main.rs", "a.txt"]]);
    deleted[0]?.undo();
    await settled();
    expect(shown()).toEqual(["lib", "src", "  main.rs", "  other.rs", ".env", "a.txt", "b.txt"]);
    expect(selected()).toEqual(["main.rs", "a.txt"]);
    deleted[0]?.undo();
    await settled();
    expect(actions.restore).toHaveBeenCalledTimes(1);
  });

  it("a folder takes what is in it along, though that is selected too", async () => {
    await press("src");
    tree.key("ArrowDown", 0, true);
    tree.key("ArrowDown", 0, true);
    expect(selected()).toEqual(["src", "main.rs", "other.rs"]);
    await changes.remove();
    expect(actions.remove).toHaveBeenCalledWith(["/workspace/src"]);
    expect(selected()).toEqual([".env"]);
  });

  it("can be taken back one after another, the last first", async () => {
    await press("a.txt");
    await changes.remove();
    expect(selected()).toEqual(["b.txt"]);
    await changes.remove();
    await changes.undo();
    expect(selected()).toEqual(["b.txt"]);
    await changes.undo();
    expect(selected()).toEqual(["a.txt"]);
    await changes.undo();
    expect(actions.restore).toHaveBeenCalledTimes(2);
  });

  it("that cannot be taken back says why and can be tried again", async () => {
    await press("a.txt");
    await changes.remove();
    disk.set("/workspace/a.txt", "file");
    await changes.undo();
    expect(changes.failure?.message).toContain("again");
    expect(hushed).toBe(0);
    disk.delete("/workspace/a.txt");
    await changes.undo();
    expect([changes.failure, selected(), hushed]).toEqual([null, ["a.txt"], 1]);
  });
});

describe("the selection", () => {
  it("follows the keyboard, grows by Shift, and is cleared by a press", async () => {
    await press("src");
    tree.key("ArrowDown", 0);
    expect(selected()).toEqual(["main.rs"]);
    tree.key("ArrowDown", 0, true);
    tree.key("ArrowDown", 0, true);
    expect(selected()).toEqual(["main.rs", "other.rs", ".env"]);
    tree.key("ArrowUp", 0, true);
    expect(selected()).toEqual(["main.rs", "other.rs"]);
    tree.pick("/workspace/b.txt");
    expect(selected()).toEqual(["main.rs", "other.rs", "b.txt"]);
    tree.pick("/workspace/b.txt");
    expect(selected()).toEqual(["main.rs", "other.rs"]);
    await press("a.txt");
    expect(selected()).toEqual(["a.txt"]);
    tree.extendTo("/workspace/.env");
    expect(selected()).toEqual([".env", "a.txt"]);
  });

  it("is what a menu is about, unless that was opened elsewhere", async () => {
    await press("a.txt");
    tree.pick("/workspace/b.txt");
    tree.pointAt("/workspace/a.txt");
    expect(tree.targets.map((row) => row.entry.name)).toEqual(["a.txt", "b.txt"]);
    tree.pointAt("/workspace/.env");
    expect(tree.targets.map((row) => row.entry.name)).toEqual([".env"]);
    tree.pointAt(null);
    expect(tree.targets).toEqual([]);
  });
});

it("hidden files are shown or not, as one likes", async () => {
  tree.showHidden = false;
  expect(shown()).toEqual(["lib", "src", "a.txt", "b.txt"]);
  disk = new Map([["/workspace/.env", "file"]]);
  await tree.refresh();
  expect(shown()).toEqual(["(Only hidden files)"]);
  tree.showHidden = true;
  expect(shown()).toEqual([".env"]);
});

it("uploads into the folder where the keyboard stands, and says why it cannot begin", async () => {
  tree.standOn(["/workspace/lib"]);
  await changes.upload("folder");
  tree.standOn(["/workspace/a.txt"]);
  await changes.upload("files");
  const into = vi.mocked(actions.upload).mock.calls;
  expect(into).toEqual([["/workspace/lib", "folder"], ["/workspace", "files"]]);
  vi.mocked(actions.uploadDropped).mockRejectedValueOnce(refused("CONFLICT", "two of them are called `a`"));
  await changes.uploadDropped("/workspace/lib", "token");
  expect(changes.failure?.message).toBe("two of them are called `a`");
});

it("downloads what is selected: one file under a name, anything else into a folder", async () => {
  const download = vi.mocked(actions.download);
  for (const paths of [["/workspace/a.txt"], ["/workspace/lib"], ["/workspace/a.txt", "/workspace/b.txt"]]) {
    tree.standOn(paths);
    await changes.download();
  }
  expect(download.mock.calls).toEqual([
    [["/workspace/a.txt"], "a.txt"],
    [["/workspace/lib"], null],
    [["/workspace/a.txt", "/workspace/b.txt"], null],
  ]);
});
