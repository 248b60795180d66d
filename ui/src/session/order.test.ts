// One order of truth: whatever comes from the Rust side, in whatever order, the newer `seq` holds. Histories are
// invented from a seed; events arrive in their order, and lists, snapshots and answers at any time after they were made.

import { beforeEach, expect, it, vi } from "vitest";

import { becameReady, cancelled, changed, exported, failed, moved, session, status } from "../../test/sessions";
import type { Session as View } from "../bindings/Session";
import type { SessionState } from "../bindings/SessionState";
import type { SessionNews } from "../lib/ipc/events";
import { type SessionCommands, Sessions } from "./sessions.svelte";

const HISTORIES = 300;
const STEPS = 40;
const IDS = ["a", "b", "c"];
const RESTING: SessionState[] = ["ready", "paused", "stopped", "interrupted"];

beforeEach(() => sessionStorage.clear());

/** Returns numbers from 0 to 1, the same for the same seed: mulberry32. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** The Rust side: what is true, and the events that say so. */
class Truth {
  seq = 0;
  readonly sessions = new Map<string, { view: View; percent: number }>();
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.#random() * from.length)]!;
  }

  /** Lets something happen to a session, and returns the event that tells it. */
  step(): SessionNews {
    const id = this.pick(IDS);
    const seq = ++this.seq;
    const known = this.sessions.get(id);
    if (!known) return this.#change(id, seq, { state: "provisioning" });
    if (known.view.state === "provisioning") {
      switch (this.pick(["progress", "progress", "ready", "failed", "cancelled", "renamed"] as const)) {
        case "progress":
          known.percent = Math.min(99, known.percent + 1);
          known.view = { ...known.view, seq };
          return moved(id, seq, known.percent);
        case "ready":
          known.view = { ...known.view, state: "ready", seq };
          return { ...becameReady(id, seq), session: known.view } as SessionNews;
        case "failed":
          known.view = { ...known.view, state: "failed", seq };
          return { ...failed(id, seq), session: known.view } as SessionNews;
        case "cancelled":
          known.view = { ...known.view, state: "cancelled", seq };
          return { ...cancelled(id, seq), session: known.view } as SessionNews;
        case "renamed":
          return this.#change(id, seq, { name: `${id}${seq}` });
      }
    }
    switch (this.pick(["begins", "becomes", "export", "gone"] as const)) {
      case "begins":
        known.percent = 0;
        return this.#change(id, seq, { state: "provisioning" });
      case "becomes":
        return this.#change(id, seq, { state: this.pick(RESTING), name: `${id}${seq}` });
      case "export": {
        const exporting = this.pick([{ bytes: seq, total_bytes: null }, null]);
        known.view = { ...known.view, export: exporting, seq };
        return exported(id, seq, exporting ?? { outcome: "done" });
      }
      case "gone":
        this.sessions.delete(id);
        return changed(id, seq, null);
    }
  }

  #change(id: string, seq: number, change: Partial<View>): SessionNews {
    const view = { ...(this.sessions.get(id)?.view ?? session(id)), ...change, seq };
    this.sessions.set(id, { view, percent: this.sessions.get(id)?.percent ?? 0 });
    return changed(id, seq, view);
  }
}

it.each([...Array(HISTORIES).keys()])("history %i: in the end the window shows what is true", async (seed) => {
  const chance = random(seed);
  const truth = new Truth(chance);
  /** Answers that are under way, with what was true when they were made. */
  const underWay: Array<() => void> = [];
  const later = <T>(answer: T) => new Promise<T>((resolve) => underWay.push(() => resolve(answer)));
  const calls: Partial<SessionCommands> = {
    listSessions: () => later({ seq: truth.seq, sessions: [...truth.sessions.values()].map(({ view }) => view) }),
    sessionStatus: (id) => {
      const known = truth.sessions.get(id ?? "");
      if (!known) return Promise.reject(new Error("gone"));
      return later(status(id ?? "", { state: known.view.state, seq: known.view.seq, session: known.view }));
    },
    stopSession: (id) => {
      const known = truth.sessions.get(id ?? "");
      return later({ ok: true as const, session_id: id ?? "", seq: known?.view.seq ?? truth.seq, session: known?.view ?? null });
    },
  };
  const sessions = new Sessions(calls as SessionCommands, () => 0);
  /** Events that are on their way, in their order. */
  const events: SessionNews[] = [];
  const asked: Array<Promise<unknown>> = [];
  for (let step = 0; step < STEPS; step += 1) {
    events.push(truth.step());
    while (events.length > 0 && chance() < 0.6) sessions.hear(events.shift()!);
    if (chance() < 0.2) asked.push(sessions.load());
    if (chance() < 0.2) asked.push(sessions.stop(truth.pick(IDS)).catch(() => {}));
    while (underWay.length > 0 && chance() < 0.5) underWay.splice(Math.floor(chance() * underWay.length), 1)[0]!();
    await Promise.resolve();
  }
  for (const event of events) sessions.hear(event);
  const all = Promise.all(asked);
  const isOver = vi.fn();
  void all.then(isOver);
  while (isOver.mock.calls.length === 0) {
    for (const answer of underWay.splice(0)) answer();
    await new Promise((done) => setTimeout(done));
  }
  const shown = [...sessions.known.values()].map((known) => [known.id, known.name, known.state, known.export, known.seq]);
  const expected = [...truth.sessions.values()].map(({ view }) => [view.session_id, view.name, view.state, view.export, view.seq]);
  const byId = (a: unknown[], b: unknown[]) => String(a[0]).localeCompare(String(b[0]));
  expect(shown.sort(byId)).toEqual(expected.sort(byId));
});
