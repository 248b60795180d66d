import { expect, it } from "vitest";

import { Drag } from "./drag.svelte";
import type { EntryRow } from "./tree.svelte";

const row: EntryRow = {
  kind: "entry",
  key: "/workspace/a",
  entry: { name: "a", path: "/workspace/a", kind: "file", target_kind: null, size: 0, modified_ms: 0, mode: 0o644, ignored: false, unreadable: false },
  depth: 1,
  position: 1,
  siblings: 1,
  branch: null,
  parent: null,
};

it("a press is a click until the pointer has moved", () => {
  const drag = new Drag();
  drag.press([row], { x: 0, y: 0 });
  expect(drag.move({ x: 3, y: 3 })).toBe(false);
  expect([drag.drop(), drag.takeClick()]).toEqual([null, false]);
});

it("what is carried falls where it may, and the click at the end is none", () => {
  const drag = new Drag();
  drag.press([row], { x: 0, y: 0 });
  expect(drag.move({ x: 3, y: 9 })).toBe(true);
  drag.folder = "/workspace/lib";
  expect(drag.drop()).toEqual({ rows: [row], folder: "/workspace/lib", copies: false });
  expect([drag.isUnderWay, drag.takeClick(), drag.takeClick()]).toEqual([false, true, false]);
});

it("what is given up falls nowhere", () => {
  const drag = new Drag();
  drag.press([row], { x: 0, y: 0 });
  drag.move({ x: 9, y: 9 });
  drag.folder = "/workspace/lib";
  drag.cancel();
  expect([drag.drop(), drag.move({ x: 20, y: 20 }), drag.takeClick()]).toEqual([null, false, true]);
});

it("a press of another button is no click, however it ends", () => {
  const drag = new Drag();
  drag.pressOther();
  expect([drag.drop(), drag.takeClick()]).toEqual([null, true]);
  drag.press([row], { x: 0, y: 0 });
  expect([drag.drop(), drag.takeClick()]).toEqual([null, false]);
});
