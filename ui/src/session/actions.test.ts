import { describe, expect, it } from "vitest";

import { listed } from "../../test/sessions";
import type { Session as View } from "../bindings/Session";
import { menuOf, type SessionActions } from "./actions";

function actions(engineAnswers = true): SessionActions {
  const act = () => {};
  return {
    engineAnswers,
    open: act,
    retry: act,
    stop: act,
    stopNow: act,
    restart: act,
    rename: act,
    rebuild: act,
    duplicate: act,
    export: act,
    cancelExport: act,
    discard: act,
    forget: act,
    remove: act,
    progress: act,
    cancel: act,
    copyName: act,
    details: act,
    log: act,
    timing: act,
  };
}

function menu(of: Partial<View>, engineAnswers = true) {
  const session = listed("s", of);
  session.detailed = true;
  return menuOf(session, actions(engineAnswers));
}

/** The names of the entries, with a bar where a line is. */
function names(of: Partial<View>): string {
  return menu(of)
    .map((entry) => `${entry.apart ? "| " : ""}${entry.name}`)
    .join(" ");
}

describe("the menu of a session that is", () => {
  it.each<[string, Partial<View>, string]>([
    ["ready", { state: "ready" }, "stop restart | rename rebuild duplicate export | copy-name details log | remove"],
    ["stopped", { state: "stopped" }, "open | rename rebuild duplicate export | copy-name details log | remove"],
    ["only files", { state: "stopped", has_container: false }, "open | details | remove"],
    ["on its way", { state: "provisioning" }, "progress cancel | copy-name details"],
    ["interrupted", { state: "interrupted" }, "open discard | rename | copy-name details | remove"],
    ["failed", { state: "failed" }, "retry | rename rebuild | copy-name details log | remove"],
    ["failed without a container", { state: "failed", has_container: false }, "retry | rename | copy-name details | remove"],
    ["cancelled", { state: "cancelled" }, "retry | rename | copy-name details | remove"],
    ["away", { state: "away", engine: "docker" }, "rename | copy-name details | forget remove"],
  ])("%s", (_, of, entries) => expect(names(of)).toBe(entries));
});

it("without the engine only what needs none can be done", () => {
  const possible = (of: Partial<View>) => menu(of, false).filter((entry) => !entry.disabled).map((entry) => entry.name);
  expect(possible({ state: "stopped" })).toEqual(["rename", "copy-name", "details"]);
  expect(possible({ state: "interrupted" })).toEqual(["rename", "copy-name", "details"]);
  expect(possible({ state: "failed" })).toEqual(["rename", "copy-name", "details"]);
});

it("what needs the engine depends on the session's own, not on the one that is chosen", () => {
  const possible = (of: Partial<View>, chosenAnswers: boolean) =>
    menu(of, chosenAnswers).filter((entry) => !entry.disabled).map((entry) => entry.name);
  expect(possible({ state: "away", engine: "docker" }, true)).toEqual(["rename", "copy-name", "details", "forget"]);
  expect(possible({ state: "stopped", engine: "podman" }, false)).toContain("open");
});

it("files that are being exported are not exported twice", () => {
  const exporting = menu({ state: "ready", export: { bytes: 1, total_bytes: 2 } });
  expect(exporting.filter((entry) => entry.disabled).map((entry) => entry.name)).toEqual(["export"]);
});
