import { expect, it } from "vitest";

import { layerName, visibleName } from "./names";

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

it.each([
  ["3f2a9c1b7d40", "3f2a9c1b7d40"],
  ["sha256:3f2a9c1b7d40e5f6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4", "3f2a9c1b7d40"],
])("layer %s is called %s", (layer, name) => expect(layerName(layer)).toBe(name));
