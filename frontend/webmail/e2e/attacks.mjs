// Attacks in mail, shown in Chromium as messages: frontend/tests/rest/browser.rs starts it with a service whose mailbox they are in. Every request
// goes through a proxy of this script, which lets through what is asked of the service and remembers the rest.
//
// Invariant: no script runs, no request leaves, no dialog opens, nobody is led elsewhere, whatever stands in a message.
import assert from "node:assert/strict";
import http from "node:http";

import { chromium } from "playwright-core";

const { VIEW_BASE: base, VIEW_TOKEN: token, VIEW_MESSAGES: messages } = process.env;
assert.ok(base && token && messages, "where and what is said in the environment: see frontend/tests/rest/browser.rs");

/** How long something may take that will certainly happen, ms. */
const DEADLINE_MS = 60_000;

/** What must not happen. */
const wrong = [];
/** What is being shown. */
let shown = "";
/** What was asked of the service. */
const asked = [];

/** What the browser asks its maker for by itself, whatever it is told; no message of the corpus names these. */
const ERRANDS = /^(?:update\.googleapis\.com|accounts\.google\.com|clients2\.google\.com|www\.google\.com|optimizationguide-pa\.googleapis\.com|content-autofill\.googleapis\.com)$/;

const proxy = http.createServer((request, response) => {
  const url = new URL(request.url, base);
  if (url.origin !== new URL(base).origin) {
    if (!ERRANDS.test(url.hostname)) wrong.push(`${shown}: asked for ${request.url}`);
    response.writeHead(502).end();
    return;
  }
  asked.push(url.pathname);
  if (url.pathname === "/host") {
    response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>host</title><iframe></iframe>");
    return;
  }
  if (!/^\/(?:v1\/messages\/[0-9a-f-]+\/view|v1\/proxy\/(?:image|part)|favicon\.ico)$/.test(url.pathname)) wrong.push(`${shown}: asked for ${url.pathname}`);
  const headers = { ...request.headers };
  if (url.pathname.endsWith("/view")) headers.authorization = `Bearer ${token}`;
  delete headers["proxy-connection"];
  const onward = http.request(url, { method: request.method, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on("error", () => response.destroy());
  request.pipe(onward);
});
proxy.on("connect", (request, socket) => {
  if (!ERRANDS.test(request.url.replace(/:\d+$/, ""))) wrong.push(`${shown}: a connection to ${request.url}`);
  socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n");
});
proxy.on("upgrade", (request, socket) => {
  wrong.push(`${shown}: a stream to ${request.url}`);
  socket.destroy();
});
await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // The machine itself too is asked through the proxy; the browser's own errands are none of a message's.
  proxy: { server: `http://127.0.0.1:${proxy.address().port}`, bypass: "<-loopback>" },
  args: ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
});
const context = await browser.newContext();
context.setDefaultTimeout(DEADLINE_MS);
context.on("page", (page) => {
  page.on("dialog", (dialog) => {
    wrong.push(`${shown}: a dialog, ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("download", () => wrong.push(`${shown}: a download`));
  page.on("popup", () => wrong.push(`${shown}: a window`));
});
const page = await context.newPage();
await page.goto(`${base}/host`);

/** Shows one message in a frame, as a page of ours does, waits until all of it is there, and looks at what became of it. */
async function show({ id, name, images }, whose) {
  shown = `${name}, ${whose}`;
  const url = `${base}/v1/messages/${id}/view?images=show&origin=${whose}`;
  const loaded = page.evaluate(
    (url) =>
      new Promise((resolve) => {
        const frame = document.querySelector("iframe");
        frame.onload = () => resolve();
        frame.src = url;
      }),
    url,
  );
  await loaded;
  const frame = page.frames().find((candidate) => candidate !== page.mainFrame());
  if (frame.url() !== url) wrong.push(`${name}: the frame is at ${frame.url()}`);
  if (page.url() !== `${base}/host`) wrong.push(`${name}: the page is at ${page.url()}`);
  const found = await frame.evaluate(() => ({
    scripts: document.scripts.length,
    elements: [...document.querySelectorAll("iframe,object,embed,form,input,svg,math,link,base,video,audio,meta[http-equiv]")].map((element) => element.localName),
    handlers: [...document.querySelectorAll("*")].flatMap((element) => element.getAttributeNames()).filter((attribute) => attribute.startsWith("on")),
    origin: globalThis.origin,
    images: [...document.images].filter((image) => image.complete && image.naturalWidth > 0).length,
  }));
  if (found.scripts || found.elements.length || found.handlers.length) wrong.push(`${name}: ${JSON.stringify(found)}`);
  const origin = whose === "opaque" ? "null" : new URL(base).origin;
  if (found.origin !== origin) wrong.push(`${name}: the frame's origin is ${found.origin}`);
  if (images !== undefined && found.images !== images) wrong.push(`${name}: ${found.images} images are shown`);
  // What hovers, gets the focus or is clicked must run nothing either.
  await frame.locator("body").hover({ force: true });
  await page.keyboard.press("Tab");
}

const list = JSON.parse(messages);
// In a frame of its own origin, and in one of the page's, as our own page shows it.
for (const whose of ["opaque", "page"]) for (const message of list) await show(message, whose);
// Links open beside the message, and nothing of the frame comes along.
await browser.close();
proxy.close();
assert.ok(asked.some((path) => path === "/v1/proxy/image") && asked.some((path) => path === "/v1/proxy/part"), "images are asked for here");
if (wrong.length) {
  console.error(wrong.join("\n"));
  process.exit(1);
}
console.log(`${list.length} messages shown twice, ${asked.length} requests, all of them here`);
