import { describe, expect, it, vi } from "vitest";

import { failure, listed } from "../../test/sessions";
import type { Usage } from "../bindings/Usage";
import { CommandError } from "../lib/ipc/error";
import { otherVolumesWords, Removal, unsavedWords, usageWords } from "./removal.svelte";

const USAGE: Usage = { size_bytes: 214_000_000, stored_bytes: null, at_least: false, modified_ms: 1_000, free_bytes: null, disk_bytes: null, other_volumes: [] };
const HOUR = 3_600_000;
const none = () => Promise.resolve([]);

const stopped = (id: string, has_container = true) => listed(id, { state: "stopped", has_container });

describe("what would be lost", () => {
  it.each<[Usage | null, string]>([
    [null, "Files in `/workspace`: measuring…"],
    [{ size_bytes: 214_000_000, stored_bytes: null, at_least: false, modified_ms: 10 * HOUR, free_bytes: null, disk_bytes: null, other_volumes: [] }, "214 MB in `/workspace`, last changed 2 hours ago"],
    [{ size_bytes: 214_000_000, stored_bytes: null, at_least: false, modified_ms: null, free_bytes: null, disk_bytes: null, other_volumes: [] }, "214 MB in `/workspace`"],
    [{ size_bytes: 9_000_000, stored_bytes: null, at_least: true, modified_ms: null, free_bytes: null, disk_bytes: null, other_volumes: [] }, "At least 9 MB in `/workspace`"],
    [{ size_bytes: 1_000_000_000_000, stored_bytes: 8_000, at_least: false, modified_ms: null, free_bytes: null, disk_bytes: null, other_volumes: [] }, "1 TB (8 kB on the disk) in `/workspace`"],
    [{ size_bytes: 0, stored_bytes: null, at_least: false, modified_ms: 10 * HOUR, free_bytes: null, disk_bytes: null, other_volumes: [] }, "`/workspace` is empty"],
    [{ size_bytes: null, stored_bytes: null, at_least: false, modified_ms: null, free_bytes: null, disk_bytes: null, other_volumes: [] }, "How much is in `/workspace` is not known"],
  ])("%o", (usage, words) => expect(usageWords(usage, 12 * HOUR)).toBe(words));

  it.each([
    [[], null],
    [["/data"], "What is in `/data` is lost too: the image keeps it in a volume that goes with the container."],
    [["/a", "/b", "/c"], "What is in `/a`, `/b` and `/c` is lost too: the image keeps it in volumes that go with the container."],
  ])("names what else goes: %o", (folders, words) => expect(otherVolumesWords({ ...USAGE, other_volumes: folders })).toBe(words));

  it("names files whose changes were not saved, those of the session that is asked about", async () => {
    expect(unsavedWords([])).toBeNull();
    expect(unsavedWords(["a.txt"])).toBe("`a.txt` has changes that were not saved: they are lost with the session.");
    expect(unsavedWords(["a", "b", "c"])).toBe("`a` and 2 other files have changes that were not saved: they are lost with the session.");
    const answers = new Map<string, (drafts: Array<{ name: string }>) => void>();
    const drafts = (id: string) => new Promise<Array<{ name: string }>>((resolve) => answers.set(id, resolve));
    const removal = new Removal(() => Promise.resolve(USAGE), drafts, () => Promise.resolve());
    await removal.show(stopped("a"));
    await removal.show(stopped("b"));
    answers.get("a")?.([{ name: "other.txt" }]);
    answers.get("b")?.([{ name: "own.txt" }]);
    await vi.waitFor(() => expect(removal.unsaved).toEqual(["own.txt"]));
  });

  it("is measured when it is shown, and an answer about another session is not taken", async () => {
    const answers = new Map<string, (usage: Usage) => void>();
    const removal = new Removal((id) => new Promise((resolve) => answers.set(id, resolve)), none, () => Promise.resolve());
    const shown = [removal.show(stopped("a")), removal.show(stopped("b"))];
    expect(removal.usage).toBeNull();
    answers.get("a")?.({ size_bytes: 1, stored_bytes: null, at_least: false, modified_ms: null, free_bytes: null, disk_bytes: null, other_volumes: [] });
    await shown[0];
    expect(removal.usage).toBeNull();
    answers.get("b")?.(USAGE);
    await shown[1];
    expect(removal.usage).toEqual(USAGE);
  });

  it("that cannot be measured is not known, and can be deleted all the same", async () => {
    const remove = vi.fn(() => Promise.resolve());
    const removal = new Removal(() => Promise.reject(new CommandError(failure("ENGINE_REFUSED"))), none, remove);
    await removal.show(stopped("a"));
    expect(removal.usage).toEqual({ size_bytes: null, stored_bytes: null, at_least: false, modified_ms: null, free_bytes: null, disk_bytes: null, other_volumes: [] });
    await removal.submit();
    expect([remove.mock.calls, removal.session]).toEqual([[["a", false]], null]);
  });
});

describe("the files", () => {
  it("stay when that is wanted, and the button says so", async () => {
    const remove = vi.fn(() => Promise.resolve());
    const removal = new Removal(() => Promise.resolve(USAGE), none, remove);
    await removal.show(stopped("a"));
    expect([removal.mayKeep, removal.action]).toEqual([true, "Delete session and files"]);
    removal.keepFiles = true;
    expect(removal.action).toBe("Delete container");
    await removal.submit();
    expect(remove.mock.calls).toEqual([["a", true]]);
    await removal.show(stopped("b"));
    expect(removal.keepFiles).toBe(false);
  });

  it("that were kept are all there is", async () => {
    const removal = new Removal(() => Promise.resolve(USAGE), none, () => Promise.resolve());
    await removal.show(stopped("a", false));
    expect([removal.mayKeep, removal.action]).toEqual([false, "Delete files"]);
  });
});

it("that fails says so and stays", async () => {
  const removal = new Removal(() => Promise.resolve(USAGE), none, () => Promise.reject(new CommandError(failure("ENGINE_REFUSED"))));
  await removal.show(stopped("a"));
  await removal.submit();
  expect([removal.session?.id, removal.failure?.error]).toEqual(["a", "ENGINE_REFUSED"]);
});
