// An invented backend: it answers every command and tells a session's story on request.

import { emit } from "@tauri-apps/api/event";
import { mockIPC, mockWindows } from "@tauri-apps/api/mocks";

import type { ChosenArchive } from "../src/bindings/ChosenArchive";
import type { Draft } from "../src/bindings/Draft";
import type { EngineView } from "../src/bindings/EngineView";
import type { ErrorReport } from "../src/bindings/ErrorReport";
import type { ExportEvent } from "../src/bindings/ExportEvent";
import type { Eta } from "../src/bindings/Eta";
import type { FileEntry } from "../src/bindings/FileEntry";
import type { Phase } from "../src/bindings/Phase";
import type { Port } from "../src/bindings/Port";
import type { PortList } from "../src/bindings/PortList";
import type { Progress } from "../src/bindings/Progress";
import type { Session } from "../src/bindings/Session";
import type { SessionState } from "../src/bindings/SessionState";
import type { SessionStatus } from "../src/bindings/SessionStatus";
import type { TimingReport } from "../src/bindings/TimingReport";
import type { Undone } from "../src/bindings/Undone";
import type { Usage } from "../src/bindings/Usage";
import type { Figures } from "../src/bindings/Figures";
import type { FiguresNews } from "../src/bindings/FiguresNews";
import type { LogNews } from "../src/bindings/LogNews";
import type { FileContent } from "../src/bindings/FileContent";
import { AS_USUAL, cutShort, SLOW_PULL } from "./timings";

type Args = Record<string, unknown>;

const MEGA = 1_000_000;

export class Backend {
  engines: EngineView[] = [engine("Docker", "28.1.1", "unix:///var/run/docker.sock", "the default socket", true)];
  sessions = new Map<string, SessionStatus>();
  refuse: Record<string, ErrorReport> = {};
  /** What the files take; null while they are measured without end. */
  usage: Usage | null = { size_bytes: 214 * MEGA, stored_bytes: null, at_least: false, modified_ms: Date.now() - 2 * 3_600_000, free_bytes: 38_000 * MEGA, disk_bytes: 100_000 * MEGA, other_volumes: [] };
  archive: ChosenArchive | null = { token: "archive-1", name: "shop-2025-06-01.tar.gz", size_bytes: 48 * MEGA };
  live = false;
  /** What the programs of every session listen on. */
  ports: Omit<PortList, "seq"> = {
    ports: [
      { port: 5432, address: "127.0.0.1", process: "postgres", local: { host: "127.0.0.1", port: 49_152 } },
      { port: 8000, address: "0.0.0.0", process: "python3", local: { host: "127.0.0.1", port: 8000 } },
      { port: 9229, address: "::1", process: null, local: null },
    ],
    truncated: false,
  };
  /** What a session uses, and what its container has printed. */
  figures: Figures = { cpu: 3.2, cpu_limit: 800, memory: 188_743_680, memory_limit: 536_870_912, pids: 12, pids_limit: 4096 };
  log = "cove-agent: ready\nlistening on port 8000\n";
  /** Tells news to whoever looks. */
  hearFigures: (news: FiguresNews) => void = () => {};
  hearLog: (news: LogNews) => void = () => {};
  /** Texts that were not saved, by session. */
  drafts = new Map<string, Draft[]>();
  readonly #files = new Map<string, FileContent & { ok: true }>(Object.entries(CONTENT));
  readonly #log: Array<{ command: string; args: Args }> = [];
  #seq = 0;
  #made = 0;
  #watches = 0;

