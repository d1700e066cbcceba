// How quick the page is: a list of 100,000 conversations, keys, memory, what is loaded at first. Where and who is said in the environment, as in
// journeys.mjs. The list's rows are made up here, so that what is measured is the page and not a cluster; everything else is asked of the frontend.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

import { chromium } from "playwright-core";

const { WEBMAIL_BASE: base, WEBMAIL_ADDRESS: address, WEBMAIL_PASSWORD: password } = process.env;
const ROWS = Number(process.env.ROWS ?? 100_000);
/** A phone of four cores, as Lighthouse thinks of it. */
const THROTTLE = Number(process.env.THROTTLE ?? 4);

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--enable-precise-memory-info", "--js-flags=--expose-gc"] });
const found = {};

function quantiles(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part) => Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0) * 10) / 10;
  return { count: sorted.length, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
}

const PEOPLE = ["Ada Kim", "Bora Lee", "Chinedu Okafor", "Dilek Yılmaz", "이서연", "Frida Olsen"];
function rowsFrom(start, count, folder) {
  return Array.from({ length: Math.max(0, Math.min(count, ROWS - start)) }, (_, offset) => {
    const number = start + offset;
    const id = (10 ** 9 - number).toString(16).padStart(32, "0");
    return {
      id, total: 1 + (number % 3), unread: number % 7 === 0 ? 1 : 0,
      newest: {
        id, thread_id: id, folder_id: folder, from: { name: PEOPLE[number % PEOPLE.length], email: `p${number % 50}@example.org` }, to: [{ name: "", email: address }],
        subject: `Conversation ${number}`, preview: "What was said first, in so many words that the line is full and has to end somewhere.",
        date: new Date(Date.UTC(2026, 10, 30) - number * 600_000).toISOString(), is_read: number % 7 !== 0, is_flagged: number % 11 === 0, keywords: [], labels: [], has_attachments: number % 5 === 0, size: 4000,
      },
    };
  });
}

async function open({ rows = false, throttle = 1, viewport = { width: 1280, height: 800 }, phone = false } = {}) {
  const context = await browser.newContext({ viewport, locale: "en-GB", isMobile: phone, hasTouch: phone });
  context.setDefaultTimeout(120_000);
  const page = await context.newPage();
  const devtools = await context.newCDPSession(page);
  if (throttle > 1) await devtools.send("Emulation.setCPUThrottlingRate", { rate: throttle });
  if (rows) {
    let inbox = "1";
    await page.route("**/v1/folders", async (route) => {
      const answer = await route.fetch();
      const folders = await answer.json();
      for (const folder of folders) if (folder.role === "inbox") {
        inbox = folder.id;
        folder.total = ROWS * 2;
      }
      await route.fulfill({ json: folders });
    });
    await page.route("**/v1/folders/*/threads*", async (route) => {
      const query = new URL(route.request().url()).searchParams;
      const start = Number(query.get("cursor") ?? 0);
      const limit = Number(query.get("limit") ?? 50);
      const threads = rowsFrom(start, limit, inbox);
      await route.fulfill({ json: { threads, next_cursor: start + threads.length < ROWS ? String(start + threads.length) : null } });
    });
  }
  await page.goto(base);
  await page.fill("input[type=email]", address);
  await page.fill("input[autocomplete=current-password]", password);
  await page.click("button[type=submit]");
  await page.locator(".row").first().waitFor();
  return { page, context, devtools };
}

async function heap(devtools) {
  await devtools.send("HeapProfiler.collectGarbage");
  const { metrics } = await devtools.send("Performance.getMetrics");
  const value = (name) => metrics.find((metric) => metric.name === name).value;
  return { megabytes: Math.round(value("JSHeapUsedSize") / 1e5) / 10, nodes: value("Nodes") };
}

/** Scrolls on by `step` px in each frame; gives the times between frames, ms. */
function scrolled(page, { step, frames }) {
  return page.evaluate(
    ({ step, frames }) =>
      new Promise((resolve) => {
        const list = document.querySelector(".viewport");
        const times = [];
        let before = performance.now();
        const next = (now) => {
          times.push(now - before);
          before = now;
          list.scrollTop += step;
          if (times.length < frames) requestAnimationFrame(next);
          else resolve(times.slice(1));
        };
        requestAnimationFrame(next);
      }),
    { step, frames },
  );
}

// --- what is loaded at first ---
{
  const dist = join(import.meta.dirname, "../dist");
  const page = readFileSync(join(dist, "index.html"), "utf8");
  const first = readdirSync(join(dist, "assets")).filter((name) => page.includes(name));
  // Small files are sent as they are.
  const sizeOf = (path) => statSync(existsSync(`${path}.br`) ? `${path}.br` : path).size;
  const bytes = (ending) => first.filter((name) => name.endsWith(ending)).reduce((sum, name) => sum + sizeOf(join(dist, "assets", name)), 0);
  found["initial JavaScript, Brotli, bytes"] = bytes(".js");
  found["initial styles, Brotli, bytes"] = bytes(".css");
}

