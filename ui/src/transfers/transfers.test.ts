import { expect, it, vi } from "vitest";

import { failure } from "../../test/sessions";
import type { TransferEvent } from "../bindings/TransferEvent";
import { CommandError } from "../lib/ipc/error";
import { Transfers, transferEnd, type TransferCommands } from "./transfers.svelte";

function event(change: Partial<TransferEvent> = {}): TransferEvent {
  return {
    session_id: "s",
    seq: 1,
    transfer_id: "t",
    direction: "upload",
    name: "site",
    things: 1,
    folder: "/workspace",
    files: 0,
    bytes: 0,
    total_bytes: null,
    outcome: null,
    occupied: [],
    error: null,
    ...change,
  };
}

function made(commands: Partial<TransferCommands> = {}) {
  const nothing = () => Promise.resolve();
  const asked = {
    answerTransfer: vi.fn(commands.answerTransfer ?? nothing),
    retryTransfer: vi.fn(commands.retryTransfer ?? nothing),
    cancelTransfer: vi.fn(commands.cancelTransfer ?? nothing),
  };
  const transfers = new Transfers(asked);
  const first = () => {
    const [transfer] = transfers.listed;
    if (!transfer) throw new Error("there is no transfer");
    return transfer;
  };
  return { asked, transfers, first };
}

it("says how far, how fast and how much longer, as soon as that can be said", () => {
  const { transfers, first } = made();
  transfers.hear(event(), 0);
  expect([first().percent, first().line]).toEqual([null, "0 B"]);
  transfers.hear(event({ total_bytes: 40_000_000, bytes: 1_000_000 }), 200);
  expect([first().percent, first().line]).toEqual([2.5, "1 of 40 MB"]);
  transfers.hear(event({ total_bytes: 40_000_000, bytes: 20_000_000, files: 7 }), 1_000);
  expect(first().line).toBe("20 of 40 MB · 7 files · 20 MB/s · about 0:01 left");
});

it("forgets how fast it was long ago", () => {
  const { transfers, first } = made();
  for (let second = 0; second <= 20; second += 1) {
    const done = second <= 10 ? second * 10_000_000 : 100_000_000 + (second - 10) * 1_000_000;
    transfers.hear(event({ total_bytes: 1_000_000_000, bytes: done }), second * 1_000);
  }
  expect(first().speed).toBe(1_000_000);
});

it("names one thing, and how many more there are", () => {
  const { transfers, first } = made();
  transfers.hear(event({ things: 3 }), 0);
  expect(first().title).toBe("site and 2 more");
});

it("keeps what failed or asks, and counts only what goes on", () => {
  const { transfers } = made();
  transfers.hear(event(), 0);
  transfers.hear(event({ transfer_id: "u" }), 0);
  transfers.hear(event({ transfer_id: "v", session_id: "other" }), 0);
  expect([transfers.underWay, transfers.of("s").length]).toEqual([3, 2]);
  transfers.hear(event({ outcome: "failed", error: failure("DISK_FULL") }), 1);
  transfers.hear(event({ transfer_id: "u", outcome: "asks", occupied: ["site"] }), 1);
  transfers.hear(event({ transfer_id: "v", session_id: "other", outcome: "cancelled" }), 1);
  expect([transfers.underWay, transfers.of("s").length, transfers.of("other").length]).toEqual([0, 2, 0]);
});

it("counts the uploads that arrived in a session", () => {
  const { transfers } = made();
  transfers.hear(event({ outcome: "done" }), 0);
  transfers.hear(event({ transfer_id: "u", outcome: "done", direction: "download" }), 0);
  expect([transfers.landed("s"), transfers.landed("other"), transfers.listed]).toEqual([1, 0, []]);
});

it("shows one that is cancelled until it has ended, and forgets one that had", async () => {
  const { asked, transfers, first } = made();
  transfers.hear(event(), 0);
  await transfers.cancel(first());
  expect([first().busy, asked.cancelTransfer.mock.calls]).toEqual([true, [["s", "t"]]]);
  transfers.hear(event({ outcome: "failed" }), 1);
  expect(first().busy).toBe(false);
  await transfers.cancel(first());
  expect(transfers.listed).toEqual([]);
});

it("gives way to the one that begins in its place, or says why that could not be", async () => {
  const refused = vi.fn(() => Promise.reject(new CommandError(failure("SESSION_NOT_READY"))));
  const { transfers, first } = made({ retryTransfer: refused });
  transfers.hear(event({ outcome: "failed" }), 0);
  await transfers.retry(first());
  expect([first().failure?.error, first().busy]).toEqual(["SESSION_NOT_READY", false]);
  transfers.hear(event({ outcome: "asks", occupied: ["site"] }), 1);
  await transfers.answer(first(), "replace");
  expect(transfers.listed).toEqual([]);
});

it("forgets those of sessions that are gone", () => {
  const { transfers } = made();
  transfers.hear(event(), 0);
  transfers.hear(event({ transfer_id: "u", session_id: "gone" }), 0);
  transfers.keepThoseOf((id) => id === "s");
  expect(transfers.listed.map(({ id }) => id)).toEqual(["t"]);
});

it("says what is done and nothing else", () => {
  expect(transferEnd(event())).toBeNull();
  expect(transferEnd(event({ outcome: "failed" }))).toBeNull();
  expect(transferEnd(event({ outcome: "done" }))).toBe("Uploaded site");
  expect(transferEnd(event({ outcome: "done", direction: "download", things: 2 }))).toBe("Downloaded 2 entries");
});
