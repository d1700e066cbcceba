// Who is logged in. The session is in a cookie that no script sees; what the page keeps is a mark that there is one, by which its tabs know of
// each other: docs/adr/132-the-token-in-the-tab.md, docs/adr/142-sessions-of-browsers.md.
import { Client, newKey, Problem } from "../api/client";
import type { Profile } from "../api/types";
import { go, here } from "./route.svelte";
import { reached } from "./reach.svelte";
import { clear } from "./store";

/** Made anew with each log-in; it opens nothing. */
const MARK = "postrider.session";
/** Whoever logged out while nothing answered: the session is ended as soon as something does. */
const LEAVING = "postrider.leaving";

export const client = new Client();
client.onReach = reached;

type State = "opening" | "in" | "out";

let state = $state<State>("opening");
let over = $state(false);
/** Grows with each log-in: what belongs to an older one is nobody's. */
let generation = $state(0);
/** The mark of the session that this page shows. */
let mark: string | null = null;

export function sessionState(): State {
  return state;
}

/** Whether the session was ended by the other side. */
export function wasOver(): boolean {
  return over;
}

export function sessionGeneration(): number {
  return generation;
}

client.onOver = () => {
  over = true;
  keep(null);
  leave();
};

/** Where a browser gives no storage the page's own memory is all that there is. */
let isStored = true;

function kept(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    isStored = false;
    return null;
  }
}

function write(name: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    isStored = false;
  }
}

function keep(value: string | null): void {
  mark = value;
  write(MARK, value);
}

client.isCurrent = () => {
  const shared = kept(MARK);
  return !isStored || shared === mark;
};

function enter(): void {
  over = false;
  generation += 1;
  client.session = generation;
  state = "in";
  const at = here();
  if (at.page === "login" || at.page === "signup") {
    const wanted = at.page === "login" ? back : null;
    back = null;
    go(wanted ?? { page: "mail", place: { kind: "folder", key: "inbox" }, filter: "all", thread: null }, "replace");
  }
}

/** Where somebody wanted to go when he had to log in first. */
let back: ReturnType<typeof here> | null = null;

function leave(): void {
  client.forget();
  state = "out";
  const at = here();
  if (at.page === "mail" || at.page === "settings") {
    back = over ? at : null;
    go({ page: "login" }, "replace");
  }
}

addEventListener("storage", (event) => {
  if (event.key !== MARK || event.newValue === mark) return;
  if (event.newValue === null) {
    mark = null;
    if (state === "in") leave();
  } else {
    // Somebody has logged in from another tab, perhaps somebody else: nothing of what this page holds is his.
    location.reload();
  }
});

/** Takes up the session of this browser. */
export async function restore(): Promise<void> {
  if (kept(LEAVING) !== null) void ended();
  mark = kept(MARK);
  if (mark !== null) return enter();
  back = here().page === "login" || here().page === "signup" ? null : here();
  state = "out";
  if (here().page !== "signup") go({ page: "login" }, "replace");
}

/** Ends the session at the other side, which takes the cookie away; the page cannot. */
async function ended(): Promise<void> {
  write(LEAVING, "1");
  try {
    await client.delete("/v1/sessions/current");
  } catch (error) {
    // A session that is over is over. Whoever wants out is out here, whether or not the other side heard it yet.
    if (!(error instanceof Problem) || error.kind !== "unauthenticated") return;
  }
  write(LEAVING, null);
}

addEventListener("online", () => {
  if (kept(LEAVING) !== null && state === "out") void ended();
});

/** `code`: what an account with a second factor wants beside the password. */
export async function logIn(address: string, password: string, code: string | null = null): Promise<void> {
  await client.post("/v1/sessions", { body: { address, password, cookie: true, ...(code === null ? {} : { code }) } });
  // The cookie is another one now.
  write(LEAVING, null);
  await isKept();
  keep(newKey());
  enter();
}

/** Whether the browser gives the session back: it keeps the cookie by HTTPS only, and from the machine itself. */
async function isKept(): Promise<void> {
  try {
    await client.get("/v1/profile");
  } catch (error) {
    if (!(error instanceof Problem) || error.kind !== "unauthenticated") return;
    throw new Problem("no_cookie", error.status, error.document, null);
  }
}

export async function signUp(address: string, password: string, name: string): Promise<void> {
  await client.post("/v1/accounts", { body: { address, password, name } });
  await logIn(address, password);
}

export async function logOut(): Promise<void> {
  await ended();
  await out();
}

/** Nothing undoes it. */
export async function deleteAccount(password: string): Promise<void> {
  await client.delete("/v1/accounts/current", { body: { password } });
  await out();
}

async function out(): Promise<void> {
  over = false;
  keep(null);
  await clear().catch(() => {});
  leave();
}

export async function profile(): Promise<Profile> {
  return (await client.get<Profile>("/v1/profile")).body;
}
