import { describe, expect, it } from "vitest";

import { configsOf, isRoot, wishesOf } from "./editorconfig";

const at = (folder: string, content: string) => ({ folder, content });

/** Returns whether a section of this pattern in the workspace's own file is about a path. */
function isAbout(pattern: string, path: string): boolean {
  return wishesOf(`/workspace/${path}`, [at("/workspace", `[${pattern}]\ninsert_final_newline = true`)]).finalNewline === true;
}

describe("a pattern", () => {
  it.each([
    ["*", "a.py", true],
    ["*", "src/a.py", true],
    ["*.py", "src/deep/a.py", true],
    ["*.py", "a.pyc", false],
    ["/*.py", "a.py", true],
    ["/*.py", "src/a.py", false],
    ["src/*.py", "src/a.py", true],
    ["src/*.py", "src/deep/a.py", false],
    ["src/**.py", "src/deep/a.py", true],
    ["src/**/a.py", "src/a.py", true],
    ["src/**/a.py", "src/x/y/a.py", true],
    ["**/a.py", "a.py", true],
    ["*.{js,ts}", "a.ts", true],
    ["*.{js,ts}", "a.tsx", false],
    ["{Makefile,*.{mk,make}}", "x.make", true],
    ["{single}", "{single}", true],
    ["{single}", "single", false],
    ["file{1..12}.txt", "file7.txt", true],
    ["file{1..12}.txt", "file13.txt", false],
    ["[ab].c", "b.c", true],
    ["[!ab].c", "b.c", false],
    ["[a-c].c", "b.c", true],
    ["?.c", "a.c", true],
    ["?.c", "ab.c", false],
    ["\\*.c", "a.c", false],
    ["\\*.c", "*.c", true],
    ["a[.c", "a[.c", true],
    ["a{.c", "a{.c", true],
  ] as const)("%s, %s: %s", (pattern, path, expected) => expect(isAbout(pattern, path)).toBe(expected));

  it("that is made to take long does not", () => {
    const began = performance.now();
    for (const pattern of ["*".repeat(200), "**/".repeat(60), "{a,*}".repeat(40), "{".repeat(200), "{a,".repeat(66), "{{{{{{a,b},c},d},e},f},g}".repeat(8)]) {
      isAbout(pattern, `${"a".repeat(250)}/`.repeat(12));
    }
    expect(performance.now() - began).toBeLessThan(2_000);
  });
});

describe("what is wished", () => {
  const root = at("/workspace", "root = true\n[*]\nindent_style = space\nindent_size = 2\n; a note\n[Makefile]\nindent_style = tab\n");
  const inner = at("/workspace/src", "\ufeff[*.py]\r\nIndent_Size = 4\r\ninsert_final_newline = true\r\n");

  it.each([
    ["/workspace/a.js", { unit: "  ", tabWidth: 2 }, false],
    ["/workspace/src/a.py", { unit: "    ", tabWidth: 4 }, true],
    ["/workspace/src/a.js", { unit: "  ", tabWidth: 2 }, false],
    ["/workspace/src/Makefile", { unit: "\t", tabWidth: 2 }, false],
    ["/elsewhere/a.js", null, false],
  ])("for %s", (path, indentation, finalNewline) => {
    expect(wishesOf(path, [inner, root])).toEqual({ indentation, finalNewline });
  });

  it.each([
    ["indent_style = tab\ntab_width = 8", { unit: "\t", tabWidth: 8 }],
    ["indent_style = space", { unit: "    ", tabWidth: 4 }],
    ["indent_size = tab\ntab_width = 3", { unit: "\t", tabWidth: 3 }],
    ["indent_style = space\nindent_size = 900", { unit: "    ", tabWidth: 4 }],
    ["indent_size = unset", null],
    ["constructor = x\n__proto__ = y", null],
  ])("%j", (properties, expected) => {
    expect(wishesOf("/workspace/a", [at("/workspace", `[*]\n${properties}`)]).indentation).toEqual(expected);
  });

  it("is asked of every folder up to the root", async () => {
    const files = new Map([["/workspace/a/.editorconfig", "root = true"], ["/workspace/a/b/.editorconfig", ""], ["/workspace/.editorconfig", ""]]);
    const read = (path: string) => Promise.resolve(files.get(path) ?? null);
    const folders = async (path: string) => (await configsOf(path, read)).map(({ folder }) => folder);
    expect(await folders("/workspace/a/b/c/x")).toEqual(["/workspace/a/b", "/workspace/a"]);
    expect(await folders("/workspace/x")).toEqual(["/workspace"]);
    expect(await folders("opaque")).toEqual([]);
  });

  it("the root is the last file that counts", () => {
    expect([isRoot("root = true\n[*]\n"), isRoot("[*]\nroot = true\n"), isRoot("Root = TRUE"), isRoot("")]).toEqual([true, false, true, false]);
  });
});
