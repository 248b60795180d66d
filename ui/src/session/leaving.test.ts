import { expect, it, vi } from "vitest";

import { failure } from "../../test/sessions";
import { CommandError } from "../lib/ipc/error";
import { Leaving } from "./leaving.svelte";

function leaving(leave: () => Promise<void> = () => Promise.resolve()) {
  const asked = vi.fn(leave);
  return { asked, question: new Leaving(asked) };
}

it("is answered once, and only when it was asked", async () => {
  const { asked, question } = leaving();
  await question.answer("cancel");
  question.ask(2);
  await Promise.all([question.answer("background"), question.answer("cancel")]);
  expect(asked.mock.calls).toEqual([["background"]]);
  expect(question.running).toBeNull();
});

it("follows the runs, and stays by itself when all have ended", async () => {
  const { asked, question } = leaving();
  question.follow(2);
  question.ask(2);
  question.follow(0);
  expect([question.running, asked.mock.calls]).toEqual([2, []]);
  question.follow(2);
  question.follow(1);
  expect(question.running).toBe(1);
  question.follow(0);
  await vi.waitFor(() => expect(question.running).toBeNull());
  expect(asked.mock.calls).toEqual([["stay"]]);
});

it("says nothing of its own while an answer is under way", async () => {
  let resolve = () => {};
  const { asked, question } = leaving(() => new Promise((done) => (resolve = done)));
  question.ask(1);
  question.follow(1);
  const answered = question.answer("cancel");
  question.follow(0);
  resolve();
  await answered;
  expect(asked.mock.calls).toEqual([["cancel"]]);
});

it("stays open when the answer was not heard", async () => {
  const { question } = leaving(() => Promise.reject(new CommandError(failure("INTERNAL"))));
  question.ask(1);
  await question.answer("background");
  expect([question.running, question.failure?.error, question.answering]).toEqual([1, "INTERNAL", null]);
});
