// The one way to REST v1: sessions, idempotency keys, conditional reads, problems, and how fresh an answer is.
import type { components } from "./schema";

export type ProblemDocument = components["schemas"]["ProblemDocument"] & Record<string, unknown>;

/** What the interface refused, by the kind at the end of its type's URN. */
export class Problem extends Error {
  constructor(
    readonly kind: string,
    readonly status: number,
    readonly document: ProblemDocument,
    /** When to ask again, ms; null where asking again changes nothing. */
    readonly retryAfterMs: number | null,
  ) {
    super(document.detail ?? document.title);
  }

  /** Nothing was changed, or the same request under the same key finds out. */
  get isPassing(): boolean {
    return this.status === 503 || this.status === 429 || this.status === 408;
  }
}

/** No answer came: no network, or no frontend. */
export class Unreachable extends Error {}

/** Whether asking the same again may go well. */
export function isPassing(error: unknown): boolean {
  return error instanceof Unreachable || (error instanceof Problem && error.isPassing);
}

export interface Answer<T> {
  body: T;
  /** At most so old, ms, when no leader could be reached; null when it is current. */
  staleMs: number | null;
  /** The mailbox's change counter behind a write; null of a read. */
  modseq: number | null;
}

export interface Ask {
  body?: unknown;
  /** The same for each attempt at the same thing. */
  key?: string;
  query?: Record<string, string | number | boolean | null | undefined>;
  signal?: AbortSignal;
  /** Goes on when the page is closed; the body is small. */
  keepalive?: boolean;
}

type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

/** Answers that are kept to ask whether they still hold. */
const KEPT_MAX = 150;

/** How long an answer may take, ms; the interface gives up a little earlier. */
const ANSWER_MS_MAX = 40_000;
/** The same of what may carry files. */
const POST_MS_MAX = 200_000;

interface Kept {
  tag: string;
  body: unknown;
}

export class Client {
  /** Which session requests are made under, as this page counts them; 0 while there is none. The session itself is in a cookie that no script sees. */
  session = 0;
  /** What the operators' page shows of itself instead: it has no session in a cookie. */
  token: string | null = null;
  /** Whether the browser's session is still the one that this page shows: tabs share their cookie. */
  isCurrent: () => boolean = () => true;
  /** Told of each answer and each failure to get one: what the line about freshness is made of. */
  onReach: (reach: { staleMs: number | null } | "none") => void = () => {};
  /** The session is over. */
  onOver: () => void = () => {};
  readonly #kept = new Map<string, Kept>();

  constructor(private readonly base: string = "") {}

  async get<T>(path: string, ask: Ask = {}): Promise<Answer<T>> {
    return this.#ask<T>("GET", path, ask);
  }
  async post<T>(path: string, ask: Ask = {}): Promise<Answer<T>> {
    return this.#ask<T>("POST", path, { key: newKey(), ...ask });
  }
  async put<T>(path: string, ask: Ask = {}): Promise<Answer<T>> {
    return this.#ask<T>("PUT", path, { key: newKey(), ...ask });
  }
  async patch<T>(path: string, ask: Ask = {}): Promise<Answer<T>> {
    return this.#ask<T>("PATCH", path, { key: newKey(), ...ask });
  }
  async delete(path: string, ask: Ask = {}): Promise<Answer<null>> {
    return this.#ask<null>("DELETE", path, ask);
  }

