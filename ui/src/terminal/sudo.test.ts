import { expect, it } from "vitest";

import { SudoRefusal } from "./sudo";

const SAID =
  'sudo: The "no new privileges" flag is set, which prevents sudo from running as root.\r\nsudo: If sudo is running in a container, you may need to adjust the container configuration to disable the flag.\r\n';

const bytes = (text: string) => new TextEncoder().encode(text);

it("knows sudo's sentence, however the output is cut", () => {
  for (let at = 0; at <= SAID.length; at += 1) {
    const refusal = new SudoRefusal();
    const found = [refusal.isIn(bytes(SAID.slice(0, at))), refusal.isIn(bytes(SAID.slice(at)))];
    expect(found.filter(Boolean), `cut at ${at}`).toHaveLength(1);
  }
  const letterByLetter = new SudoRefusal();
  expect([...SAID].filter((letter) => letterByLetter.isIn(bytes(letter)))).toHaveLength(1);
});

it("is not taken in by other output, and looks only at the end of a flood", () => {
  const refusal = new SudoRefusal();
  expect(refusal.isIn(bytes("sudo: no new privileges\r\n"))).toBe(false);
  expect(refusal.isIn(new Uint8Array(1 << 20).fill(0x22))).toBe(false);
  expect(refusal.isIn(bytes(SAID))).toBe(true);
  expect(refusal.isIn(bytes("\r\n$ "))).toBe(false);
});
