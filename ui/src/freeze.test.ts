import "./freeze";

import { Terminal } from "@xterm/xterm";
import { expect, it } from "vitest";

it("what every object inherits cannot be changed by a name that is used as a key", () => {
  const names = ["__proto__", "toString", "constructor", "anything"];
  for (const name of names.slice(1)) {
    const table: Record<string, Record<string, unknown>> = {};
    expect(() => {
      const inherited = table["__proto__"];
      if (inherited) inherited[name] = "changed";
    }).toThrow(TypeError);
  }
  expect(Object.isFrozen(Object.prototype)).toBe(true);
  expect(String({})).toBe("[object Object]");
});

it("an object can have a `toString` of its own, and the terminal's library loads", () => {
  const object: object = {};
  object.toString = () => "its own";
  expect([String(object), String({})]).toEqual(["its own", "[object Object]"]);
  expect(new Terminal().cols).toBe(80);
});
