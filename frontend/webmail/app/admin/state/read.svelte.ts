// What a page shows of the interface: read when it opens and, where that costs little, again and again while somebody looks.
import { client } from "./session.svelte";

/** Between two looks, ms. */
export const EVERY_MS = 5_000;

export class Read<T> {
  body = $state.raw<T | null>(null);
  error = $state.raw<unknown>(null);
  /** When it was read last, ms; null: not yet. */
  at = $state<number | null>(null);
  busy = $state(false);
  #turn = 0;

  constructor(private readonly path: () => string) {}

  /** Reads it now. An answer that is overtaken by a newer question is not shown. */
  async again(): Promise<void> {
    const turn = ++this.#turn;
    this.busy = true;
    try {
      const { body } = await client.get<T>(this.path());
      if (turn !== this.#turn) return;
      this.body = body;
      this.at = Date.now();
      this.error = null;
    } catch (error) {
      if (turn === this.#turn) this.error = error;
    } finally {
      if (turn === this.#turn) this.busy = false;
    }
  }

  /** Reads it now and, until the page is left, whenever `everyMs` have passed since the last answer and somebody looks. */
  follow(everyMs: number = EVERY_MS): () => void {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isLeft = false;
    const look = async (): Promise<void> => {
      if (!document.hidden) await this.again();
      if (!isLeft) timer = setTimeout(() => void look(), everyMs);
    };
    void look();
    return () => {
      isLeft = true;
      this.#turn += 1;
      clearTimeout(timer);
    };
  }
}
