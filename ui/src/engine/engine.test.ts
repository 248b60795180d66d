import { describe, expect, it, vi } from "vitest";

import type { EngineReason } from "../bindings/EngineReason";
import type { EngineView } from "../bindings/EngineView";
import { Engine, nextStep } from "./engine.svelte";

function view(reason: EngineReason | null, selected = false): EngineView {
  return {
    name: "Docker",
    address: "unix:///var/run/docker.sock",
    source: "the default socket",
    version: null,
    selected,
    problem: reason === null ? null : { reason, message: "" },
  };
}

it("is told of a change, and a probe asked for before does not undo it", async () => {
  let answer = (_: EngineView[]) => {};
  const engine = new Engine(() => new Promise((resolve) => (answer = resolve)));
  engine.hear([view(null, true)]);
  expect([engine.missing, engine.name, engine.wasUsed]).toEqual([false, "Docker", true]);
  const probe = engine.probe();
  engine.hear([{ ...view("not_running"), name: "unix:///var/run/docker.sock" }]);
  answer([view(null, true)]);
  await probe;
  expect([engine.missing, engine.name, engine.probing]).toEqual([true, "Docker", false]);
  engine.hear([view(null, true)]);
  expect(engine.missing).toBe(false);
});

describe("which story the page tells", () => {
  it.each<[EngineView[], boolean, EngineReason]>([
    [[], true, "not_installed"],
    [[view("not_installed"), view("not_running")], true, "not_running"],
    [[view("not_running"), view("no_permission")], true, "no_permission"],
    [[view("not_installed"), view(null, true)], false, "not_installed"],
  ])("%#", async (engines, missing, reason) => {
    const engine = new Engine(() => Promise.resolve(engines));
    expect(engine.missing).toBe(false);
    await engine.probe();
    expect([engine.missing, engine.reason]).toEqual([missing, reason]);
  });

  it("a probe under way is not doubled", async () => {
    const status = vi.fn(() => Promise.resolve([view(null, true)]));
    const engine = new Engine(status);
    await Promise.all([engine.probe(), engine.probe()]);
    expect(status).toHaveBeenCalledTimes(1);
  });
});

it("every reason has one next step on every system", () => {
  const steps = (["linux", "macos", "windows"] as const).map((system) =>
    (["not_installed", "not_running", "no_permission", "too_old", "wrong_system"] as const).map(
      (reason) => nextStep(reason, system).kind,
    ),
  );
  expect(steps).toEqual([
    ["guide", "copy", "copy", "guide", "probe"],
    ["guide", "probe", "probe", "guide", "probe"],
    ["guide", "probe", "probe", "guide", "probe"],
  ]);
});
