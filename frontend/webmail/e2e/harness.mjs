// What journeys share: pages that are watched, the interface that they are held against, and waiting for what will certainly happen.
//
// Invariant: in all of it nothing is asked of another origin unless a journey says that it may be, no policy is violated, and nothing is written to the console as an error.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { chromium } from "playwright-core";

export const { WEBMAIL_BASE: base, WEBMAIL_OTHER_BASE: otherBase, WEBMAIL_ADDRESS: address, WEBMAIL_OTHER_ADDRESS: otherAddress, WEBMAIL_PASSWORD: password, WEBMAIL_OTHER_PASSWORD: otherPassword } = process.env;
assert.ok(base && otherBase && address && otherAddress && password && otherPassword, "where and who is said in the environment: see tests/webmail.rs");

/** How long something may take that will certainly happen, ms: the machine is slow at times. */
export const DEADLINE_MS = Number(process.env.WEBMAIL_DEADLINE_MS ?? 60_000);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
export const DESKTOP = { viewport: { width: 1280, height: 800 }, locale: "en-GB" };
export const PHONE = { viewport: { width: 390, height: 844 }, locale: "en-GB", isMobile: true, hasTouch: true };

/** What must not happen on any page, with the page's own words. */
export const wrong = [];

export async function open(options = DESKTOP, path = "/", at = base) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(DEADLINE_MS);
  await context.addInitScript(() => {
    globalThis.violated = [];
    // The shortest that one can choose.
    if (!localStorage.getItem("postrider.settings")) localStorage.setItem("postrider.settings", JSON.stringify({ undoSeconds: 5 }));
    addEventListener("securitypolicyviolation", (event) => globalThis.violated.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
  });
  const page = await context.newPage();
  page.expected = [];
  /** What may be asked of other origins. */
  page.elsewhere = null;
  page.on("pageerror", (error) => wrong.push(`thrown: ${error.stack}`));
  page.on("dialog", (dialog) => wrong.push(`a dialog was opened: ${dialog.message()}`));
  page.on("request", (request) => {
    if (/^(?:blob:|data:)/.test(request.url()) || page.elsewhere?.test(request.url())) return;
    if (new URL(request.url()).origin !== new URL(at).origin) wrong.push(`asked of another origin: ${request.url()}`);
  });
  page.on("console", (message) => {
    if (message.type() === "error" && !page.expected.some((pattern) => pattern.test(message.text()))) wrong.push(`console: ${message.text()}`);
  });
  await page.goto(at + path);
  return page;
}

export async function close(page) {
  wrong.push(...(await page.evaluate(() => globalThis.violated)).filter((text) => !page.expected.some((pattern) => pattern.test(text))).map((text) => `policy: ${text}`));
  await page.context().close();
}

export async function logIn(page, who = address) {
  await page.fill("input[type=email]", who);
  await page.fill("input[autocomplete=current-password]", who === address ? password : otherPassword);
  await page.click("button[type=submit]");
  await page.waitForSelector(".row");
}

/** The interface itself, for what the page is held against. */
export async function api(at, who) {
  const ask = async (method, path, body, token) => {
    const response = await fetch(at + path, {
      method,
      headers: { ...(body ? { "content-type": "application/json" } : {}), ...(token ? { authorization: `Bearer ${token}` } : {}) },
      body: body ? JSON.stringify(body) : undefined,
    });
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${await response.clone().text()}`);
    return response.status === 204 ? null : response.json();
  };
  const { token } = await ask("POST", "/v1/sessions", { address: who, password: who === address ? password : otherPassword });
  const folders = await ask("GET", "/v1/folders", null, token);
  return {
    token,
    get: (path) => ask("GET", path, null, token),
    signUp: (who, secret = password) => ask("POST", "/v1/accounts", { address: who, password: secret, name: "" }),
    delete: (path) => ask("DELETE", path, null, token),
    sendAll: (message) => ask("POST", "/v1/messages", message, token),
    send: (subject, to, body = "Hello.") => ask("POST", "/v1/messages", { to: [to], subject, body }, token),
    folder: (role) => folders.find((folder) => folder.role === role).id,
    /** The text of a message; none of one that another version has replaced meanwhile. */
    text: (id) => ask("GET", `/v1/messages/${id}`, null, token).then((message) => message.body, () => ""),
    async in(role) {
      return (await ask("GET", `/v1/folders/${this.folder(role)}/messages?limit=200`, null, token)).messages;
    },
    async until(role, subject) {
      return eventually(`${subject} is in ${role}`, async () => (await this.in(role)).find((message) => message.subject === subject));
    },
  };
}

export async function eventually(what, ask) {
  const until = Date.now() + DEADLINE_MS;
  for (;;) {
    const found = await ask();
    if (found) return found;
    assert.ok(Date.now() < until, `in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export async function accessible(page, where) {
  await page.evaluate(axe);
  // Half faded in, nothing has its colour yet.
  await page.evaluate(() => {
    const ending = document.getAnimations().filter((one) => one.effect?.getComputedTiming().endTime !== Infinity);
    return Promise.allSettled(ending.map((one) => one.finished)).then(() => {});
  });
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], iframes: false }));
  const found = violations.filter((one) => one.impact === "serious" || one.impact === "critical");
  assert.deepEqual(found.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" | ")}`), [], where);
}

/** Writes a message in a window of its own; it is not sent. */
export async function compose(page, { to = "", subject = "", text = "", isOpen = false }) {
  if (!isOpen) await page.keyboard.press("c");
  await page.locator(".ProseMirror").waitFor();
  if (to) await page.getByRole("combobox", { name: "To" }).fill(`${to},`);
  if (subject) await page.getByRole("textbox", { name: "Subject" }).fill(subject);
  await page.locator(".ProseMirror").click();
  await page.keyboard.type(text);
}

export const row = (page, subject) => page.locator(".row", { hasText: subject });
export const toast = (page, text) => page.locator(".toast", { hasText: text });

