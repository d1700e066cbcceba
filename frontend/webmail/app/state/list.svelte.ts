// The list that is shown: as much of it as was scrolled to, more behind a cursor, its head kept up to date.
import { Problem } from "../api/client";
import type { Change, FoundThread, Summary, Thread, ThreadSummary } from "../api/types";
import { mailbox } from "./mailbox.svelte";
import { samePlace, type Filter, type Place } from "./route.svelte";
import { collapsed, patched, patchedRow, reinserted, staysIn, withHead, type Patch, type Row, type Scope } from "./rows";
import { client } from "./session.svelte";

/** Rows of a page: the first is small, so that it is there at once. */
const FIRST_ROWS = 50;
const PAGE_ROWS = 200;
/** Conversations that are read again one by one when others changed them; beyond, the list is read again. */
const THREADS_READ_MAX = 12;
const TOGETHER_MS = 120;

interface Page {
  rows: Row[];
  /** Messages that it accounts for: what a folder's total is compared with. */
  messages: number;
  cursor: string | null;
  total?: { count: number; exact: boolean };
}

export type Sort = "date" | "relevance";

export class MessageList {
  rows = $state.raw<Row[]>([]);
  end = $state(false);
  loading = $state(false);
  error = $state.raw<unknown>(null);
  /** Of a search. */
  found = $state.raw<{ count: number; exact: boolean } | null>(null);
  selected = $state.raw<ReadonlySet<string>>(new Set());
  /** Everything that matches is selected, loaded or not. */
  every = $state(false);
  /** The row that the keyboard is at. */
  active = $state<string | null>(null);
  /** Rows that the list may have in all, as far as it can be told. */
  readonly length = $derived(this.end ? this.rows.length : this.rows.length + this.#estimate());

  #cursor: string | null = null;
  #ids: { of: readonly Row[]; set: Set<string> } | null = null;
  #counted = $state(0);
  #generation = 0;
  #anchor: string | null = null;
  #headTimer: ReturnType<typeof setTimeout> | undefined;
  #loadingMore: Promise<void> | null = null;
  /** Whether changes of this page are on their way: what is read meanwhile may be from before them. */
  isBusy: () => boolean = () => false;
  /** Whether something has changed while the list was not shown. */
  missed = false;

  constructor(
    readonly place: Place,
    readonly filter: Filter,
    readonly sort: Sort,
  ) {}

  get scope(): Scope {
    const folder = this.place.kind === "folder" ? (mailbox.folderAt(this.place)?.id ?? null) : null;
    return { folder, label: this.place.kind === "label" ? this.place.id : null };
  }

  get byArrival(): boolean {
    return this.sort === "date" || this.place.kind !== "search";
  }

  #estimate(): number {
    const folder = mailbox.folderAt(this.place);
    if (this.place.kind === "search" || this.place.kind === "starred") return Math.max(1, (this.found?.count ?? 0) - this.rows.length);
    if (!folder || this.filter !== "all" || this.#counted === 0) return 1;
    const left = Math.max(0, folder.total - this.#counted);
    return Math.max(1, Math.round((left * this.rows.length) / this.#counted));
  }

  async open(): Promise<void> {
    this.#generation += 1;
    this.#cursor = null;
    this.#loadingMore = null;
    await this.more();
  }

  /** The next page. Whoever asks meanwhile waits for the same one. */
  more(): Promise<void> {
    if (this.end && this.rows.length > 0) return Promise.resolve();
    this.#loadingMore ??= this.#more();
    return this.#loadingMore;
  }

  async #more(): Promise<void> {
    const generation = this.#generation;
    const first = this.#cursor === null;
    this.loading = true;
    this.error = null;
    try {
      const page = await this.#page(this.#cursor, first ? FIRST_ROWS : PAGE_ROWS);
      if (generation !== this.#generation) return;
      const there = first ? new Set<string>() : this.#idsOfRows();
      const fresh = page.rows.filter((row) => !there.has(row.id));
      for (const row of fresh) there.add(row.id);
      this.rows = first ? page.rows : [...this.rows, ...fresh];
      this.#ids = { of: this.rows, set: there };
      this.#counted = (first ? 0 : this.#counted) + page.messages;
      this.#cursor = page.cursor;
      this.end = page.cursor === null;
      if (page.total) this.found = page.total;
    } catch (error) {
      if (generation === this.#generation) this.error = error;
    } finally {
      if (generation === this.#generation) {
        // First this: whoever sees that nothing is loading may ask for the next page in the same moment.
        this.#loadingMore = null;
        this.loading = false;
      }
    }
  }

  /** Which conversations are there: gathered anew only when the rows were changed by something else than the next page. */
  #idsOfRows(): Set<string> {
    return this.#ids?.of === this.rows ? this.#ids.set : new Set(this.rows.map((row) => row.id));
  }

  async #page(cursor: string | null, limit: number): Promise<Page> {
    const { place, filter } = this;
    if (place.kind === "search" || place.kind === "starred") {
      const q = place.kind === "search" ? place.query : "is:flagged";
      const { body } = await client.get<{ threads: FoundThread[]; total: Page["total"]; next_cursor: string | null }>("/v1/search/threads", {
        query: { q, cursor, limit: Math.min(limit, 100), sort: this.sort === "relevance" ? "relevance" : null },
      });
      const rows = body.threads.map(({ id, first, hits }) => ({
        id,
        message: first,
        total: hits,
        unread: first.is_read ? 0 : 1,
        partial: true,
        snippet: first.snippet,
        subjectMarks: first.subject_marks,
      }));
      return { rows, messages: rows.length, cursor: body.next_cursor ?? null, total: body.total };
    }
    if (place.kind === "folder" && filter === "all") {
      const id = this.scope.folder;
      if (!id) throw new Problem("not_found", 404, { type: "", title: "", status: 404 }, null);
      const { body } = await client.get<{ threads: ThreadSummary[]; next_cursor: string | null }>(`/v1/folders/${id}/threads`, { query: { cursor, limit } });
      const rows = body.threads.map(({ id, newest, total, unread }) => ({ id, message: newest, total, unread }));
      return { rows, messages: rows.reduce((sum, row) => sum + row.total, 0), cursor: body.next_cursor ?? null };
    }
    const path = place.kind === "label" ? `/v1/labels/${place.id}/messages` : `/v1/folders/${this.scope.folder}/messages`;
    const flags = filter === "unread" ? { is_read: false } : filter === "starred" ? { is_flagged: true } : {};
    const { body } = await client.get<{ messages: Summary[]; next_cursor: string | null }>(path, { query: { cursor, limit, ...flags } });
    const rows = collapsed(body.messages).map((row) => ({ ...row, partial: true }));
    return { rows, messages: body.messages.length, cursor: body.next_cursor ?? null };
  }

  /** The ids of all messages that the list stands for, those that were never loaded too. */
  async everyMessage(told: (count: number) => void): Promise<Summary[]> {
    const all: Summary[] = [];
    let cursor: string | null = null;
    do {
      let path = `/v1/folders/${this.scope.folder}/messages`;
      let query: Record<string, string | number | boolean | null> = { cursor, limit: 200 };
      if (this.place.kind === "label") path = `/v1/labels/${this.place.id}/messages`;
      if (this.place.kind === "search" || this.place.kind === "starred") {
        path = "/v1/search";
        query = { ...query, q: this.place.kind === "search" ? this.place.query : "is:flagged" };
      }
      if (this.filter === "unread") query = { ...query, is_read: false };
      if (this.filter === "starred") query = { ...query, is_flagged: true };
      const { body }: { body: { messages: Summary[]; next_cursor?: string | null } } = await client.get(path, { query });
      all.push(...body.messages);
      told(all.length);
      cursor = body.next_cursor ?? null;
    } while (cursor !== null);
    return all;
  }

  // --- changes of this page ---------------------------------------------------------------------------------------

  /** Shows a change before it is made; gives the rows as they were. */
  apply(ids: ReadonlySet<string>, patch: Patch): Row[] {
    const before = this.rows.filter((row) => ids.has(row.id));
    if (before.length === 0) return before;
    if (staysIn(this.scope, patch)) {
      this.rows = this.rows.map((row) => (ids.has(row.id) ? patchedRow(row, patch) : row));
    } else {
      this.#keepActive(ids);
      this.rows = this.rows.filter((row) => !ids.has(row.id));
      this.deselect(ids);
    }
    return before;
  }

  /** The row that the keyboard is at goes on to the next that stays. */
  #keepActive(going: ReadonlySet<string>): void {
    if (this.active === null || !going.has(this.active)) return;
    const at = this.rows.findIndex((row) => row.id === this.active);
    const next = this.rows.slice(at).find((row) => !going.has(row.id)) ?? this.rows.slice(0, at).findLast((row) => !going.has(row.id));
    this.active = next?.id ?? null;
  }

  restore(rows: readonly Row[]): void {
    this.rows = reinserted(this.rows, rows, this.byArrival);
  }

  // --- changes of others ------------------------------------------------------------------------------------------

  /** Changes that came over the wire. */
  changed(changes: readonly Change[]): void {
    let head = false;
    const threads = new Set<string>();
    const wanted = new Set(changes.map((change) => change.thread_id));
    const byThread = new Map<string, number>();
    this.rows.forEach((row, index) => {
      if (wanted.has(row.id)) byThread.set(row.id, index);
    });
    let rows: Row[] | null = null;
    const gone = new Set<string>();
    for (const change of changes) {
      if (!change.message_id || !change.thread_id) continue;
      const index = byThread.get(change.thread_id);
      const row = index === undefined ? undefined : (rows ?? this.rows)[index];
      if (change.type === "message_deleted" && row?.total === 1 && row.message.id === change.message_id) {
        gone.add(row.id);
        continue;
      }
      if (change.type === "message_created" || !row || change.type === "message_deleted") {
        if (row || this.#mayShow(change)) head = true;
        if (row) threads.add(row.id);
        continue;
      }
      if (row.message.id === change.message_id && row.total === 1 && !row.partial) {
        const patch: Patch = {};
        if (typeof change.is_read === "boolean") patch.is_read = change.is_read;
        if (typeof change.is_flagged === "boolean") patch.is_flagged = change.is_flagged;
        if (change.folder_id) patch.folder_id = change.folder_id;
        if (!staysIn(this.scope, patch)) {
          threads.add(row.id);
          continue;
        }
        rows ??= [...this.rows];
        const message = { ...patched(row.message, patch), labels: change.labels ?? row.message.labels, keywords: change.keywords ?? row.message.keywords };
        rows[index!] = { ...row, message, unread: message.is_read ? 0 : 1 };
      } else {
        threads.add(row.id);
      }
    }
    if (rows) this.rows = rows;
    // What was all of a conversation is not asked for any more.
    if (gone.size > 0) {
      this.#keepActive(gone);
      this.rows = this.rows.filter((row) => !gone.has(row.id));
      this.deselect(gone);
      if (this.rows.length === 0) head = true;
    }
    if (threads.size > THREADS_READ_MAX) head = true;
    else for (const thread of threads) void this.readThread(thread);
    if (head) this.refreshSoon();
  }

  #mayShow(change: Change): boolean {
    const { folder, label } = this.scope;
    if (folder !== null) return change.folder_id === folder;
    if (label !== null) return change.labels?.includes(label) ?? true;
    return true;
  }

  /** One conversation as it is now. */
  async readThread(id: string): Promise<void> {
    const generation = this.#generation;
    try {
      const { body } = await client.get<Thread>(`/v1/threads/${id}`);
      if (generation !== this.#generation) return;
      if (this.isBusy()) this.refreshSoon();
      else this.#showThread(id, body.messages);
    } catch (error) {
      if (error instanceof Problem && error.kind === "not_found") this.rows = this.rows.filter((row) => row.id !== id);
    }
  }

  #showThread(id: string, messages: readonly Summary[]): void {
    const { folder, label } = this.scope;
    const shown = messages.filter((one) => (folder === null || one.folder_id === folder) && (label === null || one.labels.includes(label)));
    const newest = shown.at(-1);
    const kept = this.rows.find((row) => row.id === id);
    if (!kept) return;
    if (!newest) {
      this.#keepActive(new Set([id]));
      this.rows = this.rows.filter((row) => row.id !== id);
      return;
    }
    const unread = messages.filter((one) => !one.is_read).length;
    // A search shows what it found, not what is newest.
    const message = this.place.kind === "search" ? (messages.find((one) => one.id === kept.message.id) ?? newest) : newest;
    const row = { ...kept, message, total: messages.length, unread };
    this.rows = message.id === kept.message.id ? this.rows.map((one) => (one.id === id ? row : one)) : reinserted(this.rows, [row], this.byArrival);
  }

  refreshSoon(): void {
    clearTimeout(this.#headTimer);
    this.#headTimer = setTimeout(() => void this.refresh(), TOGETHER_MS);
  }

  /** Reads the head again. While changes of this page are on their way it waits for them. */
  async refresh(): Promise<void> {
    if (this.isBusy() || this.loading) return this.refreshSoon();
    const generation = this.#generation;
    try {
      const page = await this.#page(null, FIRST_ROWS);
      if (generation !== this.#generation) return;
      if (this.isBusy()) return this.refreshSoon();
      if (this.byArrival) this.rows = withHead(this.rows, page.rows, page.cursor === null);
      else this.rows = page.rows;
      if (page.total) this.found = page.total;
      if (page.cursor === null) this.end = true;
      else if (this.#cursor === null || !this.byArrival) {
        this.#cursor = page.cursor;
        this.end = false;
        this.#counted = page.messages;
      }
      this.error = null;
    } catch (error) {
      if (this.rows.length === 0 && generation === this.#generation) this.error = error;
    }
  }

  close(): void {
    this.#generation += 1;
    clearTimeout(this.#headTimer);
  }

  // --- selection --------------------------------------------------------------------------------------------------

  toggle(id: string, range: boolean): void {
    this.every = false;
    const selected = new Set(this.selected);
    const from = range && this.#anchor ? this.rows.findIndex((row) => row.id === this.#anchor) : -1;
    const to = this.rows.findIndex((row) => row.id === id);
    if (from >= 0 && to >= 0) {
      const on = selected.has(this.#anchor!);
      for (const row of this.rows.slice(Math.min(from, to), Math.max(from, to) + 1)) {
        if (on) selected.add(row.id);
        else selected.delete(row.id);
      }
    } else if (!selected.delete(id)) {
      selected.add(id);
    }
    this.#anchor = id;
    this.selected = selected;
  }

  selectAll(): void {
    this.selected = new Set(this.rows.map((row) => row.id));
  }

  clearSelection(): void {
    this.selected = new Set();
    this.every = false;
    this.#anchor = null;
  }

  deselect(ids: ReadonlySet<string>): void {
    if (this.selected.size === 0) return;
    this.selected = new Set([...this.selected].filter((id) => !ids.has(id)));
    if (this.selected.size === 0) this.every = false;
  }

  /** What an action is for: what is selected, else the row that the keyboard is at. */
  targets(open: string | null): Row[] {
    if (this.selected.size > 0) return this.rows.filter((row) => this.selected.has(row.id));
    const id = open ?? this.active;
    return this.rows.filter((row) => row.id === id);
  }

  step(by: number, from: string | null = this.active): Row | undefined {
    const at = this.rows.findIndex((row) => row.id === from);
    const next = at < 0 ? (by > 0 ? 0 : this.rows.length - 1) : at + by;
    return this.rows[next];
  }
}

class Lists {
  current = $state.raw<MessageList>(new MessageList({ kind: "folder", key: "inbox" }, "all", "date"));
  isBusy: () => boolean = () => false;

  /** Lists that were left a moment ago are there at once when one goes back. */
  readonly #left: MessageList[] = [];

  show(place: Place, filter: Filter, sort: Sort = "date"): MessageList {
    const current = this.current;
    const same = (list: MessageList): boolean => samePlace(list.place, place) && list.filter === filter && list.sort === sort;
    if (same(current) && (current.rows.length > 0 || current.loading)) return current;
    current.clearSelection();
    if (!same(current) && current.rows.length > 0) {
      this.#left.unshift(current);
      for (const gone of this.#left.splice(LEFT_MAX)) gone.close();
    }
    const at = this.#left.findIndex(same);
    const kept = at >= 0 ? this.#left.splice(at, 1)[0] : undefined;
    const list = kept ?? new MessageList(place, filter, sort);
    list.isBusy = () => this.isBusy();
    this.current = list;
    // A list that missed changes is read anew; what it had is shown until then.
    void (kept && !kept.missed ? list.refresh() : list.open());
    list.missed = false;
    return list;
  }

  /** Everything is read again: changes were lost, or somebody else logged in. */
  forget(): void {
    this.#left.splice(0).forEach((list) => list.close());
    this.current.close();
    this.current = new MessageList(this.current.place, this.current.filter, this.current.sort);
    this.current.isBusy = () => this.isBusy();
  }

  /** Something has changed that only the shown list is told of. */
  changed(): void {
    for (const list of this.#left) list.missed = true;
  }
}

const LEFT_MAX = 6;

export const lists = new Lists();
