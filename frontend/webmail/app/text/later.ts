// Times at which people send what they write now.
import type { Key } from "../i18n/index.svelte";

export interface Offer {
  key: Key;
  at: Date;
}

const MORNING_H = 8;
const AFTERNOON_H = 13;

function at(now: Date, days: number, hour: number): Date {
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() + days, hour);
}

/** What is offered at some moment, by the clock of whoever writes, the soonest first. */
export function offers(now: Date): Offer[] {
  const monday = (8 - now.getDay()) % 7 || 7;
  const all: Offer[] = [
    { key: "later.today", at: at(now, 0, AFTERNOON_H) },
    { key: "later.morning", at: at(now, 1, MORNING_H) },
    { key: "later.afternoon", at: at(now, 1, AFTERNOON_H) },
    { key: "later.monday", at: at(now, monday, MORNING_H) },
  ];
  // Tomorrow may be Monday.
  return all.filter((offer, index) => offer.at > now && all.findIndex((other) => other.at.getTime() === offer.at.getTime()) === index);
}

/** The value of a field of day and time, in the zone of whoever looks at it. */
export function fieldOf(date: Date): string {
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}T${two(date.getHours())}:${two(date.getMinutes())}`;
}
