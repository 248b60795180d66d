import { expect, it } from "vitest";

import { exported, failure } from "../../test/sessions";
import { exportEnd } from "./export";

it("says where the files went, or why they did not, and nothing else", () => {
  const error = failure("DISK_FULL");
  expect([
    exportEnd(exported("s", 1)),
    exportEnd(exported("s", 2, { outcome: "cancelled" })),
    exportEnd(exported("s", 2, { outcome: "done" })),
    exportEnd(exported("s", 2, { outcome: "failed", error })),
    exportEnd(exported("s", 2, { outcome: "failed" })),
  ]).toMatchObject([null, null, { message: "Exported to api.tar" }, { error }, { error: { error: "INTERNAL" } }]);
});
