import { expect, it, vi } from "vitest";

import { failure } from "../../test/sessions";
import { CommandError } from "../lib/ipc/error";
import { Leaving } from "./leaving.svelte";

function leaving(leave: () => Promise<void> = () => Promise.resolve()) {
  const asked = vi.fn(leave);
  return { asked, question: new Leaving(asked) };
}

const runs = (running: number) => ({ running, exporting: 0, transferring: 0 });

it.each([
  [1, 0, 0, "1 session is being set up"],
  [2, 0, 0, "2 sessions are being set up"],
  [0, 1, 0, "1 export is under way"],
  [0, 0, 2, "2 transfers are under way"],
  [1, 2, 1, "1 session is being set up, 2 exports are under way, 1 transfer is under way"],
])("names %i runs, %i exports and %i transfers", (running, exporting, transferring, title) => {
  const { question } = leaving();
  question.ask({ running, exporting, transferring });
  expect(question.title).toBe(title);
});

it("goes on to ask while an export or a transfer is under way", () => {
  const { asked, question } = leaving();
  question.ask({ running: 1, exporting: 1, transferring: 1 });
  question.follow({ running: 1, exporting: 1, transferring: 1 });
  question.follow({ running: 0, exporting: 1, transferring: 1 });
  question.follow({ running: 0, exporting: 0, transferring: 1 });
  expect([question.title, asked.mock.calls]).toEqual(["1 transfer is under way", []]);
});

it("is answered once, and only when it was asked", async () => {
  const { asked, question } = leaving();
  await question.answer("cancel");
  question.ask(runs(2));
  await Promise.all([question.answer("background"), question.answer("cancel")]);
  expect(asked.mock.calls).toEqual([["background"]]);
  expect(question.underWay).toBeNull();
});

it("follows the runs, and stays by itself when all have ended", async () => {
  const { asked, question } = leaving();
  question.follow(runs(2));
  question.ask(runs(2));
  question.follow(runs(0));
  expect([question.underWay, asked.mock.calls]).toEqual([runs(2), []]);
  question.follow(runs(2));
  question.follow(runs(1));
  expect(question.underWay).toEqual(runs(1));
  question.follow(runs(0));
  await vi.waitFor(() => expect(question.underWay).toBeNull());
  expect(asked.mock.calls).toEqual([["stay"]]);
});

it("says nothing of its own while an answer is under way", async () => {
  let resolve = () => {};
  const { asked, question } = leaving(() => new Promise((done) => (resolve = done)));
  question.ask(runs(1));
  question.follow(runs(1));
  const answered = question.answer("cancel");
  question.follow(runs(0));
  resolve();
  await answered;
  expect(asked.mock.calls).toEqual([["cancel"]]);
});

it("stays open when the answer was not heard", async () => {
  const { question } = leaving(() => Promise.reject(new CommandError(failure("INTERNAL"))));
  question.ask(runs(1));
  await question.answer("background");
  expect([question.underWay, question.failure?.error, question.answering]).toEqual([runs(1), "INTERNAL", null]);
});
