// The line of a small plot, as the path of an SVG.

export interface Point {
  /** Milliseconds of some clock. */
  at: number;
  /** Null where it was not known. */
  value: number | null;
}

/** The part of the plane that is drawn: time from left to right, values from the bottom up. */
export interface Frame {
  width: number;
  height: number;
  /** The time at the right edge, and how much lies before it. */
  now: number;
  span: number;
  /** The value at the upper edge. */
  most: number;
}

/** Nothing was measured for longer than this: the line is interrupted. */
const GAP_MS = 12_000;

/** Returns the runs of points without a gap, in the plot's own units. */
export function runsOf(points: readonly Point[], frame: Frame): Array<Array<[x: number, y: number]>> {
  const runs: Array<Array<[number, number]>> = [];
  let last: number | null = null;
  for (const { at, value } of points) {
    if (value === null || at < frame.now - frame.span) {
      last = value === null ? null : last;
      continue;
    }
    const x = frame.width * (1 - (frame.now - at) / frame.span);
    const y = frame.height * (1 - Math.min(1, value / Math.max(frame.most, Number.MIN_VALUE)));
    if (last === null || at - last > GAP_MS) runs.push([]);
    runs.at(-1)?.push([round(x), round(y)]);
    last = at;
  }
  return runs;
}

export function lineOf(run: ReadonlyArray<readonly [number, number]>): string {
  return run.map(([x, y], index) => `${index === 0 ? "M" : "L"}${x} ${y}`).join("");
}

/** The line, and down to the ground. */
export function areaOf(run: ReadonlyArray<readonly [number, number]>, height: number): string {
  const [first, last] = [run[0], run.at(-1)];
  if (!first || !last) return "";
  return `${lineOf(run)}L${last[0]} ${height}L${first[0]} ${height}Z`;
}

/** Returns the value at the upper edge: a little above the highest, at least `floor`, and no more than the limit. */
export function mostOf(points: readonly Point[], floor: number, limit: number | null): number {
  const highest = points.reduce((most, { value }) => Math.max(most, value ?? 0), 0);
  const wanted = Math.max(highest * 1.25, floor);
  // Near the limit the edge is the limit: the room that is left is seen.
  return limit !== null && highest <= limit && wanted >= limit * 0.8 ? limit : wanted;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
