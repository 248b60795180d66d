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
  /** The key that does the same. */
  key?: "F2" | "Delete";
  /** Whether a line separates it from the entry above. */
  apart?: boolean;
  run: () => void;
}
