// Which page: /admin and one word behind it.
export const PAGES = ["cluster", "shards", "moves", "queues", "stores", "domains", "accounts", "audit"] as const;
export type Page = (typeof PAGES)[number];

export function pageOf(path: string): Page {
  const word = /^\/admin\/(\w+)\/?$/.exec(path)?.[1];
  return PAGES.find((page) => page === word) ?? "cluster";
}

export function pathOf(page: Page): string {
  return page === "cluster" ? "/admin" : `/admin/${page}`;
}

let page = $state<Page>(pageOf(location.pathname));
addEventListener("popstate", () => (page = pageOf(location.pathname)));

export function here(): Page {
  return page;
}

export function go(to: Page): void {
  if (to !== page) history.pushState(null, "", pathOf(to));
  page = to;
}
