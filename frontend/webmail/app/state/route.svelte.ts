// The address of the page, taken apart: everything that can be opened has one, so that back, forward, reload and a bookmark lead there.

export type Place =
  | { kind: "folder"; key: string }
  | { kind: "label"; id: string }
  | { kind: "search"; query: string }
  | { kind: "starred" }
  | { kind: "outbox" };

export type Route =
  | { page: "login" }
  | { page: "signup" }
  | { page: "mail"; place: Place; filter: Filter; thread: string | null }
  | { page: "settings"; section: string };

export type Filter = "all" | "unread" | "starred";

const INBOX: Place = { kind: "folder", key: "inbox" };

export function parse(path: string, search: string): Route {
  const [first, second, third] = path.split("/").filter(Boolean).map(decode);
  if (first === "login") return { page: "login" };
  if (first === "sign-up") return { page: "signup" };
  if (first === "settings") return { page: "settings", section: second ?? "general" };
  const query = new URLSearchParams(search);
  const wanted = query.get("show");
  const filter: Filter = wanted === "unread" || wanted === "starred" ? wanted : "all";
  return { page: "mail", place: placeOf(second, query), filter, thread: third ?? null };
}

function placeOf(name: string | undefined, query: URLSearchParams): Place {
  if (!name) return INBOX;
  if (name === "starred") return { kind: "starred" };
  if (name === "outbox") return { kind: "outbox" };
  if (name === "search") return { kind: "search", query: query.get("q") ?? "" };
  const label = /^label-(\d+)$/.exec(name);
  if (label) return { kind: "label", id: label[1]! };
  const folder = /^folder-(\d+)$/.exec(name);
  return { kind: "folder", key: folder ? folder[1]! : name };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function pathOf(route: Route): string {
  switch (route.page) {
    case "login":
      return "/login";
    case "signup":
      return "/sign-up";
    case "settings":
      return `/settings/${route.section}`;
    case "mail": {
      const { place, thread, filter } = route;
      const query = new URLSearchParams();
      if (place.kind === "search") query.set("q", place.query);
      if (filter !== "all") query.set("show", filter);
      const text = query.toString();
      return `/mail/${nameOf(place)}${thread ? `/${encodeURIComponent(thread)}` : ""}${text ? `?${text}` : ""}`;
    }
  }
}

export function nameOf(place: Place): string {
  switch (place.kind) {
    case "folder":
      return /^\d+$/.test(place.key) ? `folder-${place.key}` : encodeURIComponent(place.key);
    case "label":
      return `label-${place.id}`;
    case "search":
      return "search";
    case "starred":
      return "starred";
    case "outbox":
      return "outbox";
  }
}

export function samePlace(a: Place, b: Place): boolean {
  return nameOf(a) === nameOf(b) && (a.kind !== "search" || (b.kind === "search" && a.query === b.query));
}

let route = $state.raw<Route>(parse(location.pathname, location.search));

addEventListener("popstate", () => {
  route = parse(location.pathname, location.search);
});

export function here(): Route {
  return route;
}

/** Where one is among mail; the inbox while one is elsewhere. */
export function mailHere(): Extract<Route, { page: "mail" }> {
  return route.page === "mail" ? route : { page: "mail", place: INBOX, filter: "all", thread: null };
}

export function go(to: Route, how: "push" | "replace" = "push"): void {
  const path = pathOf(to);
  // One step back from a conversation is its list, whichever way it was opened.
  if (path === location.pathname + location.search) how = "replace";
  history[how === "push" ? "pushState" : "replaceState"](null, "", path);
  route = to;
}

export function openPlace(place: Place, filter: Filter = "all"): void {
  go({ page: "mail", place, filter, thread: null });
}

export function openThread(thread: string | null, how: "push" | "replace" = "push"): void {
  go({ ...mailHere(), thread }, how);
}
