import { describe, expect, it } from "vitest";

import type { FileContent } from "../lib/ipc/commands";
import { contentOf, OpenFiles } from "./open-files.svelte";

const read = (more: Partial<FileContent>): FileContent => ({
  content: "text",
  encoding: "utf-8",
  size: 4,
  truncated: false,
  revision: "1",
  ...more,
});

describe("what a file shows as", () => {
  it.each([
    ["a.txt", read({}), { kind: "text", text: "text", size: 4, truncated: false }],
    ["a.txt", read({ truncated: true, size: 9 }), { kind: "text", text: "text", size: 9, truncated: true }],
    ["a.bin", read({ encoding: "base64", size: 3 }), { kind: "binary", size: 3 }],
    ["A.PNG", read({ encoding: "base64", content: "QQ==" }), { kind: "image", source: "data:image/png;base64,QQ==", size: 4 }],
    ["a.png", read({ encoding: "base64", truncated: true, size: 7 }), { kind: "binary", size: 7 }],
  ])("%s %#", (name, file, content) => expect(contentOf(name, file)).toEqual(content));
});

describe("tabs", () => {
  it("open once each, and close to the neighbour", async () => {
    const asked: string[] = [];
    const open = new OpenFiles((path) => {
      asked.push(path);
      return Promise.resolve(read({}));
    });
    for (const name of ["a", "b", "c", "b"]) await open.open({ name, path: `opaque:${name}` });
    expect(open.files.map((file) => file.name)).toEqual(["a", "b", "c"]);
    expect(asked).toEqual(["opaque:a", "opaque:b", "opaque:c", "opaque:b"]);
    open.close("opaque:b");
    expect(open.active?.name).toBe("c");
    open.close("opaque:c");
    open.close("opaque:a");
    expect([open.active, open.files]).toEqual([null, []]);
  });

  it("are there again after a reload; what makes no sense is forgotten", async () => {
    const before = new OpenFiles(() => Promise.resolve(read({})));
    for (const name of ["a", "b"]) await before.open({ name, path: `opaque:${name}` });
    before.activePath = "opaque:a";
    const after = new OpenFiles(() => Promise.resolve(read({})));
    await after.restore(before.remembered());
    expect([after.files.map((file) => file.name), after.active?.name]).toEqual([["a", "b"], "a"]);
    for (const nonsense of [null, "", "{", "7", '{"files":[null]}', '{"files":[{"path":1,"name":"x"}]}']) {
      const none = new OpenFiles(() => expect.fail("there is nothing to read"));
      await none.restore(nonsense);
      expect(none.remembered()).toBeNull();
    }
  });

  it("a file that cannot be read says so in its tab", async () => {
    const open = new OpenFiles(() => Promise.reject(new Error("gone")));
    await open.open({ name: "a", path: "opaque:a" });
    expect(open.active?.content).toMatchObject({ kind: "failed", failure: { message: "gone" } });
  });
});
