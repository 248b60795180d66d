import { beforeEach, expect, it, vi } from "vitest";

import type { Settings } from "../bindings/Settings";
import { CommandError } from "../lib/ipc/error";
import { idleChoices, NO_NUMBER, SettingsForm, TerminalPreferences, whatEmptyMeans } from "./settings.svelte";

const SETTINGS: Settings = { time_limit_s: 300, cpu_limit: null, memory_limit_mb: 2048, pids_limit: 4096, stop_grace_s: 10, idle_stop_minutes: null, forward_ports: true };

const ENGINE = { processors: 2, memory_mb: 4096, default_memory_mb: 3072 };

beforeEach(() => localStorage.clear());

async function shown(writeSettings = vi.fn((settings: Settings) => Promise.resolve(settings))) {
  const form = new SettingsForm({ readSettings: () => Promise.resolve({ settings: SETTINGS, engine: ENGINE }), writeSettings }, new TerminalPreferences());
  await form.show();
  return { form, writeSettings };
}

it("reads what is set and writes what was typed; empty means no limit", async () => {
  const { form, writeSettings } = await shown();
  expect(form.values).toEqual({ time_limit_s: "300", cpu_limit: "", memory_limit_mb: "2048", pids_limit: "4096", stop_grace_s: "10", idle_stop_minutes: "" });
  form.values.cpu_limit = " 1.5 ";
  form.values.memory_limit_mb = "";
  form.values.idle_stop_minutes = "240";
  form.forwardPorts = false;
  form.simpleRenderer = true;
  await form.save();
  const written = { ...SETTINGS, cpu_limit: 1.5, memory_limit_mb: null, idle_stop_minutes: 240, forward_ports: false };
  expect(writeSettings.mock.calls).toEqual([[written]]);
  expect([form.open, localStorage.getItem("cove.terminal.renderer")]).toEqual([false, "dom"]);
  expect(new TerminalPreferences().simpleRenderer).toBe(true);
});

it("says in the engine's figures what an empty limit means", async () => {
  const { form } = await shown();
  expect(whatEmptyMeans(form.engine)).toEqual({
    cpu_limit: "Empty means all 2.",
    memory_limit_mb: "Empty means three quarters of the engine’s: 3072.",
  });
  expect(whatEmptyMeans(null)).toEqual({
    cpu_limit: "Empty means all.",
    memory_limit_mb: "Empty means three quarters of the engine’s.",
  });
});

it("what is no number is said at its field and nothing is sent", async () => {
  const { form, writeSettings } = await shown();
  form.values.time_limit_s = "";
  form.values.cpu_limit = "two";
  await form.save();
  expect(form.problems).toEqual({ time_limit_s: NO_NUMBER, cpu_limit: NO_NUMBER });
  expect(writeSettings).not.toHaveBeenCalled();
});

it("what the other side refuses is said at its field, and what was typed stays", async () => {
  const { form } = await shown(
    vi.fn(() =>
      Promise.reject(
        new CommandError({
          ok: false,
          error: "VALIDATION_ERROR",
          message: "no",
          hint: "",
          details: { fields: { pids_limit: "must be at least 16" } },
        }),
      ),
    ),
  );
  form.values.pids_limit = "1";
  await form.save();
  expect([form.open, form.problems, form.failure, form.values.pids_limit]).toEqual([
    true,
    { pids_limit: "must be at least 16" },
    null,
    "1",
  ]);
});

it("offers what is set by other means beside the usual times", () => {
  expect(idleChoices("60").map((choice) => choice.value)).toEqual(["", "30", "60", "240", "480"]);
  expect(idleChoices("45").at(-1)).toEqual({ value: "45", label: "After 45 minutes" });
});
