// Rows of lists, and what a change makes of them. Pure: the same for what the user does, for what is undone and for what others did.
import type { Mark, Summary } from "../api/types";

/** A line of a list: a conversation, or a message alone. */
export interface Row {
  /** The conversation. */
  id: string;
  /** The newest message that the list shows of it. */
  message: Summary;
  /** Messages of the conversation. */
  total: number;
  /** Those that were not read. */
  unread: number;
  /** The list knows only some of the conversation's messages. */
  partial?: boolean;
  /** Of a search. */
  snippet?: { text: string; marks: Mark[] };
  subjectMarks?: Mark[];
}

/** What is changed of a message. */
export interface Patch {
  is_read?: boolean;
  is_flagged?: boolean;
  folder_id?: string;
  /** Labels to add and to remove. */
  add?: string[];
  remove?: string[];
  /** For good: only where it is in Trash. */
  destroy?: true;
}

export function patched(message: Summary, patch: Patch): Summary {
  let labels = message.labels;
  if (patch.add || patch.remove) {
    labels = labels.filter((label) => !patch.remove?.includes(label));
    for (const label of patch.add ?? []) if (!labels.includes(label)) labels = [...labels, label];
  }
  return {
    ...message,
    is_read: patch.is_read ?? message.is_read,
    is_flagged: patch.is_flagged ?? message.is_flagged,
    folder_id: patch.folder_id ?? message.folder_id,
    labels,
  };
}

/** What undoes `patch` for a message that was as `before`; null where nothing was changed. */
export function inverse(before: Summary, patch: Patch): Patch | null {
  const back: Patch = {};
  if (patch.is_read !== undefined && patch.is_read !== before.is_read) back.is_read = before.is_read;
  if (patch.is_flagged !== undefined && patch.is_flagged !== before.is_flagged) back.is_flagged = before.is_flagged;
  if (patch.folder_id !== undefined && patch.folder_id !== before.folder_id) back.folder_id = before.folder_id;
  const added = patch.add?.filter((label) => !before.labels.includes(label)) ?? [];
  const removed = patch.remove?.filter((label) => before.labels.includes(label)) ?? [];
  if (added.length > 0) back.remove = added;
  if (removed.length > 0) back.add = removed;
  return Object.keys(back).length > 0 ? back : null;
}

/** A text that is the same for patches that change the same. */
export function patchKey(patch: Patch): string {
  return JSON.stringify([
    patch.is_read ?? null,
    patch.is_flagged ?? null,
    patch.folder_id ?? null,
    [...(patch.add ?? [])].sort(),
    [...(patch.remove ?? [])].sort(),
    patch.destroy ?? false,
  ]);
}

/** Where a list shows what is in one folder, or has one label. */
export interface Scope {
  folder: string | null;
  label: string | null;
}

/** Whether a message stays in a list when it is changed so. */
export function staysIn(scope: Scope, patch: Patch): boolean {
  if (patch.destroy) return false;
  if (scope.folder !== null && patch.folder_id !== undefined && patch.folder_id !== scope.folder) return false;
  return scope.label === null || !patch.remove?.includes(scope.label);
}

/** The row when all of its messages are changed so. */
export function patchedRow(row: Row, patch: Patch): Row {
  const unread = patch.is_read === undefined ? row.unread : patch.is_read ? 0 : Math.max(1, row.unread);
  return { ...row, message: patched(row.message, patch), unread };
}

/**
 * Puts rows back where they belong. Ids of messages rise with their arrival, and lists have the newest first; a list in another
 * order gets them in front.
 */
export function reinserted(rows: readonly Row[], back: readonly Row[], byArrival: boolean): Row[] {
  const there = new Set(back.map((row) => row.id));
  const kept = rows.filter((row) => !there.has(row.id));
  if (!byArrival) return [...back, ...kept];
  const sorted = [...back].sort((a, b) => (a.message.id < b.message.id ? 1 : -1));
  const merged: Row[] = [];
  let next = 0;
  for (const row of kept) {
    while (next < sorted.length && sorted[next]!.message.id > row.message.id) merged.push(sorted[next++]!);
    merged.push(row);
  }
  return [...merged, ...sorted.slice(next)];
}

/**
 * The list when its head was read again: `head` is what the first page has now, and everything that is older than its last row
 * is as it was. A row that was in the head's range and is not in it any more is gone.
 */
export function withHead(rows: readonly Row[], head: readonly Row[], isWhole: boolean): Row[] {
  const last = head.at(-1);
  if (isWhole || !last) return [...head];
  const there = new Set(head.map((row) => row.id));
  return [...head, ...rows.filter((row) => row.message.id < last.message.id && !there.has(row.id))];
}

/** Of each conversation the first: what lists of messages are to who reads in conversations. */
export function collapsed(messages: readonly Summary[], before: ReadonlySet<string> = new Set()): Row[] {
  const seen = new Set(before);
  const rows: Row[] = [];
  for (const message of messages) {
    if (seen.has(message.thread_id)) continue;
    seen.add(message.thread_id);
    rows.push(ofMessage(message));
  }
  return rows;
}

export function ofMessage(message: Summary): Row {
  return { id: message.thread_id, message, total: 1, unread: message.is_read ? 0 : 1 };
}
