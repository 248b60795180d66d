import { expect, it } from "vitest";

import { groupByWorkspace } from "./grouping";

it("groups by workspace, by name, and keeps the order within a group", () => {
  const sessions = [
    { name: "b", in: "shop" },
    { name: "z", in: "group 10" },
    { name: "a", in: "shop" },
    { name: "y", in: "group 2" },
  ];
  const groups = groupByWorkspace(sessions, (session) => session.in);
  expect(groups.map((group) => [group.workspace, group.members.map((member) => member.name)])).toEqual([
    ["group 2", ["y"]],
    ["group 10", ["z"]],
    ["shop", ["b", "a"]],
  ]);
});
