import { clearMocks } from "@tauri-apps/api/mocks";
import { cleanup, render, screen, waitFor, within } from "@testing-library/svelte";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { Backend, pulling, UNDONE } from "../dev/backend";
import { SLOW_PULL } from "../dev/timings";
import { failure } from "../test/sessions";
import type { Eta } from "./bindings/Eta";

// What only works with a real screen is tested in the real window.
vi.mock("./Workbench.svelte", async () => await import("../test/Workbench.svelte"));

const { default: App } = await import("./App.svelte");

// Looking for roles in the whole window takes a while where other work is under way.
vi.setConfig({ testTimeout: 20_000 });

let backend: Backend;
let user: ReturnType<typeof userEvent.setup>;

beforeEach(() => {
  sessionStorage.clear();
  localStorage.clear();
  backend = new Backend();
  user = userEvent.setup();
});

afterEach(() => {
  cleanup();
  clearMocks();
});

async function start(): Promise<void> {
  backend.install();
  render(App);
  await waitFor(() => expect(screen.queryByText("Looking for sessions…")).not.toBeInTheDocument());
}

async function provisioning(): Promise<string> {
  const id = backend.add("api", "shop", "provisioning");
  await start();
  await screen.findByTestId("progress-modal");
  await backend.progress(id, "PullingImage", pulling(17.3, 21_400, 0.423, false), "pulling the image");
  return id;
}

describe("New session", () => {
  it("a double click creates one", async () => {
    await start();
    await user.click(screen.getByTestId("new-session"));
    await user.type(await screen.findByLabelText(/Project name/), "api");
    await user.dblClick(screen.getByTestId("create-session"));
    await screen.findByTestId("progress-modal");
    expect(screen.getAllByTestId("session-row")).toHaveLength(1);
    expect(backend.asked("create_session")).toEqual([
      { request: { workspace_id: "default", template: "built-in", project_name: "api" } },
    ]);
  });

  it("opens with Ctrl+N, and the server's problems stand at their fields", async () => {
    backend.refuse["create_session"] = {
      ...failure("VALIDATION_ERROR"),
      details: { fields: { image: "is not a reference", workspace_id: "is required" } },
    };
    await start();
    await user.keyboard("{Control>}n{/Control}");
    const dialog = await screen.findByTestId("new-session-dialog");
    const image = within(dialog).getByLabelText(/^Image/);
    await user.type(image, "Py thon");
    await user.click(screen.getByTestId("create-session"));
    await waitFor(() => expect(image).toHaveAccessibleDescription("is not a reference"));
    expect(image).toBeInvalid();
    expect(image).toHaveValue("Py thon");
    expect(within(dialog).getByLabelText(/^Workspace/)).toHaveAccessibleDescription("is required");
    expect(within(dialog).queryByTestId("create-error")).not.toBeInTheDocument();
  });
});

