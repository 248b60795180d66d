import { createRawSnippet, flushSync, mount, unmount } from "svelte";
import { expect, it } from "vitest";

import Boundary from "./Boundary.svelte";

it("a part that fails is one notice, and can be shown again", () => {
  const state = { broken: true };
  const children = createRawSnippet(() => ({
    render: () => {
      if (state.broken) throw new Error("too deep");
      return "<p>the part</p>";
    },
  }));
  const target = document.createElement("div");
  const shown = mount(Boundary, { target, props: { what: "The file tree", children } });
  flushSync();
  expect(target.textContent).toContain("The file tree could not be shown: too deep");
  state.broken = false;
  target.querySelector("button")?.click();
  flushSync();
  expect(target.textContent?.trim()).toBe("the part");
  void unmount(shown);
});
