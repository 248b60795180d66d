// The states of the window that are worth looking at.

import type { EngineView } from "../src/bindings/EngineView";
import type { ErrorReport } from "../src/bindings/ErrorReport";
import type { TimingReport } from "../src/bindings/TimingReport";
import { APP_PY, type Backend, engine, progress, pulling, UNDONE } from "./backend";
import { AS_USUAL, FIRST_RUN, SLOW_PULL, STALLED_PULL } from "./timings";

interface Scene {
  stage?: (backend: Backend) => void;
  play?: (backend: Backend) => Promise<void>;
}

const NOT_FOUND: ErrorReport = {
  ok: false,
  error: "IMAGE_UNAVAILABLE",
  message: "failed to pull image `docker.io/library/pyton:3.13`: manifest unknown",
  hint: "Check the spelling of the image and its tag; a private image needs `docker login` first.",
  details: { image: "docker.io/library/pyton:3.13", reason: "not_found" },
};

const INVALID: ErrorReport = {
  ok: false,
  error: "VALIDATION_ERROR",
  message: "the request has fields (`image`, `project_name`, `workspace_id`) that must be corrected",
  hint: "Correct the marked fields and try again.",
  details: {
    fields: {
      image: "must be a reference as `name:tag`, and `Py thon` has a space",
      project_name: "must be at most 80 characters long, and has 93",
      workspace_id: "is required",
    },
  },
};

const NOT_RUNNING: EngineView[] = [
  {
    ...engine("Docker", null, "unix:///var/run/docker.sock", "the default socket"),
    problem: { reason: "not_running", message: "nobody answers on `/var/run/docker.sock`" },
  },
  {
    ...engine("Podman", null, "unix:///run/user/1000/podman/podman.sock", "XDG_RUNTIME_DIR"),
    problem: { reason: "not_installed", message: "there is no socket" },
  },
  {
    ...engine("Colima", null, "unix:///home/dev/.colima/default/docker.sock", "context colima"),
    problem: { reason: "not_installed", message: "there is no socket" },
  },
];

function others(backend: Backend): void {
  backend.add("worker", "shop", "stopped");
  backend.add("frontend", "shop", "failed", "node:22");
  backend.add("try-go", "scratch", "cancelled", "golang:1");
  backend.add("kernel-notes", "scratch", "interrupted", "debian:12");
}

function startOne(backend: Backend): string {
  others(backend);
  return backend.add("api-server", "shop", "provisioning", "python:3.13");
}

