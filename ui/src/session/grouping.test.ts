import { expect, it } from "vitest";

import { listed } from "../../test/sessions";
import { groupByWorkspace, inSidebarOrder } from "./grouping";

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

it("files that were kept come last, whatever workspace they are from", () => {
  const sessions = (
    [
      ["files", "a", false],
      ["z", "z", true],
      ["b", "b", true],
    ] as const
  ).map(([id, workspace_id, has_container]) => listed(id, { state: "stopped", workspace_id, has_container }));
  expect(inSidebarOrder(sessions).map((session) => session.id)).toEqual(["b", "z", "files"]);
});