describe("Progress", () => {
  it("shows phase, percent, estimate and bytes", async () => {
    await provisioning();
    await waitFor(() => expect(screen.getByTestId("progress-percent")).toHaveTextContent("17 %"));
    expect(screen.getByTestId("progress-phase")).toHaveAttribute("data-phase", "PullingImage");
    expect(screen.getByTestId("progress-elapsed")).toHaveTextContent("0:21");
    expect(screen.getByTestId("progress-eta")).toHaveTextContent("about 0:13 left");
    expect(screen.getByTestId("progress-eta")).toHaveAttribute("data-kind", "point");
    expect(screen.getByTestId("progress-pull")).toHaveTextContent("182 of ≥ 431 MB · 24 MB/s · 3 of 9 layers");
    expect(screen.getByTestId("locked-panes")).toBeInTheDocument();
    expect(screen.queryByTestId("workbench")).not.toBeInTheDocument();
  });

  it("says how sure the estimate is, and what a stalled pull waits for", async () => {
    const id = await provisioning();
    const say = (eta: Eta) => backend.progress(id, "PullingImage", { ...pulling(17.4, 21_700, 0.43), eta });
    const eta = screen.getByTestId("progress-eta");
    await say({ kind: "range", low_ms: 10_900, high_ms: 24_900 });
    await waitFor(() => expect(eta).toHaveTextContent("0:10 – 0:25 left"));
    expect(eta).toHaveAttribute("data-kind", "range");
    await say({ kind: "stalled", idle_ms: 12_200, layer: "3f2a9c1b7d40" });
    await waitFor(() => expect(eta).toHaveTextContent(/^stalled: no data for 12 s$/));
    expect(eta).toHaveAttribute("data-kind", "stalled");
    expect(screen.getByTestId("progress-modal")).toHaveTextContent("waiting for layer 3f2a9c1b7d40");
    await waitFor(() => expect(eta).toHaveTextContent("stalled: no data for 13 s"), { timeout: 3_000 });
    await say({ kind: "calculating" });
    await waitFor(() => expect(eta).toHaveTextContent("calculating…"));
    expect(screen.getByTestId("progress-modal")).not.toHaveTextContent("waiting for layer");
  });

  it("Escape leaves it in the background and cancels nothing", async () => {
    await provisioning();
    await user.keyboard("{Escape}");
    await waitFor(() => expect(screen.queryByTestId("progress-modal")).not.toBeInTheDocument());
    expect(backend.asked("cancel_session")).toEqual([]);
    expect(screen.getByTestId("session-row")).toHaveAttribute("data-state", "provisioning");
    await user.click(screen.getByRole("button", { name: "Show progress" }));
    expect(await screen.findByTestId("progress-modal")).toBeInTheDocument();
  });

  it("a failure is shown once, and Retry keeps the session", async () => {
    const id = await provisioning();
    await backend.failed(id, "PullingImage", failure());
    await screen.findByTestId("progress-error");
    expect(document.body.textContent.split("failed to pull image")).toHaveLength(2);
    await user.click(screen.getByTestId("retry-session"));
    await waitFor(() => expect(screen.queryByTestId("progress-error")).not.toBeInTheDocument());
    expect(backend.asked("retry_session")).toEqual([{ id }]);
    expect(screen.getAllByTestId("session-row")).toHaveLength(1);
  });

  it("Cancel says what was undone and that nothing was left behind", async () => {
    const id = await provisioning();
    await user.click(screen.getByTestId("cancel-session"));
    expect(screen.getByTestId("cancel-session")).toBeDisabled();
    await backend.cancelled(id, "PullingImage", UNDONE);
    expect(await screen.findByText("Nothing was left behind.")).toBeInTheDocument();
    expect(screen.getByText(/removed volume/)).toBeInTheDocument();
  });

  it("an undo that failed is not called nothing", async () => {
    const id = await provisioning();
    await backend.cancelled(id, "PullingImage", [{ what: "removed volume `cove-1`", failure: "the volume is in use" }]);
    expect(await screen.findByText("the volume is in use")).toBeInTheDocument();
    expect(screen.queryByText("Nothing was left behind.")).not.toBeInTheDocument();
  });

  it("closes by itself when ready, and only then the panes mount", async () => {
    const id = await provisioning();
    expect(screen.queryByTestId("workbench")).not.toBeInTheDocument();
    await backend.ready(id);
    expect(await screen.findByTestId("workbench")).toBeInTheDocument();
    await waitFor(() => expect(screen.queryByTestId("progress-modal")).not.toBeInTheDocument());
    expect(screen.queryByTestId("locked-panes")).not.toBeInTheDocument();
  });
});

