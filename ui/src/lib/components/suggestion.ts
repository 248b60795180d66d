/** What a field offers while one types. */
export interface Suggestion {
  value: string;
  /** A mark at the right, such as a size. */
  mark?: string | undefined;
}
