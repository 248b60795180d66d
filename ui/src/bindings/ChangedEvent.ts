import type { Session } from "./Session";
export type ChangedEvent = { session_id: string, seq: number, session: Session | null, };
