import type { Session } from "./Session";
export type Listing = { sessions: Array<Session>, seq: number, };
