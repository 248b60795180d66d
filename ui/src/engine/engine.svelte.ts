// Which engines were found and whether one can be used.

import type { EngineReason } from "../bindings/EngineReason";
import type { EngineView } from "../bindings/EngineView";
import type { ErrorReport } from "../bindings/ErrorReport";
import type { engineStatus, selectEngine } from "../lib/ipc/commands";
import type { System } from "../lib/ipc/desktop";
import { reportOf } from "../lib/ipc/error";

/** What the one button of the page does. */
export type NextStep =
  | { kind: "guide"; label: string; url: string }
  | { kind: "copy"; label: string; command: string }
  | { kind: "probe"; label: string };

/** What a place that tells of an engine's trouble needs to help. */
export interface EngineHelp {
  engine: Engine;
  system: System;
  oncopy: (text: string) => void;
  onguide: (url: string) => void;
}

const INSTALL_GUIDES: Record<System, string> = {
  linux: "https://docs.docker.com/engine/install/",
  macos: "https://docs.docker.com/desktop/setup/install/mac-install/",
  windows: "https://docs.docker.com/desktop/setup/install/windows-install/",
};

export const REASON_TITLES: Record<EngineReason, string> = {
  not_installed: "No container engine is installed",
  not_running: "The container engine is not running",
  no_permission: "You may not use the container engine",
  too_old: "The container engine is too old",
  wrong_system: "The container engine runs Windows containers",
  bad_address: "The engine's address cannot be used",
  unsupported_address: "Cove cannot reach the engine that is configured",
  no_context: "The Docker context does not exist",
  config_unreadable: "Docker's configuration cannot be read",
  unreachable: "The container engine cannot be reached",
  not_an_engine: "What answers is no container engine",
  tls: "The encrypted connection to the engine fails",
};

/** What is configured wrongly decides; then a place where an engine stands tells more than one where none was ever found. */
const MOST_TELLING: readonly EngineReason[] = [
  "bad_address",
  "unsupported_address",
  "no_context",
  "tls",
  "not_an_engine",
  "no_permission",
  "not_running",
  "too_old",
  "wrong_system",
  "unreachable",
  "config_unreadable",
  "not_installed",
];

interface EngineCommands {
  engineStatus: typeof engineStatus;
  selectEngine: typeof selectEngine;
}

export class Engine {
  engines = $state.raw<EngineView[]>([]);
  probing = $state(false);
  /** Whether an answer came since the window loaded. */
  known = $state(false);
  failure = $state.raw<ErrorReport | null>(null);

  /** The one that was used last. */
  #last = $state.raw<EngineView | null>(null);
  /** How often the engines were told unasked; a probe asked for before is older. */
  #told = 0;

  /** The one that the user has just chosen, until the answer. */
  choosing = $state.raw<string | null>(null);

  readonly #commands: EngineCommands;

  constructor(commands: EngineCommands) {
    this.#commands = commands;
  }

  /** The one that new sessions are made on, whether or not it answers. */
  readonly chosen = $derived.by(() => this.engines.find((engine) => engine.selected) ?? null);

