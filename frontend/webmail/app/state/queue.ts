// Changes on their way: those that come together and change the same go as one batch, each batch until it is answered, in order.
import { isPassing, newKey, Problem, type Answer, type Ask } from "../api/client";
import { pause } from "../api/events";
import { patchKey, type Patch } from "./rows";

/** What the queue needs of the client. */
export interface Poster {
  post<T>(path: string, ask?: Ask): Promise<Answer<T>>;
}

/** Messages of a batch: what the interface takes, and little enough for a body of 64 KiB. */
export const BATCH_MAX = 1000;
/** How long a change waits for others like it, ms. */
const TOGETHER_MS = 40;

interface Job {
  name: string;
  patch: Patch;
  ids: Set<string>;
  settled: Promise<void>;
  resolve: () => void;
  reject: (error: unknown) => void;
}

export class WriteQueue {
  #waiting: Job[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #running = false;
  #wake: (() => void) | null = null;
  #stopped = false;
  /** What is asked for now. */
  #asked: { ids: string[]; patch: Patch; key: string } | null = null;

  constructor(
    private readonly poster: Poster,
    /** How many changes are not answered yet, and whether the interface cannot take them now. */
    private readonly told: (open: number, waits: boolean) => void,
    private readonly rest: (attempt: number) => number = pause,
  ) {}

  get open(): number {
    return this.#waiting.length + (this.#running ? 1 : 0);
  }

  /** Resolves when the change was made; rejects when it was refused. */
  add(ids: Iterable<string>, patch: Patch): Promise<void> {
    const name = patchKey(patch);
    const last = this.#waiting.at(-1);
    const all = [...ids];
    if (last && last.name === name && last.ids.size + all.length <= BATCH_MAX) {
      for (const id of all) last.ids.add(id);
      return last.settled;
    }
    const settled: Promise<void>[] = [];
    for (let at = 0; at < all.length; at += BATCH_MAX) {
      const job = { name, patch, ids: new Set(all.slice(at, at + BATCH_MAX)) } as Job;
      job.settled = new Promise((resolve, reject) => Object.assign(job, { resolve, reject }));
      this.#waiting.push(job);
      settled.push(job.settled);
    }
    this.told(this.open, false);
    if (!this.#running) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.#run(), TOGETHER_MS);
    }
    return Promise.all(settled).then(() => {});
  }

  /** The page goes away: what is not answered is asked for once more, in a way that outlives it. */
  leave(): void {
    const open = [...(this.#asked ? [this.#asked] : []), ...this.#waiting.map((job) => ({ ids: [...job.ids], patch: job.patch, key: newKey() }))];
    for (const { ids, patch, key } of open) void this.poster.post("/v1/messages/batch", { body: bodyOf(ids, patch), key, keepalive: true }).catch(() => {});
  }

  /** Does not wait any longer before the next attempt: the network is back. */
  hurry(): void {
    this.#wake?.();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#wake?.();
    for (const job of this.#waiting.splice(0)) job.resolve();
  }

  async #run(): Promise<void> {
    this.#running = true;
    for (let job = this.#waiting.shift(); job && !this.#stopped; job = this.#waiting.shift()) {
      try {
        await this.#make(job.ids, job.patch);
        job.resolve();
      } catch (error) {
        job.reject(error);
      }
      this.told(this.open - 1, false);
    }
    this.#running = false;
    this.told(this.open, false);
  }

  async #make(ids: ReadonlySet<string>, patch: Patch): Promise<void> {
    try {
      await this.#post([...ids], patch);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      // A batch is made whole or not at all. Where one message of it is gone for good, or it is too much at once, the others are changed without it.
      const splits = error.kind === "not_found" || error.kind === "batch_too_large";
      if (!splits) throw error;
      if (ids.size === 1) {
        if (error.kind === "not_found") return;
        throw error;
      }
      const all = [...ids];
      const half = Math.ceil(all.length / 2);
      await this.#make(new Set(all.slice(0, half)), patch);
      await this.#make(new Set(all.slice(half)), patch);
    }
  }

  async #post(ids: string[], patch: Patch): Promise<void> {
    const body = bodyOf(ids, patch);
    // One key for all attempts: what was carried out and lost its answer is not carried out again.
    const key = newKey();
    this.#asked = { ids, patch, key };
    for (let attempt = 0; ; attempt += 1) {
      try {
        await this.poster.post("/v1/messages/batch", { body, key });
        this.#asked = null;
        return;
      } catch (error) {
        if (!isPassing(error) || this.#stopped) {
          this.#asked = null;
          throw error;
        }
        this.told(this.open, true);
        const after = error instanceof Problem ? (error.retryAfterMs ?? 0) : 0;
        await this.#sleep(Math.max(after, this.rest(attempt)));
      }
    }
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

export function bodyOf(ids: string[], patch: Patch): Record<string, unknown> {
  if (patch.destroy) return { ids, delete: true };
  const body: Record<string, unknown> = { ids };
  if (patch.is_read !== undefined) body["is_read"] = patch.is_read;
  if (patch.is_flagged !== undefined) body["is_flagged"] = patch.is_flagged;
  if (patch.folder_id !== undefined) body["folder_id"] = patch.folder_id;
  if (patch.add?.length || patch.remove?.length) {
    body["labels"] = { ...(patch.add?.length ? { add: patch.add } : {}), ...(patch.remove?.length ? { remove: patch.remove } : {}) };
  }
  return body;
}
