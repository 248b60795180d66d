import { expect, it, vi } from "vitest";

import { failure, listed } from "../../test/sessions";
import { CommandError } from "../lib/ipc/error";
import { Question } from "./question.svelte";

const worker = () => listed("w", { state: "stopped" });

it("sends the answer once, without the space around it, and closes", async () => {
  const send = vi.fn(() => Promise.resolve());
  const question = new Question("name", send);
  const session = worker();
  await question.submit();
  question.show(session, "w");
  question.answer = " api ";
  await Promise.all([question.submit(), question.submit()]);
  expect(send.mock.calls).toEqual([[session, "api"]]);
  expect([question.session, question.submitting]).toEqual([null, false]);
});

it("says what is wrong with the answer at the field, and the rest above it", async () => {
  const invalid = { ...failure("VALIDATION_ERROR"), details: { fields: { name: "is required" } } };
  const send = vi
    .fn()
    .mockRejectedValueOnce(new CommandError(invalid))
    .mockRejectedValueOnce(new CommandError(failure("SESSION_NOT_FOUND")));
  const question = new Question("name", send);
  question.show(worker(), "");
  await question.submit();
  expect([question.session?.id, question.problem, question.failure]).toEqual(["w", "is required", null]);
  await question.submit();
  expect([question.problem, question.failure?.error]).toEqual([null, "SESSION_NOT_FOUND"]);
  question.close();
  question.show(worker(), "w");
  expect([question.answer, question.problem, question.failure]).toEqual(["w", null, null]);
});
