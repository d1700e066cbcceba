// What one does with messages. It is shown at once, made in the background, and can be undone for ten seconds.
import { Problem } from "../api/client";
import { compose } from "../compose/compose.svelte";
import type { Summary } from "../api/types";
import { reasonOf, t, type Key } from "../i18n/index.svelte";
import { lists, type MessageList } from "./list.svelte";
import { folderName, mailbox, placeName } from "./mailbox.svelte";
import { WriteQueue } from "./queue";
import { writesWait } from "./reach.svelte";
import { openThread, mailHere } from "./route.svelte";
import { inverse, patchKey, type Patch, type Row } from "./rows";
import { client } from "./session.svelte";
import { reading, threadMessages } from "./thread.svelte";
import { dismiss, say, UNDO_MS } from "./toasts.svelte";

/** Conversations that are read at once to learn which messages an action is for. */
const READ_AT_ONCE = 6;

let open = $state(0);
let waits = $state(false);

export const queue = new WriteQueue(client, (count, wait) => {
  open = count;
  waits = wait;
  writesWait(wait);
  if (count === 0) mailbox.refreshSoon();
});
lists.isBusy = () => queue.open > 0 || held.size > 0;
lists.current.isBusy = lists.isBusy;

/** Changes whose messages are being read from the mailbox. */
const gathering = new Set<{ rows: readonly Row[]; patch: Patch }>();

/** What waits for its ten seconds because nothing brings it back: deleting for good. */
const held = new Map<string, () => void>();

export function changesOpen(): { open: number; waits: boolean } {
  return { open, waits };
}

addEventListener("online", () => queue.hurry());
// Whoever closes the page has decided.
addEventListener("pagehide", () => {
  for (const now of [...held.values()]) now();
  // Of what is not known yet at least the messages that one has seen.
  for (const { rows, patch } of gathering) void queue.add(rows.map((row) => row.message.id), patch).catch(() => {});
  // Which messages those are is known a moment later.
  queueMicrotask(() => queue.leave());
});

/** Which messages of a conversation an action is for. */
function chosen(messages: readonly Summary[], row: Row, patch: Patch, list: MessageList): Summary[] {
  if (patch.is_read === true) return messages.filter((message) => !message.is_read);
  if (patch.is_flagged === false) return messages.filter((message) => message.is_flagged);
  const from = list.scope.folder ?? row.message.folder_id;
  const here = messages.filter((message) => message.folder_id === from);
  if (patch.is_read === false || patch.is_flagged === true) return here.slice(-1);
  return here;
}

async function messagesFor(rows: readonly Row[], patch: Patch, list: MessageList): Promise<Summary[]> {
  const found: Summary[] = rows.filter((row) => row.total === 1 && !row.partial).map((row) => row.message);
  const others = rows.filter((row) => row.total !== 1 || row.partial);
  for (let at = 0; at < others.length; at += READ_AT_ONCE) {
    const read = others.slice(at, at + READ_AT_ONCE).map(async (row) => {
      try {
        return chosen(await threadMessages(row.id), row, patch, list);
      } catch (error) {
        if (error instanceof Problem && error.kind === "not_found") return [];
        return [row.message];
      }
    });
    found.push(...(await Promise.all(read)).flat());
  }
  return found;
}

/** Counts at the side, before the interface says them. */
function count(messages: readonly Summary[], patch: Patch, sign: 1 | -1): void {
  for (const message of messages) {
    const unread = message.is_read ? 0 : 1;
    const unreadAfter = (patch.is_read ?? message.is_read) ? 0 : 1;
    const to = patch.folder_id ?? message.folder_id;
    if (patch.destroy || to !== message.folder_id) {
      mailbox.adjust(message.folder_id, -sign, -sign * unread);
      if (!patch.destroy) mailbox.adjust(to, sign, sign * unreadAfter);
    } else if (unread !== unreadAfter) {
      mailbox.adjust(to, 0, sign * (unreadAfter - unread));
    }
  }
}

interface Doing {
  rows: Row[];
  patch: Patch;
  /** What it is called when it is done; none where it goes without saying. */
  did: Key | null;
  place?: string;
}