export const SCENES: Record<string, Scene> = {
  live: { stage: (backend) => (backend.live = true) },
  empty: {},
  dialog: { stage: others, play: () => press("new-session") },
  "dialog-image": {
    stage: others,
    play: async () => {
      await press("new-session");
      await type("image", "p");
    },
  },
  "dialog-errors": {
    stage: (backend) => {
      others(backend);
      backend.refuse["create_session"] = INVALID;
    },
    play: async () => {
      await press("new-session");
      await type("project_name", "a name that goes on and on and on");
      await type("workspace_id", "");
      await type("image", "Py thon");
      await press("create-session");
    },
  },
  pull: {
    stage: (backend) => void startOne(backend),
    play: async (backend) => {
      await backend.progress(lastId(backend), "PullingImage", pulling(17.3, 21_400, 0.423), "Pulling python:3.13");
      await wait(200);
    },
  },
  "pull-range": {
    stage: (backend) => void startOne(backend),
    play: async (backend) => {
      const at = { ...pulling(17.3, 21_400, 0.423, false), eta: { kind: "range" as const, low_ms: 10_900, high_ms: 24_100 } };
      await backend.progress(lastId(backend), "PullingImage", at, "Pulling python:3.13");
      await wait(200);
    },
  },
  extracting: {
    stage: (backend) => void startOne(backend),
    play: async (backend) => {
      const { pull, ...at } = pulling(22.4, 37_900, 0.87);
      const extracting = pull && { ...pull, downloaded_bytes: pull.total_bytes, extracted_bytes: 120_000_000, layers_done: 5 };
      await backend.progress(lastId(backend), "PullingImage", { ...at, pull: extracting }, "Pulling python:3.13");
      await wait(200);
    },
  },
  stalled: {
    stage: (backend) => void startOne(backend),
    play: (backend) => stall(backend, "3f2a9c1b7d40"),
  },
  "stalled-nowhere": {
    stage: (backend) => void startOne(backend),
    play: (backend) => stall(backend, null),
  },
  starting: {
    stage: (backend) => void startOne(backend),
    play: async (backend) => {
      await backend.progress(lastId(backend), "StartingContainer", finished(), "Starting the container");
      await pressDetails();
    },
  },
  background: {
    stage: (backend) => void startOne(backend),
    play: async (backend) => {
      await backend.progress(lastId(backend), "PullingImage", pulling(17.3, 21_400, 0.423), "Pulling python:3.13");
      await press("run-in-background");
    },
  },
  failed: {
    stage: (backend) => void startOne(backend),
    play: async (backend) => {
      await backend.progress(lastId(backend), "PullingImage", progress(10, 1_400), "Pulling python:3.13");
      await backend.failed(lastId(backend), "PullingImage", NOT_FOUND, UNDONE);
      await wait(200);
    },
  },
  "failed-timing": {
    stage: (backend) => void startOne(backend),
    play: async (backend) => {
      await backend.progress(lastId(backend), "PullingImage", pulling(13.4, 9_300, 0.22), "Pulling python:3.13");
      await backend.failed(lastId(backend), "PullingImage", NOT_FOUND, UNDONE);
      await wait(200);
      await pressDetails();
      document.querySelector("[data-testid=timing-report]")?.scrollIntoView();
    },
  },
  "failed-left": {
    stage: (backend) => void startOne(backend),
    play: async (backend) => {
      await backend.progress(lastId(backend), "CreatingContainer", finished(), "Creating the container");
      await backend.failed(lastId(backend), "CreatingContainer", NOT_FOUND, [
        UNDONE[0]!,
        { what: UNDONE[1]!.what, failure: "the volume is in use" },
      ]);
      await press("close-progress");
    },
  },
  cancelled: {
    stage: (backend) => void startOne(backend),
    play: async (backend) => {
      await backend.progress(lastId(backend), "CreatingContainer", finished(), "Creating the container");
      await press("cancel-session");
      await backend.cancelled(lastId(backend), "CreatingContainer", UNDONE);
      await wait(200);
    },
  },
  cancelling: {
    stage: (backend) => void startOne(backend),
    play: async (backend) => {
      await backend.progress(lastId(backend), "CreatingContainer", finished(), "Creating the container");
      await press("cancel-session");
    },
  },
  "cancelled-timing": {
    stage: (backend) => void startOne(backend),
    play: async (backend) => {
      await backend.progress(lastId(backend), "PullingImage", pulling(13.4, 9_300, 0.22), "Pulling python:3.13");
      await backend.cancelled(lastId(backend), "PullingImage", UNDONE);
      await wait(200);
      await pressDetails();
    },
  },
  timing: timingOf(SLOW_PULL),
  "timing-stalled": timingOf(STALLED_PULL),
  "timing-first": timingOf(FIRST_RUN),
  "timing-usual": timingOf(AS_USUAL),
  ready: {
    stage: (backend) => {
      others(backend);
      backend.add("api-server", "shop", "ready");
    },
    play: async () => {
      await wait(900);
      await pressRow("src");
      await pressRow("README.md");
      await pressRow("app.py");
      await wait(900);
    },
  },
  unsaved: {
    stage: (backend) => void backend.add("api-server", "shop", "ready"),
    play: async () => {
      await edit();
      document.querySelector<HTMLElement>("[data-testid=close-tab]")?.click();
      await wait(600);
    },
  },
  changed: { stage: (backend) => void backend.add("api-server", "shop", "ready"), play: conflict },
  compare: {
    stage: (backend) => void backend.add("api-server", "shop", "ready"),
    play: async (backend) => {
      await conflict(backend);
      document.querySelector<HTMLElement>("[data-choice=compare]")?.click();
      await wait(900);
    },
  },
  replace: {
    stage: (backend) => void backend.add("api-server", "shop", "ready"),
    play: async () => {
      await edit();
      pressKey("h");
      await wait(900);
    },
  },
  resumed: {
    stage: (backend) => {
      const id = backend.add("api-server", "shop", "ready");
      backend.drafts.set(id, [{ path: "/workspace/src/app.py", name: "app.py", content: `# Unsaved\n${APP_PY}`, charset: null, revision: "0" }]);
    },
    play: () => wait(1_800),
  },
  binary: {
    stage: (backend) => void backend.add("api-server", "shop", "ready"),
    play: async () => {
      await wait(900);
      await pressRow("logo.bin");
      await pressRow("many");
      await wait(300);
    },
  },
  terminal: {
    stage: (backend) => void backend.add("api-server", "shop", "ready"),
    play: () => wait(1_200),
  },
  stopped: { stage: (backend) => void backend.add("worker", "shop", "stopped") },
  interrupted: { stage: (backend) => void backend.add("kernel-notes", "scratch", "interrupted") },
  kept: {
    stage: (backend) => {
      others(backend);
      for (const name of ["old-prototype", "thesis-data"]) {
        backend.add(name, "shop", "stopped", "python:3.13", {}, { has_container: false });
      }
    },
    play: async () => {
      document.querySelector<HTMLElement>("[data-testid=kept-files] button.main")?.focus();
      document.querySelector<HTMLElement>("[data-testid=kept-files] button.main")?.click();
      await wait(200);
    },
  },
  leftovers: {
    stage: (backend) => {
      const leftovers = [
        "Volume `cove-3f0c7d1e-5b8a-4c7e-9a41-000000000001`",
        "Container `cove-3f0c7d1e-5b8a-4c7e-9a41-000000000001`",
      ];
      backend.add("frontend", "shop", "cancelled", "node:22", {}, { leftovers });
      backend.add("worker", "shop", "stopped");
    },
    play: async () => {
      document.querySelector<HTMLElement>("[data-testid=session-row] button.main")?.click();
      await wait(200);
    },
  },
  rename: { stage: (backend) => void backend.add("worker", "shop", "stopped"), play: () => choose("rename") },
  "rename-refused": {
    stage: (backend) => {
      backend.add("worker", "shop", "stopped");
      backend.refuse["rename_session"] = { ...INVALID, details: { fields: { name: "is required" } } };
    },
    play: async () => {
      await choose("rename");
      await type("answer", " ");
      await press("submit");
    },
  },
  rebuild: { stage: (backend) => void backend.add("worker", "shop", "stopped"), play: () => choose("rebuild") },
  duplicate: { stage: (backend) => void backend.add("worker", "shop", "stopped"), play: () => choose("duplicate") },
  export: {
    stage: (backend) => void backend.add("api-server", "shop", "ready"),
    play: async (backend) => {
      await wait(900);
      await backend.export(lastId(backend), { bytes: 120_000_000, total_bytes: 431_000_000 });
      await wait(300);
    },
  },
  exported: {
    stage: (backend) => void backend.add("api-server", "shop", "ready"),
    play: async (backend) => {
      await wait(900);
      await backend.export(lastId(backend), { bytes: 431_000_000, total_bytes: 431_000_000, outcome: "done" });
      await wait(600);
    },
  },
  "engine-gone": {
    stage: (backend) => {
      others(backend);
      backend.add("api-server", "shop", "ready");
    },
    play: async (backend) => {
      await wait(500);
      await backend.engineChanged(NOT_RUNNING);
      await backend.change({ [lastId(backend)]: { state: "stopped" } });
      await wait(300);
    },
  },
  "engine-gone-tried": {
    stage: (backend) => void backend.add("api-server", "shop", "stopped"),
    play: async (backend) => {
      await backend.engineChanged(NOT_RUNNING);
      await wait(200);
      await press("what-was-tried");
    },
  },
  closing: {
    stage: (backend) => {
      startOne(backend);
      backend.add("try-rust", "scratch", "provisioning", "rust:1");
    },
    play: async (backend) => {
      await backend.progress(lastId(backend), "PullingImage", pulling(17.3, 21_400, 0.423), "Pulling python:3.13");
      await press("run-in-background");
      await backend.closing(2);
      await wait(600);
    },
  },
  archive: {
    stage: others,
    play: async () => {
      await press("new-session");
      await wait(300);
      await press("choose-archive");
    },
  },
  delete: {
    stage: (backend) => void backend.add("worker", "shop", "stopped"),
    play: () => choose("remove"),
  },
  "delete-measuring": {
    stage: (backend) => {
      backend.add("worker", "shop", "stopped");
      backend.usage = null;
    },
    play: () => choose("remove"),
  },
  "delete-keep": {
    stage: (backend) => void backend.add("worker", "shop", "stopped"),
    play: async () => {
      await choose("remove");
      await press("keep-volume");
    },
  },
  "delete-kept": {
    stage: (backend) => void backend.add("thesis-data", "shop", "stopped", "python:3.13", {}, { has_container: false }),
    play: () => choose("remove"),
  },
  dropdown: {
    stage: others,
    play: async () => {
      const button = document.querySelector<HTMLElement>("main header button");
      button?.focus();
      button?.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
      await wait(400);
    },
  },
  menu: {
    stage: others,
    play: pressMenu,
  },
  "no-engine": {
    stage: (backend) => {
      backend.engines = NOT_RUNNING;
    },
  },
  settings: {
    stage: others,
    play: async () => {
      await press("open-settings");
      await wait(300);
    },
  },
};

