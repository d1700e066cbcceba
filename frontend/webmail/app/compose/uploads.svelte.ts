// Files of drafts, on their way to the mailbox before the message that they go with.
import { isPassing, newKey, Problem } from "../api/client";
import { pause } from "../api/events";
import type { UploadReceipt } from "../api/types";
import { client } from "../state/session.svelte";
import type { DraftFile } from "./draft";

/** An upload that is over so soon is made anew, ms. */
const LEFT_MS_MIN = 5 * 60_000;
/** Files that are sent at once. */
const AT_ONCE = 2;

interface Stored {
  id: string;
  until: number;
}

class Uploads {
  /** How much of a file has been sent, 0 to 1; none of a file that is there, or waits. */
  progress = $state<Record<string, number>>({});
  readonly #stored = new Map<string, Stored>();
  readonly #running = new Map<string, { sent: Promise<string>; stop: AbortController }>();
  readonly #line: (() => void)[] = [];
  #busy = 0;

  /** The id of an upload that lasts long enough for a message; the file is sent if there is none. */
  of(file: DraftFile): Promise<string> {
    const there = this.#stored.get(file.id);
    if (there && there.until - Date.now() > LEFT_MS_MIN) return Promise.resolve(there.id);
    const running = this.#running.get(file.id);
    if (running) return running.sent;
    const stop = new AbortController();
    const sent = this.#send(file, stop.signal).finally(() => {
      this.#running.delete(file.id);
      delete this.progress[file.id];
    });
    this.#running.set(file.id, { sent, stop });
    return sent;
  }

  /** What is in it, from the mailbox if it was not fetched yet. */
  async content(file: DraftFile, signal?: AbortSignal): Promise<Blob> {
    file.data ??= file.path ? await client.file(file.path, signal) : null;
    if (!file.data) throw new Problem("not_found", 404, { type: "", title: file.name, status: 404 }, null);
    return file.data;
  }

  /** Begins, without anybody waiting for it. */
  begin(file: DraftFile): void {
    this.of(file).catch(() => {
      // Whoever saves or sends the draft is told.
    });
  }

  isStored(file: DraftFile): boolean {
    return this.#stored.has(file.id);
  }

  /** The file is not wanted any more. */
  stop(file: DraftFile): void {
    this.#running.get(file.id)?.stop.abort();
    this.#stored.delete(file.id);
  }

  /** An id was refused: it is over. */
  lost(files: readonly DraftFile[]): void {
    for (const file of files) this.#stored.delete(file.id);
  }

  forget(): void {
    for (const { stop } of this.#running.values()) stop.abort();
    this.#stored.clear();
  }

  async #send(file: DraftFile, signal: AbortSignal): Promise<string> {
    await this.#turn();
    try {
      // Under one key there is one content.
      const key = newKey();
      for (let attempt = 0; ; attempt += 1) {
        try {
          const data = await this.content(file, signal);
          this.progress[file.id] = 0;
          const progress = (part: number): void => void (this.progress[file.id] = part);
          const made = await client.send<UploadReceipt>("/v1/uploads", data, { key, signal, progress });
          this.#stored.set(file.id, { id: made.upload_id, until: Date.parse(made.expires_at) });
          return made.upload_id;
        } catch (error) {
          if (signal.aborted || !isPassing(error)) throw error;
          const after = error instanceof Problem ? (error.retryAfterMs ?? 0) : 0;
          await new Promise((resolve) => setTimeout(resolve, Math.max(after, pause(attempt))));
          if (signal.aborted) throw error;
        }
      }
    } finally {
      this.#busy -= 1;
      this.#line.shift()?.();
    }
  }

  async #turn(): Promise<void> {
    if (this.#busy >= AT_ONCE) await new Promise<void>((resolve) => this.#line.push(resolve));
    this.#busy += 1;
  }
}

export const uploads = new Uploads();
