import { expect, it } from "vitest";

import { visibleName } from "./names";

it.each([
  ["plain name.txt", "plain name.txt"],
  ["two\nlines", "two\u2424lines"],
  ["tab\there", "tab\u2409here"],
  ["bell\x07", "bell\u2407"],
  ["delete\x7f", "delete\u2421"],
  ["evil\u202etxt.exe", "evil⟨U+202E⟩txt.exe"],
  ["zero\u200bwidth", "zero⟨U+200B⟩width"],
  ["c1\u0085", "c1⟨U+0085⟩"],
  ["emoji 👩‍💻 stays", "emoji 👩‍💻 stays"],
  ["not UTF-8 \ufffd stays", "not UTF-8 \ufffd stays"],
  ["-rf 'quotes\"", "-rf 'quotes\""],
])("%o is shown as %s", (name, shown) => expect(visibleName(name)).toBe(shown));
