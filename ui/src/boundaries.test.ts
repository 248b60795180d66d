import { clearMocks } from "@tauri-apps/api/mocks";
import { cleanup, render, screen, waitFor, within } from "@testing-library/svelte";
import userEvent from "@testing-library/user-event";
import type { Component } from "svelte";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { Backend } from "../dev/backend";

// The panes load beside the first view, which takes a while where other work is under way.
vi.setConfig({ testTimeout: 20_000 });
const SLOWLY = { timeout: 15_000 };

const state = vi.hoisted(() => ({ broken: "" }));

/** Returns a part that fails as it is drawn, whenever it is its turn. */
const part = vi.hoisted(() => (name: string, load: () => Promise<{ default: Component }>) => async () => {
  const { default: actual } = await load();
  const mayFail: Component = (...drawing) => {
    if (state.broken === name) throw new Error("no such row");
    return actual(...drawing);
  };
  return { default: mayFail };
});

vi.mock("./session/Sidebar.svelte", part("./session/Sidebar.svelte", () => vi.importActual("./session/Sidebar.svelte")));
vi.mock("./session/SessionHeader.svelte", part("./session/SessionHeader.svelte", () => vi.importActual("./session/SessionHeader.svelte")));
vi.mock("./engine/EngineChip.svelte", part("./engine/EngineChip.svelte", () => vi.importActual("./engine/EngineChip.svelte")));
vi.mock("./session/NewSessionDialog.svelte", part("./session/NewSessionDialog.svelte", () => vi.importActual("./session/NewSessionDialog.svelte")));
vi.mock("./session/ProgressModal.svelte", part("./session/ProgressModal.svelte", () => vi.importActual("./session/ProgressModal.svelte")));
vi.mock("./session/RenameDialog.svelte", part("./session/RenameDialog.svelte", () => vi.importActual("./session/RenameDialog.svelte")));
vi.mock("./session/RebuildDialog.svelte", part("./session/RebuildDialog.svelte", () => vi.importActual("./session/RebuildDialog.svelte")));
vi.mock("./session/DuplicateDialog.svelte", part("./session/DuplicateDialog.svelte", () => vi.importActual("./session/DuplicateDialog.svelte")));
vi.mock("./session/DeleteDialog.svelte", part("./session/DeleteDialog.svelte", () => vi.importActual("./session/DeleteDialog.svelte")));
vi.mock("./session/LeavingDialog.svelte", part("./session/LeavingDialog.svelte", () => vi.importActual("./session/LeavingDialog.svelte")));
vi.mock("./session/DetailsDialog.svelte", part("./session/DetailsDialog.svelte", () => vi.importActual("./session/DetailsDialog.svelte")));
vi.mock("./session/TimingDialog.svelte", part("./session/TimingDialog.svelte", () => vi.importActual("./session/TimingDialog.svelte")));
vi.mock("./settings/SettingsDialog.svelte", part("./settings/SettingsDialog.svelte", () => vi.importActual("./settings/SettingsDialog.svelte")));
vi.mock("./engine/EnginesDialog.svelte", part("./engine/EnginesDialog.svelte", () => vi.importActual("./engine/EnginesDialog.svelte")));
vi.mock("./files/FileTree.svelte", part("./files/FileTree.svelte", () => vi.importActual("./files/FileTree.svelte")));
vi.mock("./transfers/TransferList.svelte", part("./transfers/TransferList.svelte", () => vi.importActual("./transfers/TransferList.svelte")));
vi.mock("./terminal/Terminals.svelte", part("./terminal/Terminals.svelte", () => vi.importActual("./terminal/Terminals.svelte")));
vi.mock("./editor/Editor.svelte", part("./editor/Editor.svelte", () => vi.importActual("./editor/Editor.svelte")));
// A terminal takes a real screen.
vi.mock("./terminal/Terminal.svelte", part("./terminal/Terminal.svelte", () => vi.importActual("../test/Workbench.svelte")));
vi.mock("./Workbench.svelte", part("./Workbench.svelte", () => vi.importActual("./Workbench.svelte")));

const { default: App } = await import("./App.svelte");

let backend: Backend;

beforeEach(() => {
  sessionStorage.clear();
  localStorage.clear();
  backend = new Backend();
});

afterEach(() => {
  cleanup();
  clearMocks();
});

it.each([
  ["./session/Sidebar.svelte", "The list of sessions"],
  ["./session/SessionHeader.svelte", "This view"],
  ["./engine/EngineChip.svelte", "The state of the engine"],
  ["./session/NewSessionDialog.svelte", "The form for a new session"],
  ["./session/ProgressModal.svelte", "The progress"],
  ["./session/RenameDialog.svelte", "The question for a name"],
  ["./session/RebuildDialog.svelte", "The question for an image"],
  ["./session/DuplicateDialog.svelte", "The question about a copy"],
  ["./session/DeleteDialog.svelte", "The question before deleting"],
  ["./session/LeavingDialog.svelte", "The question before leaving"],
  ["./session/DetailsDialog.svelte", "The details"],
  ["./session/TimingDialog.svelte", "The timing"],
  ["./settings/SettingsDialog.svelte", "The settings"],
  ["./engine/EnginesDialog.svelte", "The list of engines"],
  ["./files/FileTree.svelte", "The file tree"],
  ["./transfers/TransferList.svelte", "The transfers"],
  ["./terminal/Terminals.svelte", "The terminals"],
  ["./editor/Editor.svelte", "The editor"],
  ["./terminal/Terminal.svelte", "This terminal"],
  ["./Workbench.svelte", "This session"],
])("%s fails: that is one notice, the rest goes on, and it can be shown again", async (name, what) => {
  state.broken = name;
  const id = backend.add("api", "shop", "ready");
  const open = { files: [{ path: "/workspace/README.md", name: "README.md" }], active: "/workspace/README.md" };
  sessionStorage.setItem(`cove.open.${id}`, JSON.stringify(open));
  backend.install();
  render(App);
  const notice = await screen.findByTestId("part-failed");
  expect(notice).toHaveTextContent(`${what} could not be shown: no such row`);
  const others = ["session-row", "session-count", "file-tree", "new-terminal", "editor"];
  const shown = () => others.filter((other) => screen.queryByTestId(other) !== null).length;
  await waitFor(() => expect(shown()).toBeGreaterThanOrEqual(name === "./Workbench.svelte" ? 2 : 4), SLOWLY);
  expect(screen.getAllByTestId("part-failed")).toHaveLength(1);
  state.broken = "";
  await userEvent.click(within(notice).getByRole("button"));
  await waitFor(() => expect(shown()).toBe(5), SLOWLY);
  expect(screen.queryByTestId("part-failed")).not.toBeInTheDocument();
});
