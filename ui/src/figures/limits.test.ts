import { expect, it } from "vitest";

import type { Figures } from "../bindings/Figures";
import type { Usage } from "../bindings/Usage";
import { warningsOf } from "./limits";

const GIGA = 1024 ** 3;
const CALM: Figures = { cpu: 3, cpu_limit: 200, memory: 0.5 * GIGA, memory_limit: GIGA, pids: 12, pids_limit: 100 };
const ROOM: Usage = { size_bytes: 1, stored_bytes: 1, at_least: false, modified_ms: null, free_bytes: 50e9, disk_bytes: 100e9, other_volumes: [] };

it.each<[string, Partial<Figures>, Partial<Usage>, string[]]>([
  ["far from all limits", {}, {}, []],
  ["just below nine tenths", { memory: 0.899 * GIGA, pids: 89 }, {}, []],
  ["memory near its limit", { memory: 0.936 * GIGA }, {}, ["Memory 93 %"]],
  ["memory beyond its limit", { memory: 1.1 * GIGA }, {}, ["Memory 100 %"]],
  ["processes near their limit", { pids: 90 }, {}, ["Processes 90 %"]],
  ["a disk with little left", {}, { free_bytes: 4.9e9 }, ["Disk almost full"]],
  ["all at once, the most pressing first", { memory: GIGA, pids: 100 }, { free_bytes: 0 }, ["Memory 100 %", "Processes 100 %", "Disk almost full"]],
  ["what has no limit is not near it", { memory_limit: null, pids_limit: null, pids: 99_999 }, { disk_bytes: null }, []],
  ["what is not known is not near it", { memory: null, pids: null }, { free_bytes: null }, []],
])("%s", (_, figures, usage, short) => {
  const warnings = warningsOf({ ...CALM, ...figures }, { ...ROOM, ...usage });
  expect(warnings.map((warning) => warning.short)).toEqual(short);
});

it("says what will happen, with the limit", () => {
  const [memory, disk] = warningsOf({ ...CALM, memory: GIGA }, { ...ROOM, free_bytes: 2e9 });
  expect(memory?.words).toBe("Near the limit of 1 GiB: when it is used up, a program is ended.");
  expect(disk?.words).toBe("Only 2 GB are free on the engine's disk.");
});

it("knows of nothing while nothing is measured", () => {
  expect(warningsOf(null, null)).toEqual([]);
});
