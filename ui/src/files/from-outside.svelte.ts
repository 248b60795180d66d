// Files that are carried over the window from another program. Where they are on this machine only Rust knows: a drop has a
// token.

import type { CarriedNews } from "../lib/ipc/events";

export class FromOutside {
  /** Where they are over the page; null while there are none. */
  at = $state.raw<{ x: number; y: number } | null>(null);
  /** The last drop. */
  fallen = $state.raw<{ x: number; y: number; token: string } | null>(null);

  hear(news: CarriedNews): void {
    switch (news.kind) {
      case "over":
        this.at = { x: news.x, y: news.y };
        break;
      case "dropped":
        this.at = null;
        this.fallen = { x: news.x, y: news.y, token: news.token };
        break;
      case "gone":
        this.at = null;
        break;
      default:
        news satisfies never;
    }
  }
}