describe("Where the time went", () => {
  async function openMenuOf(name: string): Promise<void> {
    screen.getAllByRole("button", { name: `Actions for ${name}` })[0]!.focus();
    await user.keyboard("{Enter}");
    await screen.findByText("Copy container name");
  }

  /** Goes from the end of the menu, which is Delete, to the entry before it. */
  async function chooseTimingOf(name: string): Promise<void> {
    await openMenuOf(name);
    await user.keyboard("{End}{ArrowUp}");
    await waitFor(() => expect(screen.getByText("Timing")).toHaveFocus());
    await user.keyboard("{Enter}");
  }

  it("stands in the details of a run that failed, and not of one under way", async () => {
    const id = await provisioning();
    await user.click(screen.getByRole("button", { name: "Details" }));
    expect(await screen.findByText("Container")).toBeInTheDocument();
    expect(screen.queryByTestId("timing-report")).not.toBeInTheDocument();
    await backend.failed(id, "PullingImage", failure());
    expect(await screen.findByTestId("timing-report")).toHaveTextContent("failed here");
    expect(screen.getByTestId("timing-verdict")).toHaveTextContent("The registry took 5.1 s to send the first byte.");
  });

  it("is in the menu of a ready session, is asked for once, and can be copied", async () => {
    const id = backend.add("api", "shop", "ready", "python:3.13", { timing: SLOW_PULL });
    await start();
    expect(backend.asked("session_status")).toEqual([]);
    await chooseTimingOf("api");
    const dialog = await screen.findByTestId("timing-dialog");
    expect(dialog).toHaveAccessibleName("Timing of api");
    expect(screen.getByTestId("timing-verdict")).toHaveTextContent(SLOW_PULL.verdict);
    const cells = within(within(dialog).getByRole("row", { name: /^Download/ })).getAllByRole("cell");
    expect(cells.map((cell) => cell.textContent.trim())).toEqual(["36 s", "12 s", "3.0× as long"]);
    await user.click(screen.getByTestId("copy-timing"));
    expect(await navigator.clipboard.readText()).toContain(`session: ${id}\nimage: docker.io/library/python:3.13`);
    expect(screen.getByTestId("copy-timing")).toHaveTextContent("Copied");

    await user.keyboard("{Escape}");
    await waitFor(() => expect(screen.queryByTestId("timing-dialog")).not.toBeInTheDocument());
    await waitFor(() => expect(screen.getAllByRole("button", { name: "Actions for api" })[0]).toHaveFocus());
    await chooseTimingOf("api");
    expect(await screen.findByTestId("timing-report")).toBeInTheDocument();
    expect(backend.asked("session_status")).toEqual([{ id }]);
  });

  it("is not in the menu of a session that has none to tell", async () => {
    backend.add("worker", "shop", "stopped");
    await start();
    await openMenuOf("worker");
    expect(screen.queryByText("Timing")).not.toBeInTheDocument();
  });

  it("marks what is not known yet, also for a screen reader", async () => {
    const id = await provisioning();
    await user.click(screen.getByRole("button", { name: "Details" }));
    await backend.failed(id, "PullingImage", failure(), [], {
      ...SLOW_PULL,
      outcome: "failed",
      phases: [{ phase: "Starting", took_ms: 120, usual_ms: null }],
      pull: null,
    });
    const report = await screen.findByTestId("timing-report");
    const [took, usual] = within(within(report).getByRole("row", { name: /^Starting/ })).getAllByRole("cell");
    expect([took?.textContent, usual?.textContent.trim()]).toEqual(["0.1 s", "–not known yet"]);
  });
});

