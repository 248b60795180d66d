// What the user can set: limits that the Rust side keeps, and preferences of this window.

import type { EngineBounds } from "../bindings/EngineBounds";
import type { ErrorReport } from "../bindings/ErrorReport";
import type { Settings as Limits } from "../bindings/Settings";
import { count } from "../lib/format";
import type * as commands from "../lib/ipc/commands";
import { problemsOf, reportOf } from "../lib/ipc/error";
import { recall, remember } from "../lib/remembered";

type FieldName = Exclude<keyof Limits, "forward_ports">;

/** After how many minutes of no use a session can be stopped; empty for never. */
const IDLE_CHOICES = [
  { value: "", label: "Never" },
  { value: "30", label: "After 30 minutes" },
  { value: "60", label: "After 1 hour" },
  { value: "240", label: "After 4 hours" },
  { value: "480", label: "After 8 hours" },
];

export const NO_NUMBER = "must be a number";

/** Preferences of the terminal that need no restart of a session. */
export class TerminalPreferences {
  /** Draws with elements instead of the graphics card. */
  simpleRenderer = $state(recall("terminal.renderer", "restart") === "dom");
  screenReader = $state(recall("terminal.screen-reader", "restart") === "on");

  set(simpleRenderer: boolean, screenReader: boolean): void {
    this.simpleRenderer = simpleRenderer;
    this.screenReader = screenReader;
    remember("terminal.renderer", simpleRenderer ? "dom" : null, "restart");
    remember("terminal.screen-reader", screenReader ? "on" : null, "restart");
  }
}

/** The choices, and what is set by other means as it is. */
export function idleChoices(minutes: string): Array<{ value: string; label: string }> {
  if (IDLE_CHOICES.some((choice) => choice.value === minutes)) return IDLE_CHOICES;
  return [...IDLE_CHOICES, { value: minutes, label: `After ${count(Number(minutes), "minute")}` }];
}

/** What an empty limit stands for, in the engine's figures where they are known. */
export function whatEmptyMeans(engine: EngineBounds | null): { cpu_limit: string; memory_limit_mb: string } {
  const processors = engine?.processors ?? null;
  const memory = engine?.default_memory_mb ?? null;
  return {
    cpu_limit: processors === null ? "Empty means all." : `Empty means all ${processors}.`,
    memory_limit_mb:
      memory === null
        ? "Empty means three quarters of the engine’s."
        : `Empty means three quarters of the engine’s: ${memory}.`,
  };
}

export class SettingsForm {
  open = $state(false);
  loading = $state(false);
  saving = $state(false);
  values = $state<Record<FieldName, string>>({
    time_limit_s: "",
    cpu_limit: "",
    memory_limit_mb: "",
    pids_limit: "",
    stop_grace_s: "",
    idle_stop_minutes: "",
  });
  /** What the engine has; `null` while it is not known. */
  engine = $state.raw<EngineBounds | null>(null);
  forwardPorts = $state(true);
  simpleRenderer = $state(false);
  screenReader = $state(false);
  problems = $state.raw<Record<string, string>>({});
  failure = $state.raw<ErrorReport | null>(null);

  readonly preferences: TerminalPreferences;
  readonly #commands: Pick<typeof commands, "readSettings" | "writeSettings">;

  constructor(
    formCommands: Pick<typeof commands, "readSettings" | "writeSettings">,
    preferences: TerminalPreferences,
  ) {
    this.#commands = formCommands;
    this.preferences = preferences;
  }

  async show(): Promise<void> {
    if (this.open) return;
    this.open = true;
    this.loading = true;
    this.failure = null;
    this.problems = {};
    this.simpleRenderer = this.preferences.simpleRenderer;
    this.screenReader = this.preferences.screenReader;
    try {
      const { settings, engine } = await this.#commands.readSettings();
      this.engine = engine;
      this.#fill(settings);
    } catch (thrown) {
      this.failure = reportOf(thrown);
    } finally {
      this.loading = false;
    }
  }

  close(): void {
    this.open = false;
  }

  async save(): Promise<void> {
    if (this.saving || this.loading) return;
    const problems: Record<string, string> = {};
    const number = (name: FieldName): number => {
      const text = this.values[name].trim();
      const value = Number(text);
      if (text === "" || !Number.isFinite(value)) problems[name] = NO_NUMBER;
      return value;
    };
    const optional = (name: FieldName): number | null =>
      this.values[name].trim() === "" ? null : number(name);
    const limits: Limits = {
      time_limit_s: number("time_limit_s"),
      cpu_limit: optional("cpu_limit"),
      memory_limit_mb: optional("memory_limit_mb"),
      pids_limit: number("pids_limit"),
      stop_grace_s: number("stop_grace_s"),
      idle_stop_minutes: optional("idle_stop_minutes"),
      forward_ports: this.forwardPorts,
    };
    this.problems = problems;
    this.failure = null;
    if (Object.keys(problems).length > 0) return;

    this.saving = true;
    try {
      this.#fill(await this.#commands.writeSettings(limits));
      this.preferences.set(this.simpleRenderer, this.screenReader);
      this.open = false;
    } catch (thrown) {
      const failure = reportOf(thrown);
      this.problems = problemsOf(failure);
      const placed = Object.keys(this.values).some((name) => name in this.problems);
      this.failure = placed ? null : failure;
    } finally {
      this.saving = false;
    }
  }

  #fill(limits: Limits): void {
    this.forwardPorts = limits.forward_ports;
    this.values = {
      time_limit_s: String(limits.time_limit_s),
      cpu_limit: limits.cpu_limit === null ? "" : String(limits.cpu_limit),
      memory_limit_mb: limits.memory_limit_mb === null ? "" : String(limits.memory_limit_mb),
      pids_limit: String(limits.pids_limit),
      stop_grace_s: String(limits.stop_grace_s),
      idle_stop_minutes: limits.idle_stop_minutes === null ? "" : String(limits.idle_stop_minutes),
    };
  }
}
