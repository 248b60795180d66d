import { Text } from "@codemirror/state";
import { expect, it } from "vitest";

import { indentationOf } from "./indentation";

it.each([
  ["", "    "],
  ["a\nb\n", "    "],
  ["def f():\n  return\n", "  "],
  ["def f():\n    if x:\n        y\n    z\n", "    "],
  ["func f() {\n\tx\n\t\ty\n}\n", "\t"],
  ["/*\n * one\n * two\n */\nint f() {\n  x;\n}\n", "  "],
  ["a:\n  b:\n    c: 1\n  d:\n        e\n", "  "],
  ["all:\n\tmake\n\nif\n  x\n\nb:\n\tc\n", "\t"],
])("%j", (text, unit) => expect(indentationOf(Text.of(text.split("\n"))).unit).toBe(unit));
