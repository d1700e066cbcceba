// Who is logged in. The token is in memory and in the tab's own storage, which ends with the tab; tabs of one browser lend it to each other.
//
// A cookie that scripts cannot read is better and wants the interface's help: docs/adr/132-the-token-in-the-tab.md.
import { Client } from "../api/client";
import type { Profile } from "../api/types";
import { go, here } from "./route.svelte";
import { reached } from "./reach.svelte";
import { clear } from "./store";

const NAME = "postrider.token";
const CHANNEL = "postrider.session";
/** How long another tab has to lend its token, ms. */
const LENT_MS = 150;

export const client = new Client();
client.onReach = reached;

type State = "opening" | "in" | "out";

let state = $state<State>("opening");
let over = $state(false);
/** Grows with each log-in: what belongs to an older one is nobody's. */
let generation = $state(0);
const channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel(CHANNEL);

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
  leave();
};

function keep(token: string | null): void {
  client.token = token;
  try {
    if (token) sessionStorage.setItem(NAME, token);
    else sessionStorage.removeItem(NAME);
  } catch {
    // Without storage the session ends with the page.
  }
}

function enter(token: string): void {
  keep(token);
  over = false;
  generation += 1;
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
  keep(null);
  state = "out";
  const at = here();
  if (at.page === "mail" || at.page === "settings") {
    back = over ? at : null;
    go({ page: "login" }, "replace");
  }
}

channel?.addEventListener("message", (message: MessageEvent<{ ask?: true; token?: string; left?: true }>) => {
  if (message.data.ask && client.token) channel.postMessage({ token: client.token });
  if (message.data.left && client.token) leave();
  if (message.data.token && state === "opening") enter(message.data.token);
});

/** Takes up the session of this tab, or of another one. */
export async function restore(): Promise<void> {
  let token: string | null = null;
  try {
    token = sessionStorage.getItem(NAME);
  } catch {
    // As above.
  }
  if (token) return enter(token);
  channel?.postMessage({ ask: true });
  if (channel) await new Promise((resolve) => setTimeout(resolve, LENT_MS));
  if (state !== "opening") return;
  back = here().page === "login" || here().page === "signup" ? null : here();
  state = "out";
  if (here().page !== "signup") go({ page: "login" }, "replace");
}

export async function logIn(address: string, password: string): Promise<void> {
  const { body } = await client.post<{ token: string }>("/v1/sessions", { body: { address, password } });
  enter(body.token);
}

export async function signUp(address: string, password: string, name: string): Promise<void> {
  await client.post("/v1/accounts", { body: { address, password, name } });
  await logIn(address, password);
}

export async function logOut(): Promise<void> {
  try {
    await client.delete("/v1/sessions/current");
  } catch {
    // Whoever wants out is out here, whether or not the other side heard it.
  }
  over = false;
  channel?.postMessage({ left: true });
  await clear().catch(() => {});
  leave();
}

/** Nothing undoes it. */
export async function deleteAccount(password: string): Promise<void> {
  await client.delete("/v1/accounts/current", { body: { password } });
  over = false;
  channel?.postMessage({ left: true });
  await clear().catch(() => {});
  leave();
}

export async function profile(): Promise<Profile> {
  return (await client.get<Profile>("/v1/profile")).body;
}
