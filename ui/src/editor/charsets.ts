// Encodings to choose from, by their names in the Encoding Standard.

export const CHARSETS = [
  "UTF-8",
  "UTF-16LE",
  "UTF-16BE",
  "windows-1252",
  "ISO-8859-2",
  "ISO-8859-15",
  "windows-1250",
  "windows-1251",
  "KOI8-R",
  "GBK",
  "gb18030",
  "Big5",
  "Shift_JIS",
  "EUC-JP",
  "EUC-KR",
] as const;