  /** Sends a file as it is. `fetch` does not say how far it has come, so this is an older way. */
  async send<T>(path: string, data: Blob, told: { key: string; signal: AbortSignal; progress: (part: number) => void }): Promise<T> {
    this.#check();
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", this.base + path);
      request.setRequestHeader("accept", "application/json");
      request.setRequestHeader("content-type", "application/octet-stream");
      request.setRequestHeader("idempotency-key", told.key);
      const session = this.session;
      request.upload.onprogress = (event) => told.progress(event.lengthComputable && event.total > 0 ? event.loaded / event.total : 0);
      const lost = (): void => {
        this.onReach("none");
        reject(new Unreachable("the connection broke while a file was sent"));
      };
      request.onerror = lost;
      request.ontimeout = lost;
      request.onabort = () => reject(new DOMException("a file is not sent any more", "AbortError"));
      request.timeout = POST_MS_MAX;
      request.onload = () => {
        const fields = new Headers();
        for (const name of ["content-type", "retry-after"]) {
          const value = request.getResponseHeader(name);
          if (value !== null) fields.set(name, value);
        }
        void this.#read<T>(new Response(request.responseText, { status: request.status, headers: fields }), session).then(resolve, reject);
      };
      told.signal.addEventListener("abort", () => request.abort(), { once: true });
      request.send(data);
    });
  }

  /** What a file was answered with. */
  async #read<T>(response: Response, session: number): Promise<T> {
    if (!response.ok) throw await this.#refused(response, session);
    this.onReach({ staleMs: null });
    return (await json(response)) as T;
  }

  async #refused(response: Response, session: number): Promise<Problem> {
    const problem = await problemOf(response);
    if (problem.status !== 503) this.onReach({ staleMs: null });
    // An answer to an older session says nothing of this one.
    if (problem.kind === "unauthenticated" && session !== 0 && session === this.session && this.isCurrent()) this.onOver();
    return problem;
  }

  /** A file, as it is. */
  async file(path: string, signal?: AbortSignal): Promise<Blob> {
    const response = await this.#fetch("GET", path, {}, { signal });
    if (!response.ok) throw await problemOf(response);
    return response.blob();
  }

  /** Forgets what it was told: the session is over. */
  forget(): void {
    this.session = 0;
    this.token = null;
    this.#kept.clear();
  }

  async #ask<T>(method: Method, path: string, ask: Ask): Promise<Answer<T>> {
    const target = path + queryOf(ask.query);
    const kept = method === "GET" ? this.#kept.get(target) : undefined;
    const fields: Record<string, string> = {};
    if (kept) fields["if-none-match"] = kept.tag;
    const session = this.session;
    const response = await this.#fetch(method, target, fields, ask);
    const answer = {
      staleMs: number(response.headers.get("postrider-stale-ms")),
      modseq: number(response.headers.get("postrider-modseq")),
    };
    if (response.status === 304 && kept) {
      this.onReach({ staleMs: answer.staleMs });
      this.#keep(target, kept);
      return { body: kept.body as T, ...answer };
    }
    if (!response.ok) throw await this.#refused(response, session);
    this.onReach({ staleMs: answer.staleMs });
    const body = response.status === 204 ? null : await json(response);
    const tag = response.headers.get("etag");
    if (method === "GET" && tag) this.#keep(target, { tag, body });
    return { body: body as T, ...answer };
  }

  /** Nothing is asked in the name of somebody else who has logged in from another tab. */
  #check(): void {
    if (this.session !== 0 && !this.isCurrent()) throw new Unreachable("another session has begun in this browser");
  }

  async #fetch(method: Method, target: string, fields: Record<string, string>, ask: Ask): Promise<Response> {
    this.#check();
    const headers: Record<string, string> = { accept: "application/json", ...fields };
    if (this.token !== null) headers["authorization"] = `Bearer ${this.token}`;
    if (ask.key && method !== "GET") headers["idempotency-key"] = ask.key;
    if (ask.body !== undefined) headers["content-type"] = "application/json";
    const late = AbortSignal.timeout(target.startsWith("/v1/events/poll") ? 100_000 : method === "POST" || method === "PUT" ? POST_MS_MAX : ANSWER_MS_MAX);
    try {
      return await fetch(this.base + target, {
        method,
        headers,
        body: ask.body === undefined ? undefined : JSON.stringify(ask.body),
        signal: ask.signal ? anyOf(ask.signal, late) : late,
        cache: "no-store",
        credentials: this.token === null ? "same-origin" : "omit",
        keepalive: ask.keepalive ?? false,
      });
    } catch (error) {
      if (ask.signal?.aborted) throw error;
      this.onReach("none");
      throw new Unreachable(String(error));
    }
  }

  #keep(target: string, kept: Kept): void {
    // The map's order is that of use: the first is the one that was not asked for the longest.
    this.#kept.delete(target);
    this.#kept.set(target, kept);
    const oldest = this.#kept.size > KEPT_MAX ? this.#kept.keys().next().value : undefined;
    if (oldest !== undefined) this.#kept.delete(oldest);
  }
}

/** `AbortSignal.any`, which browsers of 2023 lack. */
function anyOf(...signals: AbortSignal[]): AbortSignal {
  const controller = new AbortController();
  for (const signal of signals) {
    if (signal.aborted) controller.abort(signal.reason);
    signal.addEventListener("abort", () => controller.abort(signal.reason), { once: true });
  }
  return controller.signal;
}

/** For each thing that is to happen a new one. `randomUUID` is there in secure contexts only, and a plain port is none. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function queryOf(query: Ask["query"]): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined) parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text ? `?${text}` : "";
}

function number(text: string | null): number | null {
  return text !== null && /^\d+$/.test(text) ? Number(text) : null;
}

async function json(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch (error) {
    // The connection broke within the body.
    throw new Unreachable(String(error));
  }
}

async function problemOf(response: Response): Promise<Problem> {
  let document: ProblemDocument = { type: "", title: `HTTP ${response.status}`, status: response.status };
  try {
    if (response.headers.get("content-type")?.startsWith("application/problem+json")) document = await response.json();
  } catch {
    // What broke off is told by its status.
  }
  const after = number(response.headers.get("retry-after"));
  return new Problem(document.type.split(":").at(-1) ?? "", response.status, document, after === null ? null : after * 1000);
}
