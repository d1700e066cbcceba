// Changes as they happen: a WebSocket that resumes where it broke off, a long-poll where none can be had.
import type { Client } from "./client";
import { Problem } from "./client";
import type { Frame } from "./types";

/** After so many WebSockets in a row that did not open, the next is a long-poll. */
const SOCKETS_FAILED_MAX = 2;
/** How long polling goes on before a WebSocket is tried again, ms. */
const POLLING_MS = 5 * 60_000;
/** Between attempts, ms: doubled from the first to the last. */
const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 30_000;

export interface Events {
  /** Changes, in order. */
  frame(frame: Frame): void;
  /** Changes were lost: read everything again. */
  resync(): void;
  /** Whether changes arrive. */
  connected(is: boolean): void;
}

/** How long to wait before attempt `attempt` (0 is the first), ms: clients that were cut off together come back one by one. */
export function pause(attempt: number, random: number = Math.random()): number {
  const most = Math.min(PAUSE_MS_MAX, PAUSE_MS_MIN * 2 ** Math.min(attempt, 16));
  return most / 2 + (random * most) / 2;
}

export class EventStream {
  #since: number | null = null;
  #socket: WebSocket | null = null;
  #polling: AbortController | null = null;
  #attempt = 0;
  #socketsFailed = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = true;

  constructor(
    private readonly client: Client,
    private readonly events: Events,
    private readonly origin: string = location.origin,
  ) {}

  start(): void {
    this.#stopped = false;
    this.#since = null;
    this.#connect();
    addEventListener("online", this.#hurry);
    document.addEventListener("visibilitychange", this.#hurry);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#polling?.abort();
    removeEventListener("online", this.#hurry);
    document.removeEventListener("visibilitychange", this.#hurry);
  }

  /** The network is back, or somebody looks: does not wait for the next attempt. */
  readonly #hurry = (): void => {
    if (this.#stopped || this.#socket || this.#polling || document.visibilityState === "hidden") return;
    clearTimeout(this.#timer);
    this.#connect();
  };

  #connect(): void {
    if (this.#stopped) return;
    if (this.#socketsFailed >= SOCKETS_FAILED_MAX || typeof WebSocket === "undefined") void this.#poll();
    else this.#open();
  }

  #again(): void {
    this.#socket = null;
    this.#polling = null;
    if (this.#stopped) return;
    this.events.connected(false);
    this.#timer = setTimeout(() => this.#connect(), pause(this.#attempt++));
  }

  #open(): void {
    const url = new URL("/v1/events", this.origin.replace(/^http/, "ws"));
    if (this.#since !== null) url.searchParams.set("since", String(this.#since));
    const socket = new WebSocket(url, ["postrider.v1"]);
    this.#socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.#socketsFailed = 0;
    };
    socket.onmessage = (message: MessageEvent<string>) => {
      const frame = JSON.parse(message.data) as Frame & { type?: string };
      this.#attempt = 0;
      if (frame.type === "resync") {
        this.#since = frame.modseq;
        this.events.resync();
      } else {
        this.#take(frame);
      }
    };
    socket.onclose = (close) => {
      if (this.#socket !== socket) return;
      if (!opened) this.#socketsFailed += 1;
      if (close.code === 4401) {
        this.#socket = null;
        this.client.onOver();
      } else {
        this.#again();
      }
    };
  }

  async #poll(): Promise<void> {
    const until = Date.now() + POLLING_MS;
    const polling = new AbortController();
    this.#polling = polling;
    try {
      while (!this.#stopped && Date.now() < until) {
        const query = this.#since === null ? {} : { since: this.#since, timeout_s: 50 };
        const { body } = await this.client.get<Frame>("/v1/events/poll", { query, signal: polling.signal });
        this.#attempt = 0;
        this.#take(body);
      }
      this.#socketsFailed = 0;
      this.#polling = null;
      this.#connect();
    } catch (error) {
      if (error instanceof Problem && error.kind === "resync_required") {
        this.#since = Number(error.document["modseq"]);
        this.events.resync();
      }
      this.#again();
    }
  }

  #take(frame: Frame): void {
    this.#since = frame.modseq;
    this.events.connected(true);
    if (frame.changes.length > 0) this.events.frame(frame);
  }
}