describe("Without an engine", () => {
  it("one page says why, and goes when the engine is there", async () => {
    const [docker] = backend.engines;
    backend.engines = [{ ...docker!, selected: false, problem: { reason: "not_running", message: "nobody answers" } }];
    await start();
    expect(await screen.findByTestId("engine-page")).toHaveTextContent("The container engine is not running");
    backend.engines = [docker!];
    await waitFor(() => expect(screen.queryByTestId("engine-page")).not.toBeInTheDocument(), { timeout: 5_000 });
    expect(screen.getByTestId("new-session")).toBeInTheDocument();
  });

  it("sessions that are known stay in sight, and nothing is asked to see it come back", async () => {
    const id = backend.add("api", "shop", "ready");
    const [docker] = backend.engines;
    await start();
    expect(await screen.findByTestId("workbench")).toBeInTheDocument();
    await backend.engineChanged([{ ...docker!, selected: false, problem: { reason: "not_running", message: "nobody answers" } }]);
    await backend.change({ [id]: { state: "stopped" } });
    expect(await screen.findByTestId("engine-gone")).toHaveTextContent("Docker is not answering. What is open can be read, and Cove reconnects by itself.");
    expect(screen.queryByTestId("engine-page")).not.toBeInTheDocument();
    await waitFor(() => expect(screen.getByTestId("session-row")).toHaveAttribute("data-state", "stopped"));
    expect(screen.getByTestId("new-session")).toBeDisabled();
    expect(screen.getByTestId("way-on")).toBeDisabled();
    await user.click(screen.getByTestId("what-was-tried"));
    expect(await screen.findByTestId("engine-details")).toHaveTextContent("nobody answers");

    await backend.engineChanged([docker!]);
    await waitFor(() => expect(screen.queryByTestId("engine-gone")).not.toBeInTheDocument());
    expect(screen.queryByTestId("engine-details")).not.toBeInTheDocument();
    await backend.ready(id);
    expect(await screen.findByTestId("workbench")).toBeInTheDocument();
    expect(backend.asked("engine_status")).toHaveLength(1);
  });
});

describe("With two engines", () => {
  const silent = { reason: "not_running" as const, message: "nobody answers there" };

  it("a session that is away says so, what is open stays, and it comes back by itself", async () => {
    const id = backend.add("api", "shop", "ready");
    const [docker] = backend.engines;
    const podman = { ...docker!, engine_id: "podman", name: "Podman", address: "unix:///run/podman/podman.sock", selected: false };
    await start();
    expect(await screen.findByTestId("workbench")).toBeInTheDocument();
    await backend.engineChanged([{ ...docker!, problem: silent }, podman]);
    await backend.change({ [id]: { state: "away", engine: docker!.engine_id } });
    const row = await screen.findByTestId("session-row");
    await waitFor(() => expect(row).toHaveAttribute("data-state", "away"));
    expect(row).toHaveTextContent("Away");
    // It is on the engine of which the window says so already.
    expect(screen.getAllByText(/is not answering\./)).toHaveLength(1);
    expect(screen.getByTestId("workbench")).toBeInTheDocument();
    expect(screen.queryByTestId("locked-panes")).not.toBeInTheDocument();
    expect(screen.getByTestId("engine-chip")).toHaveTextContent("Docker · not answering");

    await backend.engineChanged([docker!, podman]);
    await backend.change({ [id]: { state: "ready" } });
    await waitFor(() => expect(row).toHaveAttribute("data-state", "ready"));
    expect(screen.queryByTestId("engine-gone")).not.toBeInTheDocument();
    expect(screen.getByTestId("workbench")).toBeInTheDocument();
  });

  it("a session that is away from the engine in use says so, and can be forgotten", async () => {
    const id = backend.add("api", "shop", "ready");
    const [docker] = backend.engines;
    const podman = { ...docker!, engine_id: "podman", name: "Podman", address: "unix:///run/podman/podman.sock", selected: false };
    await start();
    expect(await screen.findByTestId("workbench")).toBeInTheDocument();
    await backend.engineChanged([docker!, { ...podman, problem: silent }]);
    await backend.change({ [id]: { state: "away", engine: "podman" } });
    expect(await screen.findByTestId("away-strip")).toHaveTextContent("Podman is not answering");
    expect(screen.queryByTestId("engine-gone")).not.toBeInTheDocument();

    screen.getAllByRole("button", { name: "Actions for api" })[0]!.focus();
    await user.keyboard("{Enter}");
    await user.click(await screen.findByText("Forget"));
    expect(backend.asked("forget_session")).toEqual([{ id }]);
    expect(await screen.findByTestId("first-run")).toBeInTheDocument();
  });

  it("another engine is used for new sessions when the user says so", async () => {
    backend.add("api", "shop", "away");
    const [docker] = backend.engines;
    const podman = { ...docker!, engine_id: "podman", name: "Podman", address: "unix:///run/podman/podman.sock", selected: false };
    backend.engines = [{ ...docker!, problem: silent }, podman];
    await start();
    expect(await screen.findByTestId("new-session")).toBeDisabled();
    expect(screen.getByTestId("locked-panes")).toHaveTextContent("does not answer");
    await user.click(screen.getByTestId("engine-chip"));
    await user.click(await screen.findByTestId("choose-engine"));
    expect(backend.asked("select_engine")).toEqual([{ engine_id: "podman" }]);
    await waitFor(() => expect(screen.getByTestId("engine-chip")).toHaveTextContent("Podman 28.1.1 · running"));
    expect(screen.queryByTestId("choose-engine")).not.toBeInTheDocument();
    expect(screen.getByTestId("new-session")).toBeEnabled();
  });
});

