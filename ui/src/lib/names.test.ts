import { expect, it } from "vitest";

import { layerName, LONGEST_WORDS, visibleAddress, visibleName, visibleWords } from "./names";

it.each([
  ["plain name.txt", "plain name.txt"],
  ["two\nlines", "two\u2424lines"],
  ["tab\there", "tab\u2409here"],
  ["bell\x07", "bell\u2407"],
  ["delete\x7f", "delete\u2421"],
  ["evil\u202etxt.exe", "evil⟨U+202E⟩txt.exe"],
  ["zero\u200bwidth", "zero⟨U+200B⟩width"],
  ["c1\u0085", "c1⟨U+0085⟩"],
  ["a\u3164b", "a⟨U+3164⟩b"],
  ["\u115f\u1160\uffa0", "⟨U+115F⟩⟨U+1160⟩⟨U+FFA0⟩"],
  ["a\u180eb\u2800", "a⟨U+180E⟩b⟨U+2800⟩"],
  ["a\u{e0041}b", "a⟨U+E0041⟩b"],
  [`z${"\u0301".repeat(120)}`, `z${"\u0301".repeat(30)}`],
  ["x".repeat(1_000_000), `${"x".repeat(255)}…`],
  ["日本語 हिन्दी עברית ✈\ufe0f", "日本語 हिन्दी עברית ✈\ufe0f"],
  ["emoji 👩‍💻 stays", "emoji 👩‍💻 stays"],
  ["not UTF-8 \ufffd stays", "not UTF-8 \ufffd stays"],
  ["-rf 'quotes\"", "-rf 'quotes\""],
])("%o is shown as %s", (name, shown) => expect(visibleName(name)).toBe(shown));

it.each([
  ["3f2a9c1b7d40", "3f2a9c1b7d40"],
  ["sha256:3f2a9c1b7d40e5f6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4", "3f2a9c1b7d40"],
])("layer %s is called %s", (layer, name) => expect(layerName(layer)).toBe(name));

it.each([
  ["two\nlines\x1b[31m", "two\nlines\u241b[31m"],
  ["evil\u202e", "evil⟨U+202E⟩"],
  ["see https://cdn.test/blob?sig=secret&se=1, then", "see https://cdn.test/blob?… then"],
  ["`https://r.test/v2/?token=x`", "`https://r.test/v2/?…`"],
  ["why? because", "why? because"],
])("words %o are shown as %s", (words, shown) => expect(visibleWords(words)).toBe(shown));

it("words of any length are cut", () => {
  for (const long of ["w".repeat(10_000_000), "\n".repeat(10_000_000), "\u202e".repeat(10_000_000)]) {
    expect([...visibleWords(long)].length).toBeLessThan(LONGEST_WORDS * 10);
  }
});

it.each([
  ["https://example.org/a?b=c", "https://example.org/a?b=c"],
  ["https://exаmple.org", "https://xn--exmple-4nf.org/"],
  ["https://good.test@evil.test/", "https://good.test@evil.test/"],
  [`https://x.test/${"a".repeat(5_000)}`, `https://x.test/${"a".repeat(185)}…`],
  ["no address\u202e", "no address⟨U+202E⟩"],
])("the address %o is shown as %s", (address, shown) => expect(visibleAddress(address)).toBe(shown));
