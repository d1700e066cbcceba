// Who operates: the session of an operator's account, or the administrator's token. It is in memory and in this tab's storage alone, apart from the
// mailbox's: logging out of one leaves the other.
import { Client, Problem } from "../../api/client";
import type { components } from "../../api/schema";

const NAME = "postrider.operator";

export const client = new Client();

type State = "opening" | "in" | "out";

let state = $state<State>("opening");
let name = $state("");
let over = $state(false);

export function sessionState(): State {
  return state;
}

/** As the audit log names whoever is here. */
export function operatorName(): string {
  return name;
}

/** Whether the session was ended by the other side. */
export function wasOver(): boolean {
  return over;
}

function keep(token: string | null): void {
  client.token = token;
  client.session = token === null ? 0 : 1;
  try {
    if (token) sessionStorage.setItem(NAME, token);
    else sessionStorage.removeItem(NAME);
  } catch {
    // Without storage the session ends with the page.
  }
}

function leave(): void {
  client.forget();
  keep(null);
  name = "";
  state = "out";
}

client.onOver = () => {
  over = state === "in";
  leave();
};

async function enter(token: string): Promise<void> {
  client.token = token;
  const { body } = await client.get<components["schemas"]["OperatorView"]>("/v1/admin/operator");
  keep(token);
  name = body.name;
  over = false;
  state = "in";
}

/** Takes up this tab's session. */
export async function restore(): Promise<void> {
  let token: string | null = null;
  try {
    token = sessionStorage.getItem(NAME);
  } catch {
    // As above.
  }
  if (!token) {
    state = "out";
    return;
  }
  try {
    await enter(token);
  } catch (error) {
    over = error instanceof Problem && error.kind === "unauthenticated";
    leave();
  }
}

/** With an operator's account. What is opened for somebody who is none is closed again. */
export async function logIn(address: string, password: string, code: string | null): Promise<void> {
  client.token = null;
  const { body } = await client.post<{ token: string }>("/v1/sessions", { body: { address, password, ...(code === null ? {} : { code }) } });
  try {
    await enter(body.token);
  } catch (error) {
    await client.delete("/v1/sessions/current").catch(() => {});
    leave();
    throw error;
  }
}

/** With the administrator's token. */
export async function showToken(token: string): Promise<void> {
  try {
    await enter(token);
  } catch (error) {
    leave();
    over = false;
    throw error;
  }
}

export async function logOut(): Promise<void> {
  // The token has no session that would end.
  if (name.includes("@")) await client.delete("/v1/sessions/current").catch(() => {});
  over = false;
  leave();
}
