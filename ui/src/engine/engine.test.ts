import { describe, expect, it, vi } from "vitest";

import type { EngineReason } from "../bindings/EngineReason";
import type { EngineView } from "../bindings/EngineView";
import { Engine, explanation, nextStep, REASON_TITLES } from "./engine.svelte";

/** The engines as they are told, whichever is chosen. */
function over(engineStatus: () => Promise<EngineView[]>): Engine {
  return new Engine({ engineStatus, selectEngine: engineStatus });
}

function view(reason: EngineReason | null, selected = false): EngineView {
  return {
    engine_id: "docker",
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
  const engine = over(() => new Promise((resolve) => (answer = resolve)));
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
    [[view("no_context"), view("no_permission"), view("config_unreadable")], true, "no_context"],
    [[view("not_installed"), view("config_unreadable")], true, "config_unreadable"],
  ])("%#", async (engines, missing, reason) => {
    const engine = over(() => Promise.resolve(engines));
    expect(engine.missing).toBe(false);
    await engine.probe();
    expect([engine.missing, engine.reason]).toEqual([missing, reason]);
  });

  it("a probe under way is not doubled", async () => {
    const status = vi.fn(() => Promise.resolve([view(null, true)]));
    const engine = over(status);
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

it("a configuration that is wrong is named with what helps, and nobody is told to start an engine", () => {
  const place = {
    ...view("bad_address"),
    source: "DOCKER_HOST",
    address: "/run/docker.sock",
    problem: { reason: "bad_address" as const, message: "a socket is written with its scheme: `unix:///run/docker.sock`" },
  };
  expect(explanation("bad_address", "linux", place)).toBe(
    'DOCKER_HOST says "/run/docker.sock", which is no address of an engine: a socket is written with its scheme: `unix:///run/docker.sock`. Correct or unset DOCKER_HOST, then start Cove again.',
  );
  const far = {
    ...view("unsupported_address"),
    source: "context far",
    address: "ssh://me@far",
    problem: { reason: "unsupported_address" as const, message: "engines over SSH are not supported yet" },
  };
  expect(explanation("unsupported_address", "linux", far)).toBe(
    'Context far says "ssh://me@far": engines over SSH are not supported yet. Cove takes no other engine in its place. Correct the context far, or choose another with "docker context use".',
  );
  for (const reason of ["bad_address", "unsupported_address", "no_context", "config_unreadable", "not_an_engine", "tls"] as const) {
    const text = explanation(reason, "linux", view(reason));
    expect([REASON_TITLES[reason], text, nextStep(reason, "linux").kind].join(" ")).not.toMatch(/systemctl|is not running/);
  }
});

describe("with two engines on the machine", () => {
  const docker = view(null, true);
  const podman = { ...view(null), engine_id: "podman", name: "Podman", address: "unix:///run/podman/podman.sock" };
  const silent = { ...docker, version: null, problem: { reason: "not_running" as const, message: "nobody answers there" } };

  it("the one that is chosen and does not answer is missing, and the other is not shown in its place", () => {
    const engine = over(() => Promise.resolve([]));
    engine.hear([silent, podman]);
    expect([engine.missing, engine.selected, engine.name, engine.reason]).toEqual([true, null, "Docker", "not_running"]);
    engine.hear([docker, podman]);
    expect([engine.missing, engine.name]).toEqual([false, "Docker"]);
  });

  it("another is used when the user chooses it, and a choice that fails is told", async () => {
    const selectEngine = vi.fn(() => Promise.resolve([{ ...silent, selected: false }, { ...podman, selected: true }]));
    const engine = new Engine({ engineStatus: () => Promise.resolve([]), selectEngine });
    engine.hear([silent, podman]);
    await engine.choose("podman");
    expect(selectEngine).toHaveBeenCalledWith("podman");
    expect([engine.missing, engine.name, engine.choosing]).toEqual([false, "Podman", null]);
    selectEngine.mockRejectedValueOnce(new Error("gone"));
    await engine.choose("docker");
    expect([engine.failure?.error, engine.name]).toEqual(["INTERNAL", "Podman"]);
  });
});