describe("Deleting", () => {
  async function askWithKey(): Promise<HTMLElement> {
    screen.getByRole("button", { current: true }).focus();
    await user.keyboard("{Delete}");
    return screen.findByTestId("delete-dialog");
  }

  it("asks first, from the menu too, and names what will be lost", async () => {
    const id = backend.add("worker", "shop", "stopped");
    await start();
    screen.getAllByRole("button", { name: "Actions for worker" })[0]!.focus();
    await user.keyboard("{Enter}");
    await waitFor(() => expect(screen.getByText("Open")).toHaveFocus());
    await user.keyboard("{End}{Enter}");
    const dialog = await screen.findByTestId("delete-dialog");
    expect(dialog).toHaveTextContent(`cove-${id}`);
    expect(await screen.findByText(/last changed 2 hours ago/)).toHaveTextContent("214 MB in /workspace");
    expect(backend.asked("delete_session")).toEqual([]);
    await user.click(within(dialog).getByTestId("confirm"));
    await waitFor(() => expect(screen.queryByTestId("session-row")).not.toBeInTheDocument());
    expect(backend.asked("delete_session")).toEqual([{ id }]);
  });

  it("can keep the files, which are listed apart and can be deleted later", async () => {
    const id = backend.add("worker", "shop", "stopped");
    await start();
    const dialog = await askWithKey();
    await user.click(within(dialog).getByTestId("keep-volume"));
    await waitFor(() => expect(within(dialog).getByTestId("confirm")).toHaveTextContent("Delete container"));
    await user.click(within(dialog).getByTestId("confirm"));
    const kept = await screen.findByTestId("kept-files");
    expect(within(kept).getByTestId("session-row")).toHaveAttribute("data-session-id", id);
    await waitFor(() => expect(screen.getByTestId("session-count")).toHaveTextContent("0 sessions"));
    await waitFor(() => expect(screen.queryByTestId("delete-dialog")).not.toBeInTheDocument());

    await user.click(within(kept).getByRole("button", { name: "Delete worker" }));
    const again = await screen.findByTestId("delete-dialog");
    expect(within(again).queryByTestId("keep-volume")).not.toBeInTheDocument();
    await user.click(within(again).getByTestId("confirm"));
    await waitFor(() => expect(screen.queryByTestId("kept-files")).not.toBeInTheDocument());
    expect(backend.asked("delete_session")).toEqual([{ id, keep_volume: true }, { id }]);
  });
});

describe("Renaming", () => {
  it("begins with F2 on the selected session, with the name selected", async () => {
    const id = backend.add("worker", "shop", "stopped");
    await start();
    await user.keyboard("{F2}");
    const name = await screen.findByLabelText("Name");
    await waitFor(() => expect(name).toHaveFocus());
    await user.keyboard("api{Enter}");
    await waitFor(() => expect(screen.getByTestId("session-row")).toHaveTextContent("api"));
    expect(backend.asked("rename_session")).toEqual([{ id, name: "api" }]);
    await waitFor(() => expect(screen.queryByTestId("rename-dialog")).not.toBeInTheDocument());
  });

  it("says under the field why a name cannot be", async () => {
    backend.add("worker", "shop", "stopped");
    backend.refuse["rename_session"] = { ...failure("VALIDATION_ERROR"), details: { fields: { name: "is required" } } };
    await start();
    await user.keyboard("{F2}");
    const name = await screen.findByLabelText("Name");
    await user.clear(name);
    await user.keyboard("{Enter}");
    await waitFor(() => expect(name).toHaveAccessibleDescription("is required"));
  });
});

