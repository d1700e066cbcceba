// What people do with the webmail, done in Chromium against a real cluster. tests/webmail.rs starts it with the places and people that it names in
// the environment; it prints what became of each journey, and fails if one went wrong.
//
// Invariant: in all of it nothing is asked of another origin, no policy is violated, and nothing is written to the console as an error.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { chromium } from "playwright-core";

const { WEBMAIL_BASE: base, WEBMAIL_OTHER_BASE: otherBase, WEBMAIL_ADDRESS: address, WEBMAIL_OTHER_ADDRESS: otherAddress, WEBMAIL_PASSWORD: password, WEBMAIL_OTHER_PASSWORD: otherPassword } = process.env;
assert.ok(base && otherBase && address && otherAddress && password && otherPassword, "where and who is said in the environment: see tests/webmail.rs");
const only = process.env.WEBMAIL_ONLY;

/** How long something may take that will certainly happen, ms: the machine is slow at times. */
const DEADLINE_MS = Number(process.env.WEBMAIL_DEADLINE_MS ?? 60_000);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const DESKTOP = { viewport: { width: 1280, height: 800 }, locale: "en-GB" };
const PHONE = { viewport: { width: 390, height: 844 }, locale: "en-GB", isMobile: true, hasTouch: true };

/** What must not happen on any page, with the page's own words. */
const wrong = [];

async function open(options = DESKTOP, path = "/", at = base) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(DEADLINE_MS);
  await context.addInitScript(() => {
    globalThis.violated = [];
    addEventListener("securitypolicyviolation", (event) => globalThis.violated.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
  });
  const page = await context.newPage();
  page.expected = [];
  page.on("pageerror", (error) => wrong.push(`thrown: ${error.stack}`));
  page.on("dialog", (dialog) => wrong.push(`a dialog was opened: ${dialog.message()}`));
  page.on("request", (request) => {
    if (!/^(?:blob:|data:)/.test(request.url()) && new URL(request.url()).origin !== new URL(at).origin) wrong.push(`asked of another origin: ${request.url()}`);
  });
  page.on("console", (message) => {
    if (message.type() === "error" && !page.expected.some((pattern) => pattern.test(message.text()))) wrong.push(`console: ${message.text()}`);
  });
  await page.goto(at + path);
  return page;
}

async function close(page) {
  wrong.push(...(await page.evaluate(() => globalThis.violated)).filter((text) => !page.expected.some((pattern) => pattern.test(text))).map((text) => `policy: ${text}`));
  await page.context().close();
}

async function logIn(page, who = address) {
  await page.fill("input[type=email]", who);
  await page.fill("input[autocomplete=current-password]", password);
  await page.click("button[type=submit]");
  await page.waitForSelector(".row");
}

/** The interface itself, for what the page is held against. */
async function api(at, who) {
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
    send: (subject, to, body = "Hello.") => ask("POST", "/v1/messages", { to: [to], subject, body }, token),
    folder: (role) => folders.find((folder) => folder.role === role).id,
    async in(role) {
      return (await ask("GET", `/v1/folders/${this.folder(role)}/messages?limit=200`, null, token)).messages;
    },
    async until(role, subject) {
      return eventually(`${subject} is in ${role}`, async () => (await this.in(role)).find((message) => message.subject === subject));
    },
  };
}

async function eventually(what, ask) {
  const until = Date.now() + DEADLINE_MS;
  for (;;) {
    const found = await ask();
    if (found) return found;
    assert.ok(Date.now() < until, `in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function accessible(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], iframes: false }));
  const found = violations.filter((one) => one.impact === "serious" || one.impact === "critical");
  assert.deepEqual(found.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" | ")}`), [], where);
}

const row = (page, subject) => page.locator(".row", { hasText: subject });
const toast = (page, text) => page.locator(".toast", { hasText: text });

