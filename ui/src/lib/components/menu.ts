import type { LucideProps } from "@lucide/svelte";
import type { Component } from "svelte";

/** An entry of a menu. */
export interface MenuAction {
  /** Names the entry for code; unique in its menu. */
  name: string;
  label: string;
  icon: Component<LucideProps>;
  danger?: boolean;
  disabled?: boolean;
  /** The key that does the same; with `Mod` that is Control, or Command on macOS. */
  key?: "F2" | "Delete" | "Mod+X" | "Mod+C" | "Mod+V" | "Mod+Shift+5";
  /** Whether a line separates it from the entry above. */
  apart?: boolean;
  run: () => void;
}