it("an interrupted session is resumed or discarded", async () => {
  const id = backend.add("notes", "scratch", "interrupted");
  await start();
  expect(screen.getByTestId("locked-panes")).toHaveTextContent("This session was interrupted");
  expect(screen.getByTestId("resume")).toBeEnabled();
  await user.click(screen.getByTestId("discard"));
  expect(await screen.findByTestId("first-run")).toBeInTheDocument();
  expect(backend.asked("discard_session")).toEqual([{ id }]);
});

it("what is not cleaned up yet stands at the row and in the pane", async () => {
  backend.add("api", "shop", "cancelled", "node:22", {}, { leftovers: ["Volume `cove-1`"] });
  await start();
  expect(screen.getByRole("img", { name: "Not cleaned up yet: Volume cove-1" })).toBeInTheDocument();
  expect(screen.getByTestId("leftovers")).toHaveTextContent(/Volume cove-1.*Cove tries again by itself\./);
});

it("an export is in the header, can be cancelled, and is said once at its end", async () => {
  const id = backend.add("api", "shop", "ready");
  await start();
  await backend.export(id, { bytes: 120_000_000, total_bytes: 431_000_000 });
  expect(await screen.findByTestId("export-progress")).toHaveTextContent("120 of 431 MB");
  await user.click(screen.getByRole("button", { name: "Cancel the export" }));
  expect(backend.asked("cancel_export")).toEqual([{ id }]);
  await backend.export(id, { outcome: "done", file_name: "api.tar" });
  expect(await screen.findByText("Exported to api.tar")).toBeInTheDocument();
  expect(screen.queryByTestId("export-progress")).not.toBeInTheDocument();
});

it("closing the window asks while sessions are being set up, and no longer when they are", async () => {
  const id = await provisioning();
  await backend.closing(1);
  const dialog = await screen.findByTestId("leaving-dialog");
  expect(dialog).toHaveAccessibleName("1 session is being set up");
  await backend.ready(id);
  await waitFor(() => expect(screen.queryByTestId("leaving-dialog")).not.toBeInTheDocument());
  expect(backend.asked("leave_app")).toEqual([{ choice: "stay" }]);
});

it("a rebuild takes the same image unless another is named", async () => {
  const id = backend.add("worker", "shop", "stopped");
  await start();
  screen.getAllByRole("button", { name: "Actions for worker" })[0]!.focus();
  await user.keyboard("{Enter}");
  await user.click(await screen.findByText("Rebuild…"));
  const dialog = await screen.findByTestId("rebuild-dialog");
  expect(within(dialog).getByLabelText("Image")).toHaveValue("python:3.13");
  await user.click(within(dialog).getByTestId("submit"));
  expect(await screen.findByTestId("progress-modal")).toHaveAccessibleName("Rebuilding worker");
  expect(backend.asked("rebuild_session")).toEqual([{ id }]);

  // The old container's programs need not be waited for.
  expect(screen.queryByTestId("stop-now")).not.toBeInTheDocument();
  await backend.change({ [id]: { ending: true } });
  await user.click(await screen.findByTestId("stop-now"));
  expect(backend.asked("stop_session")).toEqual([{ id, now: true }]);
  await backend.change({ [id]: { ending: false } });
  await waitFor(() => expect(screen.queryByTestId("stop-now")).not.toBeInTheDocument());
});

it("programs that are being ended are told whoever ends them, and need not be waited for", async () => {
  const id = backend.add("api", "shop", "ready");
  await start();
  await backend.change({ [id]: { state: "stopped", ending: true } });
  expect(await screen.findByText("Ending programs…")).toBeInTheDocument();
  await user.click(screen.getByText("Stop now"));
  expect(backend.asked("stop_session")).toEqual([{ id, now: true }]);
  await backend.change({ [id]: { ending: false } });
  await waitFor(() => expect(screen.queryByText("Stop now")).not.toBeInTheDocument());
});

