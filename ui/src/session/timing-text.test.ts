import { expect, it } from "vitest";

import { cutShort, FIRST_RUN, STALLED_PULL } from "../../dev/timings";
import { timingAsText } from "./timing-text";

it("a copied report lines up, and says what it is about", () => {
  const text = timingAsText(STALLED_PULL, { session: "3f0c7d1e", image: "docker.io/library/python:3.13" });
  expect(text).toBe(
    [
      "The pull stood still for 213.4 s.",
      "",
      "session: 3f0c7d1e",
      "image: docker.io/library/python:3.13",
      "outcome: ready",
      "",
      "                             took  usual",
      "Starting                    0.1 s  0.1 s",
      "Pulling image                4:11   16 s  15× as long, joined a pull already under way, 7 layers",
      "  Waiting for the registry  1.9 s",
      "  Download                   4:06   12 s  20× as long, 431 MB at 1.8 MB/s, usually 36 MB/s",
      "  Extraction                9.1 s  7.1 s  partly during the download",
      "  Stalled                    3:33         part of the times above",
      "Creating volume             44 ms  40 ms",
      "Creating container          0.2 s  0.2 s",
      "Starting container          0.7 s  0.7 s",
      "Total                        4:12   17 s  14× as long",
    ].join("\n"),
  );
});

it("a copied report marks what is not known yet, and compares nothing with it", () => {
  expect(timingAsText(FIRST_RUN).split("\n").slice(4)).toEqual([
    "                             took  usual",
    "Starting                    0.1 s      –",
    "Pulling image                41 s      –  7 layers",
    "  Waiting for the registry  0.8 s",
    "  Download                   36 s      –  431 MB at 12 MB/s",
    "  Extraction                7.6 s      –  partly during the download",
    "Creating volume             44 ms      –",
    "Creating container          0.2 s      –",
    "Starting container          0.7 s      –",
    "Total                        42 s      –",
  ]);
});

it("a copied report of a run that was cut short says where it ended", () => {
  expect(timingAsText(cutShort("cancelled")).split("\n").slice(2)).toEqual([
    "outcome: cancelled",
    "",
    "                             took  usual",
    "Starting                    0.1 s  0.1 s",
    "Pulling image               9.3 s   16 s  cancelled here, 3 layers, 2 more were there already",
    "  Waiting for the registry  5.1 s",
    "  Download                  4.2 s   12 s  50 MB at 12 MB/s, usually 36 MB/s",
    "  Extraction                0.9 s  7.1 s  partly during the download",
    "Total                       9.4 s",
  ]);
});
