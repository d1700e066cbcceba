// The conversation that is open: its messages, those of them that are unfolded, and their bodies.
import { SvelteMap, SvelteSet } from "svelte/reactivity";

import { Problem } from "../api/client";
import type { Change, Message, Summary, Thread, ThreadMessage } from "../api/types";
import { mailbox } from "./mailbox.svelte";
import { patched, type Patch } from "./rows";
import { client } from "./session.svelte";

/** Bodies that are kept: they never change. */
const BODIES_MAX = 300;
const bodies = new Map<string, Promise<Message>>();
const threads = new Map<string, { messages: ThreadMessage[] }>();
const THREADS_MAX = 100;

function kept<V>(map: Map<string, V>, key: string, value: V, most: number): V {
  map.delete(key);
  map.set(key, value);
  const oldest = map.size > most ? map.keys().next().value : undefined;
  if (oldest !== undefined) map.delete(oldest);
  return value;
}

export function bodyOf(id: string): Promise<Message> {
  const there = bodies.get(id);
  if (there) return kept(bodies, id, there, BODIES_MAX);
  const asked = client.get<Message>(`/v1/messages/${id}`).then((answer) => answer.body);
  asked.catch(() => bodies.delete(id));
  return kept(bodies, id, asked, BODIES_MAX);
}

export async function messagesOf(id: string): Promise<ThreadMessage[]> {
  const { body } = await client.get<Thread>(`/v1/threads/${id}`);
  kept(threads, id, { messages: body.messages }, THREADS_MAX);
  return body.messages;
}

/** Before it is opened: opening it then asks for nothing. */
export async function prefetch(id: string): Promise<void> {
  if (threads.has(id)) return;
  try {
    const messages = await messagesOf(id);
    await Promise.all(unfoldedOf(shownOf(messages)).slice(-3).map(bodyOf));
  } catch {
    // Opening it will say what is wrong.
  }
}

export function forgetBodies(): void {
  bodies.clear();
  threads.clear();
}

/** A conversation is shown without its drafts and what was thrown away, unless nothing else is left of it. */
function shownOf(messages: readonly ThreadMessage[]): ThreadMessage[] {
  const trash = mailbox.role("trash")?.id;
  const left = messages.filter((message) => message.folder_id !== trash && !isDraft(message));
  return left.length > 0 ? left : messages.filter((message) => !isDraft(message));
}

/** What is written below it and not sent yet. */
function isDraft(message: Summary): boolean {
  return message.folder_id === mailbox.role("drafts")?.id && message.keywords.includes("$draft");
}

/** What was not read, and the newest. */
function unfoldedOf(messages: readonly ThreadMessage[]): string[] {
  const last = messages.at(-1);
  return messages.filter((message) => !message.is_read || message === last).map((message) => message.id);
}

export class ThreadView {
  all = $state.raw<ThreadMessage[]>([]);
  readonly messages = $derived(shownOf(this.all));
  readonly drafts = $derived(this.all.filter(isDraft));
  readonly unfolded = new SvelteSet<string>();
  readonly bodies = new SvelteMap<string, Message>();
  readonly failed = new SvelteSet<string>();
  loading = $state(true);
  error = $state.raw<unknown>(null);
  gone = $state(false);
  /** All of a long conversation, also what was read before. */
  whole = $state(false);
  #closed = false;

  constructor(readonly id: string) {
    const there = threads.get(id);
    if (there) this.#show(there.messages, true);
  }

  async open(): Promise<void> {
    const first = this.all.length === 0;
    this.error = null;
    try {
      const messages = await messagesOf(this.id);
      if (!this.#closed) this.#show(messages, first);
    } catch (error) {
      if (error instanceof Problem && error.kind === "not_found") this.gone = true;
      else if (first) this.error = error;
    } finally {
      this.loading = false;
    }
  }

  #show(messages: ThreadMessage[], first: boolean): void {
    const known = new Set(this.all.map((message) => message.id));
    this.all = messages;
    this.loading = false;
    this.gone = messages.length === 0;
    const unfold = first ? unfoldedOf(shownOf(messages)) : messages.filter((message) => !known.has(message.id)).map((message) => message.id);
    for (const id of unfold) this.unfold(id);
  }

  unfold(id: string): void {
    this.unfolded.add(id);
    void this.#body(id);
  }

  toggle(id: string): void {
    if (!this.unfolded.delete(id)) this.unfold(id);
  }

  unfoldAll(): void {
    this.whole = true;
    for (const message of this.messages) this.unfold(message.id);
  }

  async #body(id: string): Promise<void> {
    if (this.bodies.has(id)) return;
    this.failed.delete(id);
    try {
      this.bodies.set(id, await bodyOf(id));
    } catch {
      this.failed.add(id);
    }
  }

  retry(id: string): void {
    void this.#body(id);
  }

  apply(patch: Patch, ids: ReadonlySet<string> | null): void {
    if (patch.destroy) {
      this.all = this.all.filter((message) => ids !== null && !ids.has(message.id));
      return;
    }
    const next = this.all.map((message) => (ids === null || ids.has(message.id) ? { ...message, ...patched(message, patch) } : message));
    this.all = next;
    kept(threads, this.id, { messages: next }, THREADS_MAX);
  }

  changed(changes: readonly Change[]): void {
    if (changes.some((change) => change.thread_id === this.id)) void this.open();
  }

  close(): void {
    this.#closed = true;
  }
}

/** What others did to conversations that are kept. */
export function dropThreads(changes: readonly Change[]): void {
  for (const change of changes) if (change.thread_id) threads.delete(change.thread_id);
}

/** The messages of a conversation as they are now. */
export async function threadMessages(id: string): Promise<Summary[]> {
  return messagesOf(id);
}

class Open {
  view = $state.raw<ThreadView | null>(null);

  show(id: string | null): void {
    if (this.view?.id === id) return;
    this.view?.close();
    this.view = id ? new ThreadView(id) : null;
    void this.view?.open();
  }
}

export const reading = new Open();