async function edit(): Promise<void> {
  await wait(900);
  await pressRow("src");
  await pressRow("app.py");
  await wait(900);
  const content = document.querySelector<HTMLElement>(".cm-content");
  content?.focus();
  document.execCommand("insertText", false, "# Edited here\n");
  await wait(300);
}

async function conflict(backend: Backend): Promise<void> {
  await edit();
  backend.changeFile("/workspace/src/app.py", APP_PY.replace("9.5", "12.0").replace("no item", "there is no item"));
  pressKey("s");
  await wait(900);
}

function pressKey(key: string): void {
  document.querySelector(".cm-content")?.dispatchEvent(new KeyboardEvent("keydown", { key, ctrlKey: true, bubbles: true, cancelable: true }));
}

async function stall(backend: Backend, layer: string | null): Promise<void> {
  const eta = { kind: "stalled" as const, idle_ms: 12_200, layer };
  const { pull, ...at } = pulling(17.3, 41_400, 0.423);
  const standing = { ...at, eta_ms: null, eta, idle_ms: 12_200, pull: pull && { ...pull, bytes_per_second: 0 } };
  await backend.progress(lastId(backend), "PullingImage", standing, "Pulling python:3.13");
  await wait(200);
}

function timingOf(timing: TimingReport): Scene {
  return {
    stage: (backend) => void backend.add("api-server", "shop", "ready", "python:3.13", { timing }),
    play: async () => {
      await pressMenu();
      document.querySelector<HTMLElement>("[data-action=timing]")?.click();
      await wait(900);
    },
  };
}

