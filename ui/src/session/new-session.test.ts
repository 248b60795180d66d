import { beforeEach, describe, expect, it, vi } from "vitest";

import type { ChosenArchive } from "../bindings/ChosenArchive";
import type { ErrorReport } from "../bindings/ErrorReport";
import { CommandError } from "../lib/ipc/error";
import { NewSession } from "./new-session.svelte";

const TEMPLATES = [
  { id: "python", name: "Python", summary: "", image_name: "python:3.13", built_in: false },
  { id: "built-in", name: "Built-in", summary: "", image_name: "cove-base:1", built_in: true },
];

let form: NewSession;
let chosen: Promise<ChosenArchive | null>;

beforeEach(async () => {
  chosen = Promise.resolve({ token: "t7", name: "shop.tar", size_bytes: 3 });
  form = new NewSession({
    listTemplates: () => Promise.resolve(TEMPLATES),
    listImages: () => Promise.resolve([{ image_name: "python:3.13", size_bytes: 1 }]),
    chooseArchive: () => chosen,
  });
  await form.show();
});

function refused(fields: Record<string, string> | null): CommandError {
  const report: ErrorReport = {
    ok: false,
    error: fields ? "VALIDATION_ERROR" : "INTERNAL",
    message: "no",
    hint: "",
    details: fields ? { fields } : {},
  };
  return new CommandError(report);
}

describe("the request", () => {
  it("takes the built-in template when nothing is chosen", async () => {
    const create = vi.fn(() => Promise.resolve());
    await form.submit(create);
    expect(create.mock.calls).toEqual([[{ workspace_id: "default", template: "built-in" }, "cove-base:1"]]);
  });

  it("sends a typed image instead of the template", async () => {
    const create = vi.fn(() => Promise.resolve());
    form.template = "python";
    form.image = "  debian:12 ";
    form.projectName = " api ";
    await form.submit(create);
    expect(create.mock.calls).toEqual([
      [{ workspace_id: "default", image: "debian:12", project_name: "api" }, "debian:12"],
    ]);
  });

  it("allows sudo only for the session for which that was switched on", async () => {
    const create = vi.fn(() => Promise.resolve());
    form.allowPrivilegeGain = true;
    await form.submit(create);
    await form.show();
    await form.submit(create);
    const request = { workspace_id: "default", template: "built-in" };
    expect(create.mock.calls).toEqual([
      [{ ...request, allow_privilege_gain: true }, "cove-base:1"],
      [request, "cove-base:1"],
    ]);
  });

  it("says when there is to be no network, once", async () => {
    const create = vi.fn(() => Promise.resolve());
    form.network = "none";
    await form.submit(create);
    await form.show();
    await form.submit(create);
    const request = { workspace_id: "default", template: "built-in" };
    expect(create.mock.calls).toEqual([[{ ...request, network: "none" }, "cove-base:1"], [request, "cove-base:1"]]);
  });

  it("cannot be sent twice by a double click", async () => {
    let resolve = () => {};
    const answer = new Promise<void>((done) => (resolve = done));
    const create = vi.fn(() => answer);
    const presses = [form.submit(create), form.submit(create)];
    expect(form.submitting).toBe(true);
    resolve();
    await Promise.all(presses);
    expect(create).toHaveBeenCalledTimes(1);
    expect([form.submitting, form.open]).toEqual([false, false]);
    await form.submit(create);
    expect(create).toHaveBeenCalledTimes(1);
  });
});

describe("the files of an archive", () => {
  it("go into the request by their token, once", async () => {
    const create = vi.fn(() => Promise.resolve());
    await Promise.all([form.chooseArchive(), form.chooseArchive()]);
    expect([form.archive?.name, form.choosing]).toEqual(["shop.tar", false]);
    await form.submit(create);
    await form.show();
    await form.submit(create);
    const request = { workspace_id: "default", template: "built-in" };
    expect(create.mock.calls).toEqual([[{ ...request, archive: "t7" }, "cove-base:1"], [request, "cove-base:1"]]);
  });

  it("stay as they were when the dialog is dismissed, and go when they are taken out", async () => {
    await form.chooseArchive();
    chosen = Promise.resolve(null);
    await form.chooseArchive();
    expect(form.archive?.token).toBe("t7");
    form.archive = null;
    const create = vi.fn(() => Promise.resolve());
    await form.submit(create);
    expect(create.mock.calls).toEqual([[{ workspace_id: "default", template: "built-in" }, "cove-base:1"]]);
  });

  it("that cannot be used say so at their row", async () => {
    await form.submit(() => Promise.reject(refused({ archive: "is no tar archive" })));
    expect([form.problems, form.failure]).toEqual([{ archive: "is no tar archive" }, null]);
    await form.chooseArchive();
    expect(form.problems).toEqual({});
  });
});

describe("what is wrong", () => {
  it("stands at its fields, and what was typed stays", async () => {
    form.image = "Py thon";
    form.projectName = "api";
    await form.submit(() => Promise.reject(refused({ image: "is not a reference", workspace_id: "is required" })));
    expect(form.problems).toEqual({ image: "is not a reference", workspace_id: "is required" });
    expect([form.open, form.failure, form.image, form.projectName]).toEqual([true, null, "Py thon", "api"]);
  });

  it("and belongs to no field stands above them, once", async () => {
    await form.submit(() => Promise.reject(refused(null)));
    expect([form.failure?.error, form.problems]).toEqual(["INTERNAL", {}]);
    await form.submit(() => Promise.resolve());
    expect(form.failure).toBeNull();
  });
});

it("lives without the images of the engine", async () => {
  const bare = new NewSession({
    listTemplates: () => Promise.resolve(TEMPLATES),
    listImages: () => Promise.reject(refused(null)),
    chooseArchive: () => Promise.resolve(null),
  });
  await bare.show("shop");
  expect([bare.images, bare.failure, bare.workspaceId, bare.template]).toEqual([[], null, "shop", "built-in"]);
});