it("a broken connection and a pause are said, and clear nothing", async () => {
  const id = backend.add("api", "shop", "ready");
  await start();
  // The panes are loaded once, which takes a while where other work is under way.
  const workbench = await screen.findByTestId("workbench", {}, { timeout: 15_000 });
  await backend.change({ [id]: { reconnecting: true } });
  expect(await screen.findByTestId("reconnecting")).toHaveTextContent("Reconnecting…");
  expect(screen.getByTestId("workbench")).toBe(workbench);
  await backend.change({ [id]: { reconnecting: false, state: "paused" } });
  expect(await screen.findByTestId("locked-panes")).toHaveTextContent("This session is paused");
  expect(screen.queryByTestId("reconnecting")).not.toBeInTheDocument();
  expect(screen.getByTestId("workbench")).toBe(workbench);
  await backend.change({ [id]: { state: "ready" } });
  await waitFor(() => expect(screen.queryByTestId("locked-panes")).not.toBeInTheDocument());
  expect(screen.getByTestId("workbench")).toBe(workbench);
});

it("an idle stop is said before it happens, and can be put off", async () => {
  const id = backend.add("api", "shop", "ready");
  await start();
  const workbench = await screen.findByTestId("workbench");
  const stop = new Date(2026, 0, 1, 14, 30);
  await backend.change({ [id]: { idle_stop_ms: stop.getTime() } });
  const time = stop.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  expect(await screen.findByTestId("idle-strip")).toHaveTextContent(`it stops at ${time}. Its files stay.`);
  expect(screen.getByTestId("workbench")).toBe(workbench);
  await user.click(screen.getByTestId("keep-running"));
  expect(backend.asked("keep_session")).toEqual([{ id }]);
  await backend.change({ [id]: { idle_stop_ms: null } });
  await waitFor(() => expect(screen.queryByTestId("idle-strip")).not.toBeInTheDocument());
});

it("a stop by command shows at once, without asking for the list", async () => {
  const id = backend.add("api", "shop", "ready");
  await start();
  await screen.findByTestId("workbench");
  const lists = backend.asked("list_sessions").length;
  await backend.change({ [id]: { state: "stopped" } });
  expect(await screen.findByTestId("locked-panes")).toHaveTextContent("This session is stopped");
  expect(screen.getByTestId("session-row")).toHaveAttribute("data-state", "stopped");
  expect(screen.queryByTestId("workbench")).not.toBeInTheDocument();
  expect(backend.asked("list_sessions")).toHaveLength(lists);
});

