// Where else the same mailbox is served: offered when this region does not answer (docs/adr/134-another-region-is-another-page.md).
import type { Region } from "../api/types";
import { domain } from "../text/people";
import { client } from "./session.svelte";

const NAME = "postrider.regions";

export interface Elsewhere {
  name: string;
  origin: string;
}

let known = $state.raw<Elsewhere[]>(kept());

function kept(): Elsewhere[] {
  try {
    const found = JSON.parse(localStorage.getItem(NAME) ?? "[]") as Elsewhere[];
    return Array.isArray(found) ? found.filter((one) => originOf(one.origin) !== null) : [];
  } catch {
    return [];
  }
}

/** Of an address of the web; null of anything else. */
export function originOf(url: string): string | null {
  try {
    const { protocol, origin } = new URL(url);
    return protocol === "https:" || protocol === "http:" ? origin : null;
  } catch {
    return null;
  }
}

/** The others of a list, as this page can lead to them. */
export function others(regions: readonly Pick<Region, "name" | "url" | "here">[], own: string): Elsewhere[] {
  return regions.flatMap(({ name, url, here }) => {
    const origin = originOf(url);
    return here || origin === null || origin === own ? [] : [{ name, origin }];
  });
}

/** Asked while everything is well, since afterwards nobody answers. */
export async function learn(address: string): Promise<void> {
  try {
    const { body } = await client.get<{ regions: Region[] }>("/v1/regions", { query: { domain: domain(address) } });
    known = others(body.regions, location.origin);
    localStorage.setItem(NAME, JSON.stringify(known));
  } catch {
    // What was known before is.
  }
}

export function elsewhere(): Elsewhere[] {
  return known;
}