// --- the list ---
{
  const { page, context, devtools } = await open({ rows: true });
  await devtools.send("Performance.enable");
  found["heap with 50 rows"] = await heap(devtools);
  found["frames while one scrolls a row each, ms"] = quantiles(await scrolled(page, { step: 88, frames: 600 }));
  const began = Date.now();
  await page.evaluate(
    (rows) =>
      new Promise((resolve) => {
        const list = document.querySelector(".viewport");
        const times = (globalThis.frames_ = []);
        let before = performance.now();
        const next = (now) => {
          times.push(now - before);
          before = now;
          list.scrollTop = list.scrollHeight;
          const last = Number(document.querySelector(".row:last-of-type")?.getAttribute("aria-posinset") ?? 0);
          if (last >= rows) resolve(undefined);
          else requestAnimationFrame(next);
        };
        requestAnimationFrame(next);
      }),
    ROWS,
  );
  found[`until the end of ${ROWS} rows is reached, s`] = (Date.now() - began) / 1000;
  found["frames meanwhile, ms"] = quantiles(await page.evaluate(() => globalThis.frames_));
  found[`heap with ${ROWS} rows`] = await heap(devtools);
  found["rows that the page holds for them"] = await page.locator(".row").count();
  await page.evaluate(() => (document.querySelector(".viewport").scrollTop = 0));
  found["frames with all of them loaded, a row each, ms"] = quantiles(await scrolled(page, { step: 88, frames: 600 }));
  found["frames with all of them loaded, a screen each, ms"] = quantiles(await scrolled(page, { step: 700, frames: 600 }));
  found["keys j in that list until painted, ms"] = await keys(page, async () => {
    for (let count = 0; count < 60; count += 1) await page.keyboard.press("j");
  });
  await context.close();
}

/** From a key's arrival until what it changed is painted, as the browser says (Event Timing, in steps of 8 ms). */
async function keys(page, press) {
  await page.evaluate(() => {
    globalThis.pressed = [];
    globalThis.watch = new PerformanceObserver((list) => globalThis.pressed.push(...list.getEntries().filter((entry) => entry.name === "keydown").map((entry) => entry.duration)));
    globalThis.watch.observe({ type: "event", durationThreshold: 16, buffered: false });
    globalThis.downs = 0;
    addEventListener("keydown", () => (globalThis.downs += 1), true);
  });
  await press();
  await page.waitForTimeout(500);
  const { pressed, downs } = await page.evaluate(() => ({ pressed: globalThis.pressed, downs: globalThis.downs }));
  // What is quicker than 16 ms is not told of.
  return quantiles([...pressed, ...Array.from({ length: Math.max(0, downs - pressed.length) }, () => 15)]);
}

// --- typing, and a phone ---
{
  const { page, context } = await open();
  await page.keyboard.press("c");
  await page.locator(".ProseMirror").click();
  found["keys while writing until painted, ms"] = await keys(page, () => page.keyboard.type("The quick brown fox jumps over the lazy dog, and writes of it at length. ".repeat(2)));
  await page.getByRole("button", { name: "Discard draft" }).click();
  await context.close();
}
{
  const { page, context, devtools } = await open({ throttle: THROTTLE, viewport: { width: 390, height: 844 }, phone: true });
  const times = [];
  for (let count = 0; count < 7; count += 1) {
    await page.goto(`${base}/mail/inbox`);
    times.push(await page.evaluate(() => new Promise((resolve) => {
      const look = () => (document.querySelector(".row") ? requestAnimationFrame(() => resolve(performance.now())) : requestAnimationFrame(look));
      look();
    })));
  }
  found[`first list on a phone ${THROTTLE} times slower, warm cache, ms`] = quantiles(times.slice(1));
  await devtools.send("Emulation.setCPUThrottlingRate", { rate: 1 });
  await context.close();
}
{
  const { page, context, devtools } = await open();
  await devtools.send("Performance.enable");
  const count = Math.min(12, await page.locator(".row").count());
  const opened = [];
  const visit = async (measured) => {
    for (let at = 0; at < count; at += 1) {
      await page.locator(".row").nth(at).hover();
      await page.waitForTimeout(measured ? 400 : 60);
      opened.push(await page.evaluate((at) => new Promise((resolve) => {
        const row = document.querySelectorAll(".row")[at];
        const id = row.querySelector("a").getAttribute("href");
        const began = performance.now();
        row.querySelector("a").click();
        const look = () => (location.pathname === new URL(id, location.href).pathname && document.querySelector("article .body > :not(.loading)") ? requestAnimationFrame(() => resolve(performance.now() - began)) : requestAnimationFrame(look));
        look();
      }), at));
    }
  };
  await visit(true);
  found["opening what was fetched ahead until painted, ms"] = quantiles(opened);
  const cycles = Number(process.env.CYCLES ?? 20);
  const memory = [];
  for (let cycle = 0; cycle < cycles; cycle += 1) {
    await visit(false);
    for (const place of ["sent", "drafts", "archive", "starred", "inbox"]) {
      await page.evaluate((place) => document.querySelector(`nav a[href="/mail/${place}"]`).click(), place);
      await page.waitForLoadState("networkidle");
    }
    if (cycle % Math.max(1, Math.floor(cycles / 5)) === 0 || cycle === cycles - 1) memory.push(await heap(devtools));
  }
  found[`heap over ${cycles} rounds of ${count} conversations and 5 lists`] = memory;
  await context.close();
}
await browser.close();
console.log(JSON.stringify(found, null, 2));
