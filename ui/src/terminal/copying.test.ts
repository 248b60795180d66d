import { expect, it } from "vitest";

import { copyOf52 } from "./copying";

const base64 = (text: string) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

it.each([
  [`c;${base64("a text")}`, "a text"],
  [`;${base64("日本\n🚀")}`, "日本\n🚀"],
  [`pc;${base64("x")}`, "x"],
])("a program may want to copy a text: %s", (data, text) => expect(copyOf52(data)).toBe(text));

it.each(["c;?", "c;", "", "c", "c;%%%", "c;YQ=", `c;${btoa("\xff\xfe")}`])(
  "what asks for the clipboard or makes no sense copies nothing: %s",
  (data) => expect(copyOf52(data)).toBeNull(),
);
