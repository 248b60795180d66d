// What survives a reload of the window, or a restart of the app. Losing it never matters.

export type Keeping = "reload" | "restart";

export function recall(key: string, keeping: Keeping): string | null {
  try {
    return storage(keeping).getItem(`cove.${key}`);
  } catch {
    return null;
  }
}

export function remember(key: string, value: string | null, keeping: Keeping): void {
  try {
    if (value === null) storage(keeping).removeItem(`cove.${key}`);
    else storage(keeping).setItem(`cove.${key}`, value);
  } catch {
    // A web view without storage forgets; nothing depends on it.
  }
}

function storage(keeping: Keeping): Storage {
  return keeping === "reload" ? sessionStorage : localStorage;
}
