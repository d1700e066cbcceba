// Where else the same mailbox is served: offered when this region does not answer (docs/adr/134-another-region-is-another-page.md).
import type { Region } from "../api/types";
import { domain } from "../text/people";
import { client } from "./session.svelte";

const NAME = "postrider.regions";
/** How far a region is: its frontend's answer to nothing. The page's policy lets this path of it be asked for, and no other. */
const PING = "/v1/ping";
/** Whoever takes longer is no help, ms. */
const PING_MS_MAX = 5_000;
/** The first question opens the connection; the others are the round trip. */
const PINGS = 3;

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

/** How long a region takes to answer, ms; null where it does not. */
async function roundTrip(origin: string): Promise<number | null> {
  let least: number | null = null;
  for (let count = 0; count < PINGS; count += 1) {
    const began = performance.now();
    try {
      const answer = await fetch(origin + PING, { credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer", signal: AbortSignal.timeout(PING_MS_MAX) });
      if (!answer.ok) return null;
    } catch {
      return null;
    }
    least = Math.min(least ?? Infinity, performance.now() - began);
  }
  return least;
}

/** Those that answer, the nearest first. Where none is known to, all of them as they are listed: it may be this page that cannot ask. */
export async function nearest(regions: Elsewhere[] = known, measure: (origin: string) => Promise<number | null> = roundTrip): Promise<Elsewhere[]> {
  const measured = await Promise.all(regions.map(async (region) => ({ region, ms: await measure(region.origin) })));
  const answering = measured.flatMap(({ region, ms }) => (ms === null ? [] : [{ region, ms }]));
  return answering.length === 0 ? regions : answering.sort((one, two) => one.ms - two.ms).map(({ region }) => region);
}
