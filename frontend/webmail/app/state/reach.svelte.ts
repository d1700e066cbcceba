// Whether the interface answers, and how old what it answers is: the line on top of the page.

export type Reach =
  | { state: "good" }
  | { state: "stale"; ms: number }
  | { state: "none" };

let reach = $state.raw<Reach>({ state: "good" });
let noQuorum = $state(false);
let failures = 0;

/** One lost request says nothing yet: networks change. */
const FAILURES_SHOWN = 2;

/** So long after the network has gone answers still come to what was asked before, ms. */
const UNDER_WAY_MS = 3_000;
let wentOffline = -Infinity;

export function reached(told: { staleMs: number | null } | "none"): void {
  if (told === "none") {
    failures += 1;
    if (failures >= FAILURES_SHOWN || !navigator.onLine) reach = { state: "none" };
    return;
  }
  // A machine without a network may reach what runs on itself, so later answers count.
  if (!navigator.onLine && performance.now() - wentOffline < UNDER_WAY_MS) return;
  failures = 0;
  if (told.staleMs !== null) reach = { state: "stale", ms: told.staleMs };
  else if (reach.state !== "good") reach = { state: "good" };
}

export function writesWait(wait: boolean): void {
  noQuorum = wait;
}

export function reachNow(): Reach {
  return reach;
}

export function changesWait(): boolean {
  return noQuorum;
}

addEventListener("offline", () => {
  wentOffline = performance.now();
  reach = { state: "none" };
});