/** Does it to conversations of the list that is shown. */
export function perform({ rows, patch, did, place }: Doing): void {
  if (rows.length === 0) return;
  const list = lists.current;
  if (list.every && list.selected.size > 0 && did) {
    void performEvery(list, patch, did, place);
    return;
  }
  const ids = new Set(rows.map((row) => row.id));
  const before = list.apply(ids, patch);
  const openIds = reading.view && ids.has(reading.view.id) ? reading.view : null;
  const threadBefore = openIds?.all;
  const asked = { rows, patch };
  if (!patch.destroy) gathering.add(asked);
  const messages = messagesFor(rows, patch, list).finally(() => gathering.delete(asked)).then((found) => {
    count(found, patch, 1);
    if (openIds) openIds.apply(patch, new Set(found.map((message) => message.id)));
    return found;
  });
  const undo = (found: readonly Summary[]): void => {
    list.restore(before);
    if (openIds && threadBefore) openIds.all = threadBefore;
    count(found, patch, -1);
  };
  if (did) list.clearSelection();
  if (patch.destroy) {
    hold(messages, patch, rows.length, did, undo);
    return;
  }
  const made = messages.then((found) => queue.add(found.map((message) => message.id), patch));
  made.catch((error: unknown) => {
    void messages.then(undo, () => undo([]));
    say(t("did.failed", { reason: reasonOf(error) }), { tone: "bad" });
  });
  if (!did) return;
  const back = (): void => {
    void messages.then((found) => {
      undo(found);
      unmake(found, patch);
      say(t("did.undone"));
    });
  };
  say(t(did, { count: rows.length, place: place ?? "" }), { action: { label: t("act.undo"), run: back } });
}

/** Makes messages again what they were. */
function unmake(found: readonly Summary[], patch: Patch): void {
  const groups = new Map<string, { patch: Patch; ids: string[] }>();
  for (const message of found) {
    const back = inverse(message, patch);
    if (!back) continue;
    const name = patchKey(back);
    const group = groups.get(name) ?? { patch: back, ids: [] };
    group.ids.push(message.id);
    groups.set(name, group);
  }
  for (const group of groups.values()) {
    queue.add(group.ids, group.patch).catch((error: unknown) => {
      say(t("did.failed", { reason: reasonOf(error) }), { tone: "bad" });
      lists.current.refreshSoon();
    });
  }
}

/** What nothing brings back is made only when its time to undo is over. */
function hold(messages: Promise<Summary[]>, patch: Patch, rows: number, did: Key | null, undo: (found: readonly Summary[]) => void): void {
  const id = say(t(did ?? "did.destroyed", { count: rows }), {
    action: {
      label: t("act.undo"),
      run: () => {
        clearTimeout(timer);
        held.delete(id);
        void messages.then(undo);
        say(t("did.undone"));
      },
    },
  });
  const now = (): void => {
    clearTimeout(timer);
    held.delete(id);
    dismiss(id);
    void messages.then((found) =>
      queue.add(found.map((message) => message.id), patch).catch((error: unknown) => {
        undo(found);
        say(t("did.failed", { reason: reasonOf(error) }), { tone: "bad" });
      }),
    );
  };
  const timer = setTimeout(now, UNDO_MS);
  held.set(id, now);
}

/** Does it to everything that the list stands for, loaded or not. */
async function performEvery(list: MessageList, patch: Patch, did: Key, place?: string, sure = false): Promise<void> {
  const toast = say(t("did.working", { count: list.selected.size }), { ms: 600_000 });
  try {
    const found = await list.everyMessage((count) => say(t("did.working", { count }), { ms: 600_000, id: toast }));
    const changed = found.filter((message) => patch.destroy || inverse(message, patch) !== null);
    const before = list.apply(new Set(list.rows.map((row) => row.id)), patch);
    list.clearSelection();
    if (patch.destroy && !sure) {
      dismiss(toast);
      hold(Promise.resolve(changed), patch, changed.length, did, () => list.restore(before));
      return;
    }
    await queue.add(changed.map((message) => message.id), patch);
    await list.open();
    dismiss(toast);
    const undoable = !patch.destroy;
    const back = (): void => {
      unmake(changed, patch);
      say(t("did.undone"));
      list.refreshSoon();
    };
    say(t(did, { count: changed.length, place: place ?? "" }), undoable ? { action: { label: t("act.undo"), run: back } } : {});
  } catch (error) {
    dismiss(toast);
    say(t("did.failed", { reason: reasonOf(error) }), { tone: "bad" });
    void list.open();
  }
}

/** Opens a conversation, or goes on with a draft. */
export function openRow(row: Row, how: "push" | "replace" = "push"): void {
  const { message } = row;
  lists.current.active = row.id;
  if (message.folder_id === mailbox.role("drafts")?.id && message.keywords.includes("$draft")) void compose.resumeMessage(message.id);
  else openThread(row.id, how);
}

// --- by name ---------------------------------------------------------------------------------------------------------

/** When what is open goes away, the next is opened where lists stand beside conversations, else the list. */
function goOn(rows: readonly Row[]): void {
  const { thread } = mailHere();
  if (!thread || !rows.some((row) => row.id === thread)) return;
  const list = lists.current;
  const going = new Set(rows.map((row) => row.id));
  const at = list.rows.findIndex((row) => row.id === thread);
  const next = beside() ? (list.rows.slice(at + 1).find((row) => !going.has(row.id)) ?? list.rows.slice(0, at).findLast((row) => !going.has(row.id))) : undefined;
  openThread(next?.id ?? null, "replace");
  if (next) list.active = next.id;
}