function finished() {
  return {
    ...pulling(58, 18_300, 1),
    eta_ms: 4_000,
    eta: { kind: "point" as const, ms: 4_000 },
    finished: [
      { phase: "Starting" as const, elapsed_ms: 120 },
      { phase: "PullingImage" as const, elapsed_ms: 17_400 },
      { phase: "CreatingVolume" as const, elapsed_ms: 44 },
    ],
  };
}

function lastId(backend: Backend): string {
  return [...backend.sessions.keys()].at(-1) ?? "";
}

function wait(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

async function press(testid: string): Promise<void> {
  document.querySelector<HTMLElement>(`[data-testid="${testid}"]`)?.click();
  await wait(250);
}

/** Opens the menu of the first session. */
async function pressMenu(): Promise<void> {
  document.querySelector("[data-testid=session-row]")?.dispatchEvent(
    new MouseEvent("contextmenu", { bubbles: true, clientX: 90, clientY: 90 }),
  );
  await wait(300);
}

/** Chooses an entry of the menu of the first session. */
async function choose(action: string): Promise<void> {
  await pressMenu();
  document.querySelector<HTMLElement>(`[data-action=${action}]`)?.click();
  await wait(400);
}

async function pressDetails(): Promise<void> {
  for (const button of document.querySelectorAll<HTMLElement>("[data-testid=progress-modal] button")) {
    if (button.textContent?.trim() === "Details") button.click();
  }
  await wait(200);
}

async function pressRow(name: string): Promise<void> {
  for (const row of document.querySelectorAll<HTMLElement>("[role=treeitem]")) {
    if (row.querySelector(".name")?.textContent === name) row.click();
  }
  await wait(250);
}

async function type(name: string, value: string): Promise<void> {
  const input = document.querySelector<HTMLInputElement>(`input[name="${name}"]`);
  if (!input) return;
  input.focus();
  input.value = value;
  input.dispatchEvent(new InputEvent("input", { bubbles: true }));
  await wait(150);
}