describe("figures and the log", () => {
  it("shows what the session in front uses, only while it is ready and the window is seen", async () => {
    const id = backend.add("api", "shop", "ready");
    await start();
    await user.click(screen.getByTestId("session-row").querySelector("button")!);
    const chip = await screen.findByTestId("figures-chip");
    expect(chip).toHaveTextContent("CPU 3.2 % 180 MiB");
    expect(backend.asked("session_stats")).toHaveLength(1);
    backend.hearFigures({ kind: "figures", ...backend.figures, cpu: 47, memory: 510_000_000 });
    await waitFor(() => expect(chip).toHaveTextContent("Memory 94 % CPU 47 %"));
    vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
    document.dispatchEvent(new Event("visibilitychange"));
    await waitFor(() => expect(screen.queryByTestId("figures-chip")).not.toBeInTheDocument());
    expect(backend.asked("end_watch")).toEqual([{ watch_id: 1 }]);
    vi.restoreAllMocks();
    document.dispatchEvent(new Event("visibilitychange"));
    await screen.findByTestId("figures-chip");
    await backend.change({ [id]: { state: "stopped" } });
    await waitFor(() => expect(screen.queryByTestId("figures-chip")).not.toBeInTheDocument());
    expect(backend.asked("session_stats")).toHaveLength(2);
    expect(backend.asked("end_watch")).toHaveLength(2);
  });

  it("the popover opens from the header and the status bar, measures the files then, and leads to the log", async () => {
    backend.add("api", "shop", "ready");
    await start();
    await user.click(screen.getByTestId("session-row").querySelector("button")!);
    await screen.findByTestId("figures-chip");
    expect(backend.asked("session_usage")).toEqual([]);
    await user.click(screen.getByTestId("open-figures"));
    const popover = await screen.findByTestId("figures");
    expect(within(popover).getByTestId("figure-memory")).toHaveTextContent("180 MiB of 512 MiB");
    expect(within(popover).getByTestId("figure-pids")).toHaveTextContent("12 of 4,096");
    await waitFor(() => expect(within(popover).getByTestId("figure-disk")).toHaveTextContent("214 MB 38 GB free"));
    expect(within(popover).getByLabelText("CPU in the last two minutes: now 3.2 %, at most 3.2 %")).toHaveRole("img");
    await user.keyboard("{Escape}");
    await waitFor(() => expect(screen.queryByTestId("figures")).not.toBeInTheDocument());
    expect(backend.asked("session_usage")).toHaveLength(1);
    await user.click(screen.getByTestId("figures-chip"));
    await user.click(await screen.findByTestId("open-log"));
    const dialog = await screen.findByTestId("log-dialog");
    expect(dialog).toHaveAccessibleName("Log of api");
    await waitFor(() => expect(backend.asked("ack_log")).toHaveLength(1));
    expect(dialog).toHaveTextContent("2 lines");
    await user.keyboard("{Escape}");
    await waitFor(() => expect(screen.queryByTestId("log-dialog")).not.toBeInTheDocument());
    expect(backend.asked("end_watch")).toHaveLength(1);
  });

  it("says that memory was used up until that is dismissed", async () => {
    const note = { limit_bytes: 512 * 1024 ** 2, at_ms: Date.UTC(2026, 2, 1, 14, 3) };
    const id = backend.add("api", "shop", "ready");
    await start();
    await user.click(screen.getByTestId("session-row").querySelector("button")!);
    await backend.change({ [id]: { out_of_memory: note } });
    const strip = await screen.findByTestId("out-of-memory");
    expect(strip).toHaveTextContent(/A program was ended at .+: the session's memory limit of 512 MiB was used up\. Raise it in the settings, then rebuild\./);
    expect(screen.getByTestId("out-of-memory-sign")).toHaveAccessibleName("Its memory was used up: a program was ended");
    await user.click(screen.getByTestId("dismiss-note"));
    await waitFor(() => expect(screen.queryByTestId("out-of-memory")).not.toBeInTheDocument());
    expect(screen.queryByTestId("out-of-memory-sign")).not.toBeInTheDocument();
    expect(backend.asked("dismiss_note")).toEqual([{ id }]);
  });
});

describe("Ports", () => {
  it("of the session in front are in the header as they come, and a new one is said once", async () => {
    const id = backend.add("api", "shop", "ready");
    backend.ports = { ports: [], truncated: false };
    await start();
    await screen.findByTestId("workbench");
    expect(screen.queryByTestId("port-chips")).not.toBeInTheDocument();
    const known = { port: 8000, address: "0.0.0.0", process: "node", local: { host: "127.0.0.1", port: 8000 } };
    const other = { ...known, port: 9000, local: { host: "127.0.0.1", port: 9000 } };
    await backend.tellPorts(id, [known]);
    // Without a layout there is no room for more than their number.
    expect(await within(await screen.findByTestId("port-chips")).findByText("1 port")).toBeInTheDocument();
    expect(await screen.findByText("Port 8000 (node) is at 127.0.0.1:8000")).toBeInTheDocument();
    await backend.tellPorts(id, [known, other]);
    expect(await screen.findByText("2 ports")).toBeInTheDocument();
    await backend.tellPorts(id, [other]);
    expect(await screen.findByText("1 port")).toBeInTheDocument();
    await backend.tellPorts(id, [known, other]);
    expect(await screen.findByText("2 ports")).toBeInTheDocument();
    expect(screen.getAllByText(/^Port 8000/)).toHaveLength(1);
  });
});