/** Whether the list stands beside what is read. Set by the page, which knows its width. */
let beside: () => boolean = () => false;
export function layoutIs(isBeside: () => boolean): void {
  beside = isBeside;
}

function moveTo(rows: Row[], folder: string, did: Key): void {
  goOn(rows);
  const target = mailbox.folder(folder);
  perform({ rows, patch: { folder_id: folder }, did, place: target ? folderName(target) : "" });
}

export function archive(rows: Row[]): void {
  const folder = mailbox.role("archive");
  if (folder && lists.current.scope.folder !== folder.id) moveTo(rows, folder.id, "did.archived");
}

export function trash(rows: Row[]): void {
  const folder = mailbox.role("trash");
  if (!folder) return;
  if (lists.current.scope.folder === folder.id) {
    goOn(rows);
    perform({ rows, patch: { destroy: true }, did: "did.destroyed" });
  } else {
    moveTo(rows, folder.id, "did.trashed");
  }
}

export function spam(rows: Row[]): void {
  const junk = mailbox.role("junk");
  const inbox = mailbox.role("inbox");
  if (!junk || !inbox) return;
  if (lists.current.scope.folder === junk.id) moveTo(rows, inbox.id, "did.notSpam");
  else moveTo(rows, junk.id, "did.spam");
}

export function toInbox(rows: Row[]): void {
  const inbox = mailbox.role("inbox");
  if (inbox) moveTo(rows, inbox.id, "did.moved");
}

export function move(rows: Row[], folder: string): void {
  moveTo(rows, folder, "did.moved");
}

export function markRead(rows: Row[], read: boolean): void {
  perform({ rows, patch: { is_read: read }, did: read ? "did.read" : "did.unread" });
}

export function star(rows: Row[]): void {
  const on = rows.some((row) => !row.message.is_flagged);
  perform({ rows, patch: { is_flagged: on }, did: rows.length > 1 ? (on ? "did.starred" : "did.unstarred") : null });
}

export function label(rows: Row[], add: string[], remove: string[]): void {
  if (add.length > 0 || remove.length > 0) perform({ rows, patch: { add, remove }, did: "did.labelled" });
}

/** What is opened counts as read. It goes without saying. */
export function opened(): void {
  const view = reading.view;
  if (!view) return;
  const unread = view.messages.filter((message) => !message.is_read);
  if (unread.length === 0) return;
  const ids = new Set(unread.map((message) => message.id));
  view.apply({ is_read: true }, ids);
  lists.current.apply(new Set([view.id]), { is_read: true });
  count(unread, { is_read: true }, 1);
  queue.add(ids, { is_read: true }).catch(() => {});
}

/** A message alone, within its conversation. */
export function starMessage(message: Summary): void {
  const patch = { is_flagged: !message.is_flagged };
  reading.view?.apply(patch, new Set([message.id]));
  const row = lists.current.rows.find((row) => row.message.id === message.id);
  if (row) lists.current.apply(new Set([row.id]), patch);
  queue.add([message.id], patch).catch((error: unknown) => say(t("did.failed", { reason: reasonOf(error) }), { tone: "bad" }));
}

export function trashMessage(message: Summary): void {
  const folder = mailbox.role("trash");
  if (!folder || message.folder_id === folder.id) return;
  const patch = { folder_id: folder.id };
  const view = reading.view;
  const before = view?.all;
  view?.apply(patch, new Set([message.id]));
  count([message], patch, 1);
  queue.add([message.id], patch).then(
    () => void lists.current.readThread(message.thread_id),
    (error: unknown) => say(t("did.failed", { reason: reasonOf(error) }), { tone: "bad" }),
  );
  const back = (): void => {
    if (view && before) view.all = before;
    count([message], patch, -1);
    unmake([message], patch);
  };
  say(t("did.trashed", { count: 1 }), { action: { label: t("act.undo"), run: back } });
  if (view && view.messages.every((one) => one.folder_id === folder.id)) openThread(null, "replace");
}

/** From here on unread again, and back to the list. */
export function unreadFrom(message: Summary): void {
  const view = reading.view;
  if (!view) return;
  const from = view.messages.findIndex((one) => one.id === message.id);
  const ids = new Set(view.messages.slice(from).map((one) => one.id));
  const found = view.messages.filter((one) => ids.has(one.id) && one.is_read);
  count(found, { is_read: false }, 1);
  lists.current.apply(new Set([view.id]), { is_read: false });
  queue.add(ids, { is_read: false }).catch(() => {});
  openThread(null);
}

/** Whoever asks for it has been asked whether it is meant. */
export async function emptyTrash(): Promise<void> {
  const list = lists.current;
  list.selectAll();
  list.every = true;
  await performEvery(list, { destroy: true }, "did.destroyed", placeName(list.place), true);
}
