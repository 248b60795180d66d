import { describe, expect, it } from "vitest";

import type { FileContent } from "../bindings/FileContent";
import { contentOf, OpenFiles } from "./open-files.svelte";

const read = (more: Partial<FileContent>): FileContent => ({
  content: "text",
  encoding: "utf-8",
  charset: null,
  picture: null,
  size: 4,
  truncated: false,
  revision: "1",
  ...more,
});

const picture = { media_type: "image/png", width: 2, height: 3, drawable: true };
const bomb = { ...picture, width: 23_000, height: 23_000, drawable: false };
const latin = { name: "windows-1252", lossy: false };

describe("what a file shows as", () => {
  it.each([
    [read({}), { kind: "text", text: "text", size: 4, truncated: false, charset: null }],
    [read({ truncated: true, size: 9 }), { kind: "text", text: "text", size: 9, truncated: true, charset: null }],
    [read({ encoding: "decoded", charset: latin }), { kind: "text", text: "text", size: 4, truncated: false, charset: latin }],
    [read({ encoding: "base64", size: 3 }), { kind: "binary", size: 3 }],
    [
      read({ encoding: "base64", content: "QQ==", picture }),
      { kind: "image", source: "data:image/png;base64,QQ==", picture, size: 4 },
    ],
    [read({ encoding: "base64", truncated: true, size: 7, picture }), { kind: "picture", picture, size: 7 }],
    [read({ encoding: "base64", picture: bomb }), { kind: "picture", picture: bomb, size: 4 }],
  ])("%#", (file, content) => expect(contentOf(file)).toEqual(content));
});

describe("an encoding", () => {
  it("is chosen for one file, and the last choice is what is shown", async () => {
    const answers: Array<(content: FileContent) => void> = [];
    const asked: Array<string | null> = [];
    const open = new OpenFiles((_, charset) => {
      asked.push(charset);
      return new Promise((resolve) => answers.push(resolve));
    });
    const opening = open.open({ name: "a", path: "opaque:a" });
    const file = open.files[0];
    if (!file) throw new Error("nothing is open");
    const choosing = open.choose(file, "gbk");
    answers[1]?.(read({ content: "chosen" }));
    answers[0]?.(read({ content: "recognised" }));
    await Promise.all([opening, choosing]);
    expect([asked, file.content]).toMatchObject([[null, "gbk"], { text: "chosen" }]);
  });
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

it("a slow first read does not overwrite a later one", async () => {
  const answers: Array<(content: FileContent) => void> = [];
  const open = new OpenFiles(() => new Promise((resolve) => answers.push(resolve)));
  const first = open.open({ path: "p", name: "p" });
  const second = open.open({ path: "p", name: "p" });
  answers[1]?.(read({ content: "new" }));
  answers[0]?.(read({ content: "old" }));
  await Promise.all([first, second]);
  expect(open.active?.content).toMatchObject({ text: "new" });
});
