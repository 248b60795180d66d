// What is said at the end of an export.

import type { ErrorReport } from "../bindings/ErrorReport";
import type { ExportEvent } from "../bindings/ExportEvent";
import { report } from "../lib/ipc/error";
import { visibleName } from "../lib/names";

export type ExportEnd = { kind: "done"; message: string } | { kind: "failed"; error: ErrorReport };

/** How an export ended, if that is worth saying: who cancelled it knows. */
export function exportEnd(news: ExportEvent): ExportEnd | null {
  switch (news.outcome) {
    case "done":
      return { kind: "done", message: `Exported to ${visibleName(news.file_name)}` };
    case "failed":
      return { kind: "failed", error: news.error ?? report("INTERNAL", "failed to export the files", "Try again.") };
    case "cancelled":
    case null:
      return null;
    default:
      return news.outcome satisfies never;
  }
}
