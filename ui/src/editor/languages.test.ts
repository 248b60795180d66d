import { expect, it } from "vitest";

import { languageOf } from "./languages";

it.each(["constructor", "__proto__", "x.constructor", "x.__proto__", "tostring", "x.valueof", "hasOwnProperty", "", "."])(
  "%o has no language",
  (name) => expect(languageOf(name)).toBeNull(),
);

it.each(["a.py", "Dockerfile", "CMakeLists.txt", "x.tar.RS"])("%s has one", (name) => expect(languageOf(name)).not.toBeNull());
