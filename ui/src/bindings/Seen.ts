import type { Session } from "./Session";
export type Seen = { seq: number, session: Session | null, };
