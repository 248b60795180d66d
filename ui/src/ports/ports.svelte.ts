// The ports of sessions: what their programs listen on, and where that is on this machine. All is told by the Rust side as
// it changes; the window asks once, when it begins to look at a session.

import { SvelteMap } from "svelte/reactivity";

import type { ErrorReport } from "../bindings/ErrorReport";
import type { Port } from "../bindings/Port";
import type { PortList } from "../bindings/PortList";
import type { PortsEvent } from "../bindings/PortsEvent";
import type * as commands from "../lib/ipc/commands";
import { problemsOf, reportOf } from "../lib/ipc/error";

/** The commands that this needs; tests bring their own. */
export type PortCommands = Pick<typeof commands, "listPorts" | "forwardPort" | "unforwardPort" | "openPort">;

/** A port that is forwarded. */
export type ForwardedPort = Port & { local: NonNullable<Port["local"]> };

/** Hears of ports that were not forwarded before. */
type Hear = (id: string, ports: ForwardedPort[]) => void;

/** The most ports that are shown. */
const MOST_SHOWN = 200;
/** What is typed to forward a port: its number, and behind a colon one of this machine if it is to be that. */
const TYPED = /^(\d{1,5})(?:\s*:\s*(\d{1,5}))?$/;

/** The address of a forwarded port on this machine. */
export function addressOf({ local }: ForwardedPort): string {
  return `${local.host}:${local.port}`;
}

export function isForwarded(port: Port): port is ForwardedPort {
  return port.local !== null;
}

/** How many of so many chips have room in so many pixels, when one of them takes so many; the rest is counted. */
export function chipsThatFit(count: number, room: number, chip: number, counter: number): number {
  const most = Math.max(0, Math.floor(room / chip));
  return count <= most ? count : Math.max(0, Math.floor((room - counter) / chip));
}

/** The ports of one session. */
export class SessionPorts {
  list = $state.raw<readonly Port[]>([]);
  truncated = $state(false);
  /** Counts how often they were to be shown. */
  called = $state(0);
  /** What is typed to forward a port, and what is wrong with it. */
  typed = $state("");
  problem = $state<string | null>(null);
  /** Why the last thing that was asked for did not work. */
  failure = $state.raw<ErrorReport | null>(null);

  readonly #id: string;
  readonly #commands: PortCommands;
  readonly #hear: Hear;
  #seq = -1;
  /** Ports that were told already. */
  readonly #told = new Set<number>();

  constructor(id: string, portCommands: PortCommands, hear: Hear) {
    this.#id = id;
    this.#commands = portCommands;
    this.#hear = hear;
  }

  readonly forwarded = $derived(this.list.filter(isForwarded));
  /** Those that are shown: what is forwarded before the rest, where there are too many. */
  readonly shown = $derived.by((): readonly Port[] => {
    if (this.list.length <= MOST_SHOWN) return this.list;
    return [...this.forwarded, ...this.list.filter((port) => !isForwarded(port))].slice(0, MOST_SHOWN);
  });
  readonly hasMore = $derived(this.truncated || this.list.length > this.shown.length);

  /** Takes what is told of the ports, unless something newer was told before. */
  take(list: PortList): void {
    if (list.seq < this.#seq) return;
    this.#seq = list.seq;
    this.list = list.ports;
    this.truncated = list.truncated;
    const news = this.forwarded.filter(({ port }) => !this.#told.has(port));
    if (news.length === 0) return;
    for (const { port } of news) this.#told.add(port);
    this.#hear(this.#id, news);
  }

  /** Forwards what is typed; says at the field what is wrong. */
  async submit(): Promise<void> {
    const [, port, local] = TYPED.exec(this.typed.trim()) ?? [];
    this.problem = port === undefined ? "must be a port as 3000, or two as 3000:8080" : null;
    if (port === undefined) return;
    // Who has typed it needs not be told.
    this.#told.add(Number(port));
    try {
      this.take(await this.#commands.forwardPort(this.#id, Number(port), local === undefined ? null : Number(local)));
      this.typed = "";
      this.failure = null;
    } catch (thrown) {
      const report = reportOf(thrown);
      const problems = problemsOf(report);
      this.problem = problems["port"] ?? problems["local_port"] ?? null;
      if (this.problem === null) this.failure = report;
    }
  }

  forward(port: number): Promise<void> {
    this.#told.add(port);
    return this.#try(async () => this.take(await this.#commands.forwardPort(this.#id, port, null)));
  }

  unforward(port: number): Promise<void> {
    return this.#try(async () => this.take(await this.#commands.unforwardPort(this.#id, port)));
  }

  /** Shows a port in the user's browser. */
  open(port: number): Promise<void> {
    return this.#try(() => this.#commands.openPort(this.#id, port));
  }

  async #try(work: () => Promise<void>): Promise<void> {
    try {
      await work();
      this.failure = null;
    } catch (thrown) {
      this.failure = reportOf(thrown);
    }
  }
}

/** The ports of all sessions. */
export class Ports {
  readonly #commands: PortCommands;
  readonly #hear: Hear;
  /** By a session's id, as soon as anything is known of its ports. */
  readonly known = new SvelteMap<string, SessionPorts>();

  constructor(portCommands: PortCommands, hear: Hear) {
    this.#commands = portCommands;
    this.#hear = hear;
  }

  take({ session_id, ...list }: PortsEvent): void {
    this.#of(session_id).take(list);
  }

  async load(id: string): Promise<void> {
    try {
      this.take({ session_id: id, ...(await this.#commands.listPorts(id)) });
    } catch {
      // A session that is not ready has no ports, and says itself why it is not.
    }
  }

  /** Forgets the ports of sessions that are gone. */
  keep(ids: Iterable<string>): void {
    const left = new Set(ids);
    for (const id of [...this.known.keys()]) if (!left.has(id)) this.known.delete(id);
  }

  /** Not from within what draws: that would not hear of changes to what it has made itself. */
  #of(id: string): SessionPorts {
    const known = this.known.get(id);
    if (known) return known;
    const ports = new SessionPorts(id, this.#commands, this.#hear);
    this.known.set(id, ports);
    return ports;
  }
}