  install(): void {
    mockWindows("main");
    mockIPC((command, args) => this.#answer(command, (args ?? {}) as Args), { shouldMockEvents: true });
  }

  async settle(): Promise<void> {
    await new Promise((done) => setTimeout(done, 250));
  }

  add(name: string, workspace: string, state: SessionState, image = "python:3.13", more: Partial<SessionStatus> = {}, of: Partial<Session> = {}): string {
    const id = `3f0c7d1e-5b8a-4c7e-9a41-${String(++this.#made).padStart(12, "0")}`;
    const session: Session = {
      session_id: id,
      workspace_id: workspace,
      name,
      project_name: name,
      description: null,
      template: null,
      image: `docker.io/library/${image}`,
      image_name: image,
      allow_privilege_gain: false,
      network: "own",
      state,
      engine: null,
      created: new Date(Date.UTC(2025, 5, 1, 9, this.#made)).toISOString(),
      idle_stop_ms: null,
      stopped_unused_minutes: null,
      out_of_memory: null,
      has_container: true,
      reconnecting: false,
      ending: false,
      leftovers: [],
      export: null,
      seq: ++this.#seq,
      ...of,
    };
    this.sessions.set(id, {
      ok: true,
      session_id: id,
      ready: state === "ready",
      phase: state === "ready" ? "Ready" : "Starting",
      state,
      progress: progress(0, 0),
      error: null,
      message: "",
      seq: session.seq,
      session,
      terminals: [],
      undone: [],
      timing: state === "ready" ? AS_USUAL : null,
      ...more,
    });
    return id;
  }

  async progress(id: string, phase: Phase, at: Progress, message = ""): Promise<void> {
    const seq = this.#next(id);
    await emit("session:progress", { session_id: id, seq, phase, progress: at, message });
  }

  async ready(id: string, timing: TimingReport = AS_USUAL): Promise<void> {
    this.#become(id, { state: "ready" }, timing);
    const session = this.#seen(id);
    await emit("session:ready", { session_id: id, seq: session.seq, session, progress: progress(100, 21_000), timing });
  }

  async failed(id: string, phase: Phase, error: ErrorReport, undone: Undone[] = [], timing = cutShort("failed")): Promise<void> {
    this.#become(id, { state: "failed" }, timing);
    const session = this.#seen(id);
    await emit("session:failed", { session_id: id, seq: session.seq, session, phase, error, undone, timing });
  }

  async cancelled(id: string, phase: Phase, undone: Undone[], timing = cutShort("cancelled")): Promise<void> {
    this.#become(id, { state: "cancelled" }, timing);
    const session = this.#seen(id);
    await emit("session:cancelled", { session_id: id, seq: session.seq, session, phase, undone, timing });
  }

  async export(id: string, at: Partial<ExportEvent>): Promise<void> {
    const news = { bytes: 0, total_bytes: null, outcome: null, file_name: "api-server.tar", error: null, ...at };
    const exporting = news.outcome === null ? { bytes: news.bytes, total_bytes: news.total_bytes } : null;
    this.#become(id, { export: exporting });
    await emit("session:export", { session_id: id, seq: this.#seen(id).seq, ...news });
  }

  async tellPorts(id: string, ports: Port[]): Promise<void> {
    this.ports = { ports, truncated: false };
    await emit("ports:changed", { session_id: id, seq: ++this.#seq, ...this.ports });
  }

  /** Changes a file by other hands. */
  changeFile(path: string, content: string): void {
    this.#files.set(path, { ...text(content), revision: "other" });
  }

  /** Changes sessions by other hands, and says so. */
  async change(change: Record<string, Partial<Session> | null>): Promise<void> {
    for (const [id, session] of Object.entries(change)) {
      if (session === null) this.sessions.delete(id);
      else this.#become(id, session);
      await this.#announce(id);
    }
  }

  async engineChanged(engines: EngineView[]): Promise<void> {
    this.engines = engines;
    await emit("engine:changed", { engines });
  }

  async closing(running: number, exporting = 0): Promise<void> {
    await emit("app:closing", { running, exporting, transferring: 0 });
  }

  /** Makes a session another, with the next place in the order of events. */
  #become(id: string, change: Partial<Session>, timing: TimingReport | null = null): void {
    const status = this.sessions.get(id);
    if (!status) return;
    const seq = this.#next(id);
    status.session = { ...status.session, ...change, seq };
    status.state = status.session.state;
    status.ready = status.state === "ready";
    status.timing = timing ?? status.timing;
  }

  #next(id: string): number {
    const seq = ++this.#seq;
    const status = this.sessions.get(id);
    if (status) {
      status.seq = seq;
      status.session = { ...status.session, seq };
    }
    return seq;
  }

  #seen(id: string): Session {
    return this.sessions.get(id)!.session;
  }

  async #announce(id: string): Promise<void> {
    const session = this.sessions.get(id)?.session ?? null;
    await emit("session:changed", { session_id: id, seq: session?.seq ?? ++this.#seq, session });
  }

  /** What the answer to a command says of its session. */
  #answerAbout(id: string): { ok: true; session_id: string; seq: number; session: Session | null } {
    const session = this.sessions.get(id)?.session ?? null;
    return { ok: true, session_id: id, seq: session?.seq ?? ++this.#seq, session };
  }

  /** The arguments of every call of a command so far. */
  asked(command: string): Args[] {
    return this.#log.filter((call) => call.command === command).map((call) => call.args);
  }

  #answer(command: string, args: Args): unknown {
    this.#log.push({ command, args });
    const refusal = this.refuse[command];
    if (refusal) throw refusal;
    const id = String(args["id"]);
    switch (command) {
      case "engine_status":
        return { ok: true, engines: this.engines };
      case "select_engine":
        this.engines = this.engines.map((view) => ({ ...view, selected: view.engine_id === args["engine_id"] }));
        return { ok: true, engines: this.engines };
      case "list_sessions":
        return { ok: true, seq: this.#seq, sessions: [...this.sessions.values()].map((status) => status.session) };
      case "session_status":
        return this.sessions.get(id);
      case "list_templates":
        return { ok: true, templates: TEMPLATES };
      case "list_images":
        return {
          ok: true,
          images: [
            { image_name: "python:3.13", size_bytes: 1_021 * MEGA },
            { image_name: "postgres:17", size_bytes: 438 * MEGA },
            { image_name: "registry.example.com/team/tools:2025.6", size_bytes: 94 * MEGA },
          ],
        };
      case "read_settings":
        return { ok: true, settings: { time_limit_s: 300, cpu_limit: null, memory_limit_mb: 4096, pids_limit: 4096, stop_grace_s: 10, idle_stop_minutes: null, forward_ports: true }, engine: { processors: 8, memory_mb: 16_384, default_memory_mb: 12_288 } };
      case "write_settings":
        return { ok: true, settings: args["settings"] };
      case "create_session": {
        const request = args["request"] as { workspace_id: string; project_name?: string; image?: string };
        const made = this.add(request.project_name ?? "session", request.workspace_id, "provisioning", request.image ?? "python:3.13");
        if (this.live) void this.tell(made);
        return { ...this.#answerAbout(made), phase: "Starting", message: "starting" };
      }
      case "duplicate_session": {
        const { session } = this.sessions.get(id)!;
        const made = this.add(String(args["project_name"]), session.workspace_id, "provisioning", session.image_name);
        if (this.live) void this.tell(made);
        return { ...this.#answerAbout(made), phase: "Starting", message: "starting" };
      }
      case "rename_session": {
        const name = String(args["name"]);
        this.#become(id, { name });
        return { ...this.#answerAbout(id), name };
      }
      case "session_usage":
        return this.usage === null ? new Promise(() => {}) : { ok: true, usage: this.usage };
      case "session_stats":
        this.hearFigures = (args["on_figures"] as { onmessage: (news: FiguresNews) => void }).onmessage;
        return { ok: true, watch_id: ++this.#watches, ...this.figures };
      case "read_log": {
        const hear = (args["on_log"] as { onmessage: (news: LogNews) => void }).onmessage;
        this.hearLog = hear;
        if (this.log !== "") setTimeout(() => hear({ kind: "text", text: this.log }), 10);
        return { ok: true, watch_id: ++this.#watches, text: "", cut: false };
      }
      case "dismiss_note":
        this.#become(id, { out_of_memory: null });
        void this.#announce(id);
        return this.#answerAbout(id);
      case "export_session":
        return { ...this.#answerAbout(id), started: true };
      case "choose_archive":
        return { ok: true, archive: this.archive };
      case "discard_session":
      case "forget_session":
        this.sessions.delete(id);
        return this.#answerAbout(id);
      case "open_session":
      case "restart_session":
      case "rebuild_session":
      case "retry_session":
        this.#become(id, { state: "provisioning" });
        if (this.live) void this.tell(id);
        return this.#answerAbout(id);
      case "cancel_session":
        if (this.live) setTimeout(() => void this.cancelled(id, "PullingImage", UNDONE), 900);
        return this.#answerAbout(id);
      case "stop_session":
        this.#become(id, { state: "stopped" });
        return this.#answerAbout(id);
      case "delete_session":
        if (args["keep_volume"] === true) this.#become(id, { state: "stopped", has_container: false });
        else this.sessions.delete(id);
        return this.#answerAbout(id);
      case "list_dir":
        return { ok: true, entries: FILES[String(args["path"])] ?? [], truncated: args["path"] === "/workspace/many" };
      case "watch_dirs":
        return { ok: true, limited: false };
      case "read_file":
        return this.#files.get(String(args["path"])) ?? text("");
      case "write_file": {
        const path = String(args["path"]);
        const before = this.#files.get(path) ?? text("");
        if (typeof args["revision"] === "string" && args["revision"] !== before.revision) throw CHANGED;
        const after = { ...before, content: String(args["content"]), revision: String(Number(before.revision) + 1) };
        this.#files.set(path, after);
        return { ok: true, revision: after.revision };
      }
      case "list_ports":
        return { ok: true, ...this.ports, seq: this.#seq };
      case "read_drafts":
        return { ok: true, drafts: this.drafts.get(id) ?? [] };
      case "list_terminals":
        return { ok: true, terminals: [], tabs: [] };
      case "open_terminal": {
        const channel = args["on_output"] as { onmessage: (message: unknown) => void };
        setTimeout(() => channel.onmessage(new TextEncoder().encode(TERMINAL).buffer), 30);
        return { ok: true, terminal_id: args["terminal_id"] ?? "t1" };
      }
      default:
        return { ok: true, session_id: id };
    }
  }

  /** Plays a whole run, as the real backend would. */
  async tell(id: string): Promise<void> {
    const begun = Date.now();
    const elapsed = () => Date.now() - begun;
    for (let step = 0; step <= 60; step += 1) {
      if (this.sessions.get(id)?.state !== "provisioning") return;
      await new Promise((done) => setTimeout(done, 120));
      const at = pulling(10 + (step / 60) * 15, elapsed(), step / 60, step > 20);
      await this.progress(id, "PullingImage", { ...at, eta: told(step, (60 - step) * 120) }, "Pulling python:3.13");
    }
    if (this.sessions.get(id)?.state === "provisioning") await this.ready(id, SLOW_PULL);
  }
}

/** Surer as the run goes on. */
function told(step: number, ms: number): Eta {
  if (step < 10) return { kind: "calculating" };
  return step < 35 ? { kind: "range", low_ms: ms * 0.7, high_ms: ms * 1.6 } : { kind: "point", ms };
}

export function engine(name: string, version: string | null, address: string, source: string, selected = false): EngineView {
  return { engine_id: version === null ? null : `${name} ${address}`, name, version, address, source, selected, problem: null };
}

export function progress(percent: number, elapsed_ms: number, eta_ms: number | null = null): Progress {
  const eta: Eta = eta_ms === null ? { kind: "calculating" } : { kind: "point", ms: eta_ms };
  return { percent, eta_ms, eta, eta_low_ms: eta_ms, eta_high_ms: eta_ms, elapsed_ms, idle_ms: 0, finished: [], pull: null };
}

export function pulling(percent: number, elapsed_ms: number, fraction: number, exact = true): Progress {
  return {
    percent,
    eta_ms: 12_400,
    eta: { kind: "point", ms: 12_400 },
    eta_low_ms: 11_000,
    eta_high_ms: 14_000,
    elapsed_ms,
    idle_ms: 0,
    finished: [{ phase: "Starting", elapsed_ms: 120 }],
    pull: {
      fraction,
      downloaded_bytes: Math.round(431 * MEGA * fraction),
      total_bytes: 431 * MEGA,
      total_is_exact: exact,
      extracted_bytes: Math.round(431 * MEGA * fraction * fraction),
      bytes_per_second: 24 * MEGA,
      layers_done: Math.floor(9 * fraction),
      layers_total: 9,
    },
  };
}

export const UNDONE: Undone[] = [
  { what: "removed container `cove-3f0c7d1e-5b8a-4c7e-9a41-000000000001`", failure: null },
  { what: "removed volume `cove-3f0c7d1e-5b8a-4c7e-9a41-000000000001`", failure: null },
];

const CHANGED: ErrorReport = {
  ok: false,
  error: "CONFLICT",
  message: "`/workspace/src/app.py` changed since it was read",
  hint: "Read the file again, then apply the change to what it holds now.",
  details: {},
};

const TEMPLATES = [
  { id: "built-in", name: "Built-in", summary: "A small shell environment, always there, works offline", image_name: "cove-base:1", built_in: true },
  { id: "python", name: "Python", summary: "Python 3.13 with pip, on Debian", image_name: "python:3.13", built_in: false },
  { id: "node", name: "Node.js", summary: "Node.js 22 with npm and yarn, on Debian", image_name: "node:22", built_in: false },
  { id: "rust", name: "Rust", summary: "The stable Rust toolchain, on Debian", image_name: "rust:1", built_in: false },
  { id: "go", name: "Go", summary: "The Go 1 toolchain, on Debian", image_name: "golang:1", built_in: false },
  { id: "cpp", name: "C and C++", summary: "GCC 14 with make and autotools, on Debian", image_name: "gcc:14", built_in: false },
  { id: "debian", name: "Debian", summary: "Plain Debian 12, to install what you like", image_name: "debian:12", built_in: false },
];

function entry(path: string, kind: FileEntry["kind"] = "file", size = 812, target_kind: FileEntry["target_kind"] = null): FileEntry {
  return { name: path.slice(path.lastIndexOf("/") + 1), path, kind, target_kind, size, modified_ms: 0, mode: 0o644, ignored: false, unreadable: false };
}

const FILES: Record<string, FileEntry[]> = {
  "/workspace": [
    entry("/workspace/.git", "dir"),
    entry("/workspace/many", "dir"),
    entry("/workspace/src", "dir"),
    entry("/workspace/tests", "dir"),
    entry("/workspace/.gitignore"),
    entry("/workspace/a\nname with \u202e tricks.txt"),
    entry("/workspace/current", "symlink", 0, "dir"),
    entry("/workspace/logo.bin", "file", 48_211),
    entry("/workspace/pyproject.toml"),
    entry("/workspace/README.md"),
  ],
  "/workspace/src": [entry("/workspace/src/api", "dir"), entry("/workspace/src/__init__.py"), entry("/workspace/src/app.py")],
  "/workspace/many": Array.from({ length: 2_000 }, (_, n) => entry(`/workspace/many/file-${n}.txt`)),
};

export const APP_PY = `from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI(title="api-server")


class Item(BaseModel):
    """What is sold."""

    name: str
    price: float = 9.5


ITEMS: dict[int, Item] = {}


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> Item:
    # The list is small enough to stay in memory.
    if item_id not in ITEMS:
        raise HTTPException(status_code=404, detail=f"no item {item_id}")
    return ITEMS[item_id]
`;

const CONTENT: Record<string, FileContent & { ok: true }> = {
  "/workspace/src/app.py": text(APP_PY),
  "/workspace/README.md": text("# api-server\n\nServes *items* over HTTP.\n\n- `GET /items/{id}`\n"),
  "/workspace/logo.bin": { ok: true, content: "AAEC", encoding: "base64", charset: null, picture: null, size: 48_211, truncated: false, revision: "1" },
};

function text(content: string): FileContent & { ok: true } {
  return { ok: true, content, encoding: "utf-8", charset: null, picture: null, size: content.length, truncated: false, revision: "1" };
}

const TERMINAL =
  "\x1b[1;32mdev@api-server\x1b[0m:\x1b[1;34m/workspace\x1b[0m$ ls --color\r\n" +
  "\x1b[1;34msrc\x1b[0m  \x1b[1;34mtests\x1b[0m  README.md  pyproject.toml\r\n" +
  "\x1b[1;32mdev@api-server\x1b[0m:\x1b[1;34m/workspace\x1b[0m$ pytest -q\r\n" +
  "\x1b[32m..................\x1b[0m\x1b[31mF\x1b[0m\x1b[33ms\x1b[0m                                   [100%]\r\n" +
  "\x1b[31m1 failed\x1b[0m, \x1b[32m18 passed\x1b[0m, \x1b[33m1 skipped\x1b[0m in 0.42s  → http://127.0.0.1:8000\r\n" +
  "\x1b[1;32mdev@api-server\x1b[0m:\x1b[1;34m/workspace\x1b[0m$ ";
