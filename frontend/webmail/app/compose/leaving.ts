// A message that somebody has sent, until the interface has it.
import type { Draft } from "./draft";

/** What is asked of the interface: the same under the same key until it is answered. */
export interface Request {
  key: string;
  path: string;
  body: Record<string, unknown>;
  /** When it was first asked, ms since 1970. */
  askedAt: number;
}

export interface Leaving {
  id: string;
  draft: Draft;
  /** When it was sent off, ms since 1970. */
  at: number;
  /** Nobody gets it before, RFC 3339; null: at once. */
  sendAt: string | null;
  /** How long it can be taken back, s. */
  undoS: number;
  /** The page itself keeps it so long, since the interface cannot: ms since 1970. */
  holdUntil: number;
  request: Request | null;
  /** Somebody wants it back; what was asked is answered first. */
  unsend: boolean;
}

/** For so long a key gives the first answer again, ms: 24 hours, less an hour for clocks that differ (docs/api/rest.md). */
export const KEY_MS = 23 * 3_600_000;

/** Whether asking again might send it twice: nobody knows any more what became of the first time. */
export function isUnsure(item: Leaving, now: number): boolean {
  return item.request !== null && now - item.request.askedAt > KEY_MS;
}

export function leavingOf(draft: Draft, now: number, undoS: number, sendAt: string | null): Leaving {
  return { id: draft.id, draft, at: now, sendAt, undoS, holdUntil: 0, request: null, unsend: false };
}

/** `undo_s` and `send_at` as REST takes them. */
export function timesOf(item: Leaving): Record<string, unknown> {
  if (item.sendAt !== null) return { send_at: item.sendAt };
  return item.holdUntil > 0 || item.undoS === 0 ? {} : { undo_s: item.undoS };
}
