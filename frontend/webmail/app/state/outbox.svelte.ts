// What was sent and somebody still waits for, as the interface knows it.
import type { OutboxMessage } from "../api/types";
import { client } from "./session.svelte";

/** Changes that come together are one question, ms. */
const TOGETHER_MS = 300;
/** That a message has left is no change of the mailbox: as long as there is something it is asked for again, ms. */
const AGAIN_MS = 15_000;
const PAGE_ROWS = 100;
/** Pages that are read; who waits for more reads the rest later. */
const PAGES_MAX = 10;

class Outbox {
  /** The oldest first. */
  messages = $state.raw<OutboxMessage[]>([]);
  ready = $state(false);
  error = $state.raw<unknown>(null);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #generation = 0;

  refreshSoon(ms: number = TOGETHER_MS): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.refresh(), ms);
  }

  async refresh(): Promise<void> {
    clearTimeout(this.#timer);
    const generation = ++this.#generation;
    try {
      const found: OutboxMessage[] = [];
      let cursor: string | null = null;
      for (let page = 0; page < PAGES_MAX; page += 1) {
        const { body }: { body: { messages: OutboxMessage[]; next_cursor?: string | null } } = await client.get("/v1/outbox", { query: { limit: PAGE_ROWS, cursor } });
        found.push(...body.messages);
        cursor = body.next_cursor ?? null;
        if (cursor === null) break;
      }
      if (generation !== this.#generation) return;
      this.messages = found;
      this.ready = true;
      this.error = null;
    } catch (error) {
      if (generation !== this.#generation) return;
      this.error = error;
    }
    if (this.messages.length > 0) this.refreshSoon(AGAIN_MS);
  }

  /** How the message stands whose copy in Sent this is. */
  of(message: string): OutboxMessage | undefined {
    return this.messages.find((one) => one.message_id === message);
  }

  forget(): void {
    clearTimeout(this.#timer);
    this.#generation += 1;
    this.messages = [];
    this.ready = false;
    this.error = null;
  }
}

export const outbox = new Outbox();
