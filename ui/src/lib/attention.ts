// What wants to be looked at in a place that is not looked at.

/** Nothing, output that nobody has seen, or a program that waits for its user. */
export type Attention = "none" | "unseen" | "waiting";

/** Returns the one of them that matters most. */
export function mostOf(all: readonly Attention[]): Attention {
  if (all.includes("waiting")) return "waiting";
  return all.includes("unseen") ? "unseen" : "none";
}

export const ATTENTION_WORDS: Record<Exclude<Attention, "none">, string> = {
  unseen: "New output",
  waiting: "A program waits for you",
};
