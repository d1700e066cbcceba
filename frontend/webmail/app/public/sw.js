// The service worker: the page opens without a network. It keeps files of the page alone, never an answer of the interface: what is in a mailbox
// is not written to this device's disk.
const KEPT = "postrider-page-1";
const PAGE = "/mail/inbox";

self.addEventListener("install", (event) => {
  // The interface is asked without a way round through here, where a browser can be told so: it is quicker, and what a page asks as it goes away
  // (`keepalive`) would be dropped on that way.
  if (event.addRoutes) event.waitUntil(event.addRoutes([{ condition: { urlPattern: new URLPattern({ pathname: "/v1/*" }) }, source: "network" }]));
  event.waitUntil(caches.open(KEPT).then((cache) => cache.add(new Request(PAGE, { headers: { accept: "text/html" } }))).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(caches.keys().then((names) => Promise.all(names.filter((name) => name !== KEPT).map((name) => caches.delete(name)))).then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== location.origin) return;
  if (request.mode === "navigate" && /^\/(?:$|mail(?:\/|$)|settings(?:\/|$)|login$|sign-up$)/.test(url.pathname)) event.respondWith(page(request));
  // Such a file never changes: its name is made of what it holds.
  else if (url.pathname.startsWith("/webmail/assets/")) event.respondWith(file(request));
});

async function page(request) {
  const cache = await caches.open(KEPT);
  try {
    const answer = await fetch(request);
    if (answer.ok) {
      await cache.put(PAGE, answer.clone());
      await swept(cache, await answer.clone().text());
    }
    return answer;
  } catch (error) {
    const kept = await cache.match(PAGE);
    if (kept) return kept;
    throw error;
  }
}

// Files of older builds go when a newer page is there.
async function swept(cache, text) {
  const entry = /\/webmail\/assets\/[^"]+\.js/.exec(text)?.[0];
  if (!entry || (await cache.match(entry))) return;
  for (const request of await cache.keys()) if (new URL(request.url).pathname.startsWith("/webmail/assets/")) await cache.delete(request);
}

async function file(request) {
  const cache = await caches.open(KEPT);
  const kept = await cache.match(request);
  if (kept) return kept;
  const answer = await fetch(request);
  if (answer.ok) await cache.put(request, answer.clone());
  return answer;
}
