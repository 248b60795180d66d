// Bytes as they are shown of a file that is no text: as `hexdump -C` writes them.

/** Bytes of a row. */
export const IN_A_ROW = 16;

export interface HexRow {
  /** Of the first byte, in eight digits. */
  offset: string;
  hex: string;
  /** Printable ASCII, and a dot for all else. */
  text: string;
}

/** Returns so many indexes as there are rows. */
export function rowsOf(bytes: Uint8Array): number[] {
  return Array.from({ length: Math.ceil(bytes.length / IN_A_ROW) }, (_, index) => index);
}

export function hexRow(bytes: Uint8Array, index: number): HexRow {
  const start = index * IN_A_ROW;
  const row = [...bytes.subarray(start, start + IN_A_ROW)];
  const pairs = row.map((byte) => byte.toString(16).padStart(2, "0"));
  return {
    offset: start.toString(16).padStart(8, "0"),
    // A wider gap in the middle, by which one counts.
    hex: [pairs.slice(0, IN_A_ROW / 2).join(" "), pairs.slice(IN_A_ROW / 2).join(" ")].join("  ").trimEnd(),
    text: row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")).join(""),
  };
}