const journeys = {
  async "a wrong password is told, the right one opens the inbox"() {
    const page = await open();
    page.expected.push(/401/);
    await accessible(page, "log-in");
    await page.fill("input[type=email]", address);
    await page.fill("input[autocomplete=current-password]", "not this one");
    await page.click("button[type=submit]");
    await page.getByRole("alert").waitFor();
    await logIn(page);
    assert.match(page.url(), /\/mail\/inbox$/);
    await page.waitForFunction(() => /^\(\d+\) /.test(document.title));
    await accessible(page, "inbox");
    await close(page);
  },

  async "a message is opened, counts as read, has an address, and back leads to the list"() {
    const page = await open(DESKTOP, "/mail/inbox");
    await logIn(page);
    await row(page, "Plain words").locator("a").click();
    await page.getByRole("heading", { name: "Plain words" }).waitFor();
    await page.locator("article").getByText("First line of plain words").waitFor();
    const mine = await api(base, address);
    await eventually("it was read", async () => (await mine.in("inbox")).find((one) => one.subject === "Plain words").is_read);
    // Quoted text is folded until it is asked for.
    const article = page.locator("article");
    assert.equal(await article.getByText("what was said before").count(), 0);
    await page.getByRole("button", { name: "Show quoted text" }).click();
    await article.getByText("what was said before").waitFor();
    await accessible(page, "reader");
    await page.reload();
    await page.locator("article").getByText("First line of plain words").waitFor();
    await page.goBack();
    await page.getByText("No conversation is open").waitFor();
    await close(page);
  },

  async "HTML that attacks does nothing"() {
    const page = await open();
    // What the browser says when it refuses to run something.
    page.expected.push(/script-src-attr|Blocked script execution|Content Security Policy/);
    await logIn(page);
    await row(page, "An attack").locator("a").click();
    const frame = page.frameLocator("iframe");
    await frame.getByText("harmless words").waitFor();
    assert.equal(await frame.locator("script, form, input, svg, iframe, object, embed, link, base").count(), 0);
    assert.equal(await frame.locator("a[href^='javascript']").count(), 0);
    await page.getByText("A tracker of tracker.evil.example was removed").waitFor();
    await page.getByText("1 image is not shown").waitFor();
    assert.equal(await page.evaluate(() => globalThis.hit), undefined);
    await close(page);
  },

  async "mail that arrives is there without asking, at every region"() {
    const page = await open();
    await logIn(page);
    const theirs = await api(otherBase, otherAddress);
    await theirs.send("Pushed to the page", address);
    await row(page, "Pushed to the page").waitFor();
    await close(page);
  },

  async "an answer is written, called back, sent, and arrives at the other region"() {
    const page = await open();
    await logIn(page);
    await row(page, "Question to answer").locator("a").click();
    await page.locator("article").getByText("Is it true?").first().waitFor();
    await page.keyboard.press("r");
    await page.locator(".ProseMirror").waitFor();
    await page.keyboard.type("It is true.");
    await page.keyboard.press("Control+Enter");
    await toast(page, "Sending in a moment").getByRole("button", { name: "Undo" }).click();
    await page.locator(".ProseMirror", { hasText: "It is true." }).waitFor();
    await accessible(page, "answer");
    await page.locator(".ProseMirror").click();
    await page.keyboard.press("Control+Enter");
    const theirs = await api(otherBase, otherAddress);
    const got = await theirs.until("inbox", "Re: Question to answer");
    const message = await theirs.get(`/v1/messages/${got.id}`);
    assert.match(message.body, /^It is true\.\r?\n\r?\nOn .* wrote:\r?\n> Is it true\?/);
    const mine = await api(base, address);
    assert.ok((await mine.until("inbox", "Question to answer")).keywords.includes("$answered"));
    await close(page);
  },

  async "a message is written with a file and bold words"() {
    const page = await open();
    await logIn(page);
    await page.keyboard.press("c");
    await page.getByRole("combobox", { name: "To" }).fill(`${otherAddress},`);
    await page.getByRole("textbox", { name: "Subject" }).fill("With a file");
    await page.locator(".ProseMirror").click();
    await page.keyboard.press("Control+b");
    await page.keyboard.type("Bold");
    await page.keyboard.press("Control+b");
    await page.keyboard.type(" words");
    await page.locator("input[type=file]").setInputFiles({ name: "보고서.txt", mimeType: "text/plain", buffer: Buffer.from("a file") });
    await page.getByText("보고서.txt").waitFor();
    await accessible(page, "composer");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    const theirs = await api(otherBase, otherAddress);
    const got = await theirs.until("inbox", "With a file");
    const message = await theirs.get(`/v1/messages/${got.id}`);
    assert.match(message.body_html, /<strong>Bold<\/strong> words/);
    assert.equal(message.attachments[0].filename, "보고서.txt");
    await close(page);
  },

  async "a draft outlives the page"() {
    const page = await open();
    await logIn(page);
    await page.keyboard.press("c");
    await page.getByRole("textbox", { name: "Subject" }).fill("Half a thought");
    await page.getByText("Draft kept on this device").waitFor();
    await page.reload();
    await page.waitForSelector(".row");
    await page.keyboard.press("g");
    await page.keyboard.press("d");
    await page.getByText("Half a thought").click();
    await page.getByRole("textbox", { name: "Subject" }).waitFor();
    await page.getByRole("button", { name: "Discard draft" }).click();
    await toast(page, "Draft discarded").waitFor();
    await close(page);
  },

  async "by keyboard alone: down, open, archive, undo, help"() {
    const page = await open();
    await logIn(page);
    const mine = await api(base, address);
    await page.keyboard.press("j");
    const subject = await page.locator(".row.active .subject").innerText();
    await page.keyboard.press("Enter");
    await page.locator("article h2").waitFor();
    await page.keyboard.press("u");
    await page.keyboard.press("x");
    await page.keyboard.press("e");
    await toast(page, "Archived").waitFor();
    const bare = subject.replace(/^Unread:\s*/, "").trim();
    await mine.until("archive", bare);
    await page.keyboard.press("z");
    await mine.until("inbox", bare);
    await row(page, bare).first().waitFor();
    await page.keyboard.press("?");
    await page.getByRole("dialog").getByText("Next conversation").waitFor();
    await accessible(page, "keys");
    await page.keyboard.press("Escape");
    await close(page);
  },

  async "several are chosen with shift, thrown away, and brought back"() {
    const page = await open();
    await logIn(page);
    const mine = await api(base, address);
    const before = (await mine.in("inbox")).length;
    const boxes = page.locator(".row .pick");
    await boxes.nth(1).click();
    await boxes.nth(3).click({ modifiers: ["Shift"] });
    await page.getByText("3 selected").waitFor();
    await page.keyboard.press("#");
    await toast(page, "3 moved to Trash").waitFor();
    await eventually("three are gone", async () => (await mine.in("inbox")).length <= before - 3);
    await toast(page, "3 moved to Trash").getByRole("button", { name: "Undo" }).click();
    await eventually("three are back", async () => (await mine.in("inbox")).length === before);
    await close(page);
  },

  async "a label is made while it is given, and has a list"() {
    const page = await open();
    await logIn(page);
    await row(page, "Plain words").locator("a").click();
    await page.locator("article").getByText("First line of plain words").waitFor();
    await page.keyboard.press("l");
    await page.getByRole("combobox", { name: "Find or create" }).fill("Canal");
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Create", exact: true }).click();
    await page.getByRole("button", { name: "Apply" }).click();
    await toast(page, "Labels changed").waitFor();
    await page.getByRole("link", { name: "Canal", exact: true }).click();
    await row(page, "Plain words").waitFor();
    await accessible(page, "label");
    await close(page);
  },

  async "a search marks what it found, and a person is suggested"() {
    const page = await open();
    await logIn(page);
    await page.keyboard.press("/");
    await page.keyboard.type("subject:plain");
    await page.keyboard.press("Enter");
    await row(page, "Plain words").locator("mark", { hasText: /plain/i }).first().waitFor();
    assert.match(page.url(), /\/mail\/search\?q=subject%3Aplain$/);
    await accessible(page, "search");
    await page.goBack();
    await row(page, "An attack").waitFor();
    await close(page);
  },

  async "settings: Korean, dark, and where one is logged in"() {
    const page = await open(DESKTOP, "/settings/appearance");
    await page.fill("input[type=email]", address);
    await page.fill("input[autocomplete=current-password]", password);
    await page.click("button[type=submit]");
    await page.getByRole("radio", { name: "Dark" }).click();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
    await accessible(page, "settings, dark");
    await page.getByRole("radio", { name: "한국어" }).click();
    await page.getByRole("link", { name: "받은편지함" }).waitFor();
    await page.getByRole("link", { name: "계정과 보안" }).click();
    await page.getByText("지금 이 세션").waitFor();
    await accessible(page, "account, Korean, dark");
    await page.getByRole("link", { name: /받은편지함/ }).click();
    await page.waitForSelector(".row");
    await accessible(page, "inbox, Korean, dark");
    await close(page);
  },

  async "without a network one goes on reading, and what was done is done when it is back"() {
    const page = await open();
    page.expected.push(/ERR_INTERNET_DISCONNECTED|WebSocket/);
    await logIn(page);
    const mine = await api(base, address);
    await row(page, "Question to answer").first().locator("a").click();
    await page.locator("article").getByText("Is it true?").first().waitFor();
    await page.context().setOffline(true);
    await page.getByText("You can go on reading what is here").waitFor();
    await page.locator("article").getByText("Is it true?").first().waitFor();
    await row(page, "Done without a network").locator(".star").click();
    await page.context().setOffline(false);
    await eventually("the star has arrived", async () => (await mine.in("inbox")).find((one) => one.subject === "Done without a network").is_flagged);
    await page.getByText("You can go on reading what is here").waitFor({ state: "detached" });
    await close(page);
  },

  async "on a phone: list, message, back, menu"() {
    const page = await open(PHONE);
    await logIn(page);
    await accessible(page, "list on a phone");
    await row(page, "Plain words").locator("a").tap();
    await page.locator("article").getByText("First line of plain words").waitFor();
    assert.equal(await page.locator(".list-pane").count(), 0);
    await accessible(page, "message on a phone");
    await page.getByRole("button", { name: "Back" }).tap();
    await page.waitForSelector(".row");
    await page.getByRole("button", { name: "Menu", exact: true }).tap();
    await page.getByRole("link", { name: "Sent" }).tap();
    await page.waitForURL(/\/mail\/sent$/);
    await close(page);
  },

  async "who logs out is out, in every tab, and the token opens nothing"() {
    const page = await open();
    page.expected.push(/401/);
    await logIn(page);
    const token = await page.evaluate(() => sessionStorage.getItem("postrider.token"));
    const second = await page.context().newPage();
    await second.goto(`${base}/mail/inbox`);
    await second.waitForSelector(".row");
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByRole("menuitem", { name: "Log out" }).click();
    await page.waitForURL(/\/login$/);
    await second.waitForURL(/\/login$/);
    const refused = await fetch(`${base}/v1/folders`, { headers: { authorization: `Bearer ${token}` } });
    assert.equal(refused.status, 401);
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await close(page);
  },
};

const failed = [];
let done = 0;
for (const [name, journey] of Object.entries(journeys)) {
  if (only && !name.includes(only)) continue;
  const began = Date.now();
  wrong.length = 0;
  try {
    await journey();
    assert.deepEqual(wrong, [], name);
    done += 1;
    console.log(`ok      ${name} (${Date.now() - began} ms)`);
  } catch (error) {
    failed.push(name);
    console.log(`NOT OK  ${name}\n${error.stack}\n${wrong.join("\n")}`);
    for (const context of browser.contexts()) await context.close();
  }
}
await browser.close();
console.log(`${done} journeys went well, ${failed.length} did not`);
process.exitCode = failed.length === 0 ? 0 : 1;
