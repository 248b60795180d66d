import { afterEach, expect, it, vi } from "vitest";

import { Notices } from "./notices";

afterEach(() => vi.restoreAllMocks());

it("says nothing to who looks at the window, and not every bell to who does not", () => {
  const focus = vi.spyOn(document, "hasFocus").mockReturnValue(true);
  const show = vi.fn(() => Promise.resolve());
  const notices = new Notices(show);
  notices.say("a", "seen", 0);
  expect(show).not.toHaveBeenCalled();
  focus.mockReturnValue(false);
  for (const at of [0, 9_000, 10_000]) notices.say("a", `at ${at}`, at);
  notices.say("b", null, 9_000);
  expect(show.mock.calls).toEqual([["a", "at 0"], ["a", "at 10000"], ["b", null]]);
});
