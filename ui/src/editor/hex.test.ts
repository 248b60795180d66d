import { expect, it } from "vitest";

import { hexRow, rowsOf } from "./hex";

it("shows bytes as hexdump does", () => {
  const bytes = Uint8Array.from({ length: 35 }, (_, index) => (index < 16 ? index : 0x70 + index - 16));
  expect(rowsOf(bytes)).toEqual([0, 1, 2]);
  expect(hexRow(bytes, 0)).toEqual({
    offset: "00000000",
    hex: "00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f",
    text: "................",
  });
  expect(hexRow(bytes, 1)).toEqual({
    offset: "00000010",
    hex: "70 71 72 73 74 75 76 77  78 79 7a 7b 7c 7d 7e 7f",
    text: "pqrstuvwxyz{|}~.",
  });
  expect(hexRow(bytes, 2)).toEqual({ offset: "00000020", hex: "80 81 82", text: "..." });
  expect(rowsOf(new Uint8Array())).toEqual([]);
});