  readonly selected = $derived.by(
    () => this.engines.find((engine) => engine.selected && engine.problem === null) ?? null,
  );
  readonly missing = $derived.by(() => this.known && this.selected === null);
  readonly wasUsed = $derived.by(() => this.#last !== null || this.chosen !== null);
  /** What it is called in a sentence while it does not answer. */
  readonly name = $derived.by(() => this.chosen?.name ?? this.#last?.name ?? "The container engine");
  /** The problem of the one that was chosen; without one, that which is closest to being solved. */
  readonly reason = $derived.by((): EngineReason => {
    if (this.chosen?.problem) return this.chosen.problem.reason;
    const reasons = this.engines.map((engine) => engine.problem?.reason);
    return MOST_TELLING.find((reason) => reasons.includes(reason)) ?? "not_installed";
  });
  /** The place that has this problem. */
  readonly place = $derived.by(
    () => (this.chosen?.problem ? this.chosen : this.engines.find((engine) => engine.problem?.reason === this.reason)) ?? null,
  );

  /** Looks again; a probe under way is not doubled. */
  async probe(): Promise<void> {
    if (this.probing) return;
    this.probing = true;
    const told = this.#told;
    try {
      const engines = await this.#commands.engineStatus();
      if (this.#told === told) this.#take(engines, null);
    } catch (thrown) {
      if (this.#told === told) this.#take([], reportOf(thrown));
    } finally {
      this.probing = false;
    }
  }

  /** Makes new sessions on another engine; those that there are stay where they are. */
  async choose(id: string): Promise<void> {
    if (this.choosing !== null) return;
    this.choosing = id;
    try {
      this.hear(await this.#commands.selectEngine(id));
    } catch (thrown) {
      this.failure = reportOf(thrown);
    } finally {
      this.choosing = null;
    }
  }

  /** Takes what was told unasked. */
  hear(engines: EngineView[]): void {
    this.#told += 1;
    this.#take(engines, null);
  }

  #take(engines: EngineView[], failure: ErrorReport | null): void {
    this.engines = engines;
    this.failure = failure;
    this.known = true;
    this.#last = this.selected ?? this.#last;
  }
}

export function nextStep(reason: EngineReason, system: System): NextStep {
  switch (reason) {
    case "not_installed":
      return { kind: "guide", label: "Open the install guide", url: INSTALL_GUIDES[system] };
    case "too_old":
      return { kind: "guide", label: "Open the update guide", url: INSTALL_GUIDES[system] };
    case "not_running":
      return system === "linux"
        ? { kind: "copy", label: "Copy the start command", command: "sudo systemctl start docker" }
        : { kind: "probe", label: "Look again" };
    case "no_permission":
      return system === "linux"
        ? { kind: "copy", label: "Copy the command", command: 'sudo usermod -aG docker "$USER"' }
        : { kind: "probe", label: "Look again" };
    case "no_context":
      return { kind: "copy", label: "Copy the command", command: "docker context use default" };
    case "wrong_system":
    case "bad_address":
    case "unsupported_address":
    case "config_unreadable":
    case "unreachable":
    case "not_an_engine":
    case "tls":
      return { kind: "probe", label: "Look again" };
    default:
      return reason satisfies never;
  }
}

/** Says what is wrong and what helps; `place` is where it is so. */
export function explanation(reason: EngineReason, system: System, place: EngineView | null): string {
  const source = place?.source ?? "Docker's configuration";
  const problem = place?.problem?.message ?? "it cannot be used";
  const isVariable = source.startsWith("DOCKER_");
  const mend = isVariable
    ? `Correct or unset ${source}, then start Cove again.`
    : `Correct the ${source}, or choose another with "docker context use".`;
  switch (reason) {
    case "not_installed":
      return "Cove runs sessions on a container engine on your machine: Docker, Podman, Colima, OrbStack or Rancher Desktop. Install one of them and start it.";
    case "not_running":
      return system === "linux"
        ? "An engine is installed, but it does not answer. Start it with the command below."
        : "An engine is installed, but it does not answer. Start it from your applications.";
    case "no_permission":
      return system === "linux"
        ? "An engine is running, but your user may not talk to it. Add yourself to its group with the command below, then log out and in again."
        : "An engine is running, but your user may not talk to it. Check its settings.";
    case "too_old":
      return "Cove needs Docker 20.10, Podman 4, or newer.";
    case "wrong_system":
      return "Cove's sessions are Linux containers. Switch the engine to Linux containers in its menu.";
    case "bad_address":
      return `${capital(source)} says "${place?.address ?? ""}", which is no address of an engine: ${problem}. ${mend}`;
    case "unsupported_address":
      return `${capital(source)} says "${place?.address ?? ""}": ${problem}. Cove takes no other engine in its place. ${mend}`;
    case "no_context":
      return `${capital(problem)}. Choose one that exists, for example with the command below, or unset DOCKER_CONTEXT and start Cove again.`;
    case "config_unreadable":
      return `${capital(problem)}. Correct that file; Cove looks again by itself.`;
    case "unreachable":
      return `${capital(source)} says "${place?.address ?? ""}", and no engine answers there: ${problem}. Start that engine, or correct the address.`;
    case "not_an_engine":
      return `${capital(source)} says "${place?.address ?? ""}", but ${problem}. ${mend}`;
    case "tls":
      return `The engine at "${place?.address ?? ""}" cannot be reached safely: ${problem}. Check the certificates in ${isVariable ? "DOCKER_CERT_PATH" : `the ${source}`}.`;
    default:
      return reason satisfies never;
  }
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
