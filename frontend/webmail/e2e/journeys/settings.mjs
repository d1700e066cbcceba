// Accounts and settings.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";

import { accessible, address, api, base, close, DESKTOP, eventually, logIn, open, otherAddress, otherBase, password, toast } from "../harness.mjs";

/** What an authenticator shows (RFC 6238); `after` is the last step whose code was used. */
function authenticator(secret) {
  const bits = [...secret.replace(/\s/g, "")].map((letter) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(letter).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => Number.parseInt(byte, 2)));
  return (after = 0) => {
    const step = Math.max(Math.floor(Date.now() / 30_000), after + 1);
    const counter = Buffer.alloc(8);
    counter.writeBigUInt64BE(BigInt(step));
    const tag = createHmac("sha1", key).update(counter).digest();
    const word = tag.readUInt32BE(tag.at(-1) & 15) & 0x7fffffff;
    return { step, code: String(word % 1_000_000).padStart(6, "0") };
  };
}

/** The cookie's name. */
const SESSION = "__Host-postrider";
const sessionOf = async (page) => (await page.context().cookies()).find((one) => one.name === SESSION)?.value;
/** What somebody reads who has a cookie and no page. */
const withCookie = (cookie) => fetch(`${base}/v1/folders`, { headers: { cookie: `${SESSION}=${cookie}` } });

export const journeys = {
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

  async "what is chosen outlives the page"() {
    const page = await open();
    await logIn(page);
    await page.goto(`${base}/settings/appearance`);
    await page.getByRole("radio", { name: "Compact" }).click();
    await page.getByRole("radio", { name: "In place of the list" }).click();
    await page.goto(`${base}/mail/inbox`);
    await page.waitForSelector(".row.compact.line");
    assert.equal(await page.locator(".reader-pane").count(), 0);
    await close(page);
  },

  async "a signature stands below what one writes"() {
    const page = await open(DESKTOP, "/login", otherBase);
    await logIn(page, otherAddress);
    await page.goto(`${otherBase}/settings/general`);
    await page.getByRole("textbox", { name: "Signature" }).fill("Bora\nHarbour office");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Saved", { exact: true }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Compose" }).click();
    await page.locator(".ProseMirror", { hasText: "Harbour office" }).waitFor();
    await page.goto(`${otherBase}/settings/general`);
    await page.getByRole("textbox", { name: "Signature" }).fill("");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Saved", { exact: true }).waitFor();
    await close(page);
  },

  async "a password for a program is shown once, listed, and revoked"() {
    const mine = await api(base, address);
    const page = await open();
    await logIn(page);
    await page.goto(`${base}/settings/account`);
    await page.getByRole("button", { name: "New app password" }).click();
    await page.getByRole("textbox", { name: "Which program is it for?" }).fill("Thunderbird");
    await page.getByRole("button", { name: "Create", exact: true }).click();
    const shown = page.locator("dialog output");
    assert.match(await shown.innerText(), /^[a-z2-7]{5,6}(?:-[a-z2-7]{4,6})+$/);
    await accessible(page, "an app password");
    await page.getByRole("button", { name: "Done" }).click();
    await eventually("it is listed", async () => (await mine.get("/v1/app-passwords")).some((one) => one.name === "Thunderbird"));
    await page.getByRole("button", { name: "Revoke: Thunderbird" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
    await eventually("it is revoked", async () => (await mine.get("/v1/app-passwords")).length === 0);
    await accessible(page, "account");
    await close(page);
  },

  async "a session is ended from another one"() {
    const elsewhere = await open();
    elsewhere.expected.push(/401/, /WebSocket/);
    await logIn(elsewhere);
    const page = await open();
    await logIn(page);
    await page.goto(`${base}/settings/account`);
    await page.getByRole("button", { name: /^Log out everywhere else/ }).click();
    await toast(page, /have ended|has ended/).waitFor();
    await elsewhere.waitForURL(/\/login$/);
    await elsewhere.getByText("Your session has ended").waitFor();
    await close(elsewhere);
    await close(page);
  },

  async "an account is made, gets another password, and is deleted"() {
    const who = `newcomer-${Date.now()}@postrider.example`;
    const page = await open(DESKTOP, "/sign-up");
    page.expected.push(/401|403/);
    await accessible(page, "sign-up");
    await page.getByRole("textbox", { name: "Your name" }).fill("New Comer");
    await page.fill("input[type=email]", who);
    await page.fill("input[autocomplete=new-password]", "a first password");
    await page.click("button[type=submit]");
    await page.getByText("Your inbox is empty").waitFor();
    const elsewhere = await open();
    elsewhere.expected.push(/401|WebSocket/);
    await elsewhere.fill("input[type=email]", who);
    await elsewhere.fill("input[autocomplete=current-password]", "a first password");
    await elsewhere.click("button[type=submit]");
    await elsewhere.getByText("Your inbox is empty").waitFor();
    const stolen = await sessionOf(elsewhere);
    await close(elsewhere);
    await page.goto(`${base}/settings/account`);
    await page.fill("input[autocomplete=current-password]", "not this one");
    await page.fill("input[autocomplete=new-password]", "a second password");
    await page.getByRole("button", { name: "Change password" }).click();
    await page.getByText("The current password is another one.").waitFor();
    await page.fill("input[autocomplete=current-password]", "a first password");
    await page.getByRole("button", { name: "Change password" }).click();
    await toast(page, "Your password is changed").waitFor();
    assert.equal((await withCookie(stolen)).status, 401);
    assert.equal((await withCookie(await sessionOf(page))).status, 200);
    await page.getByRole("button", { name: "Delete account" }).click();
    const go = page.getByRole("button", { name: "Delete for good" });
    assert.ok(await go.isDisabled());
    await page.getByRole("textbox", { name: /^Type .* to confirm/ }).fill(who);
    await page.locator("dialog input[type=password]").fill("a second password");
    await accessible(page, "deleting an account");
    await go.click();
    await page.waitForURL(/\/login$/);
    const refused = await fetch(`${base}/v1/sessions`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ address: who, password: "a second password" }) });
    assert.equal(refused.status, 401);
    await close(page);
  },

  async "a second factor is turned on, asked for, helped out of by a recovery code, and turned off"() {
    const who = `careful-${Date.now()}@postrider.example`;
    const secretly = "a long password";
    const mine = await api(base, address);
    await mine.signUp(who, secretly);
    const page = await open();
    page.expected.push(/401|403/);
    const enter = async () => {
      await page.fill("input[type=email]", who);
      await page.fill("input[autocomplete=current-password]", secretly);
      await page.click("button[type=submit]");
    };
    const leave = async () => {
      await page.getByRole("button", { name: /^Account/ }).click();
      await page.getByRole("menuitem", { name: "Log out" }).click();
      await page.waitForURL(/\/login$/);
    };
    await enter();
    await page.getByText("Your inbox is empty").waitFor();
    await page.goto(`${base}/settings/account`);
    const dialog = page.getByRole("dialog");
    await page.getByRole("button", { name: "Turn on" }).click();
    await dialog.locator("input[type=password]").fill(secretly);
    await dialog.getByRole("button", { name: "Continue" }).click();
    await dialog.getByRole("img", { name: "QR code of the secret" }).waitFor();
    await accessible(page, "a second factor's secret");
    const shows = authenticator(await dialog.locator("output").innerText());
    await dialog.getByRole("textbox", { name: "Six digits" }).fill("000000");
    await dialog.getByRole("button", { name: "Turn on" }).click();
    await dialog.getByText("The code is wrong").waitFor();
    const first = shows();
    await dialog.getByRole("textbox", { name: "Six digits" }).fill(first.code);
    await dialog.getByRole("button", { name: "Turn on" }).click();
    await dialog.locator("ol li").first().waitFor();
    const codes = await dialog.locator("ol li").allInnerTexts();
    assert.equal(codes.length, 10);
    await accessible(page, "recovery codes");
    await dialog.getByRole("button", { name: "Done" }).click();
    await page.getByText("10 are left").waitFor();
    await leave();
    await enter();
    await page.getByRole("textbox", { name: "Code" }).fill(first.code);
    await accessible(page, "the code of a log-in");
    await page.click("button[type=submit]");
    await page.getByText("The code is wrong").waitFor();
    await page.getByRole("textbox", { name: "Code" }).fill(shows(first.step).code);
    await page.click("button[type=submit]");
    await page.getByText("Your inbox is empty").waitFor();
    await leave();
    await enter();
    await page.getByRole("button", { name: "Use a recovery code" }).click();
    await page.getByRole("textbox", { name: "Recovery code" }).fill(codes[0].toLowerCase());
    await page.click("button[type=submit]");
    await page.getByText("Your inbox is empty").waitFor();
    await page.goto(`${base}/settings/account`);
    await page.getByText("9 are left").waitFor();
    await page.getByRole("button", { name: "Turn off" }).click();
    await dialog.locator("input[type=password]").fill(secretly);
    await dialog.getByRole("textbox", { name: /Code of the app/ }).fill(codes[1]);
    await dialog.getByRole("button", { name: "Turn off" }).click();
    await toast(page, "Your password alone opens your mail again").waitFor();
    await leave();
    await enter();
    await page.getByText("Your inbox is empty").waitFor();
    await close(page);
  },

  async "who logs out is out, in every tab, and a stolen cookie opens nothing"() {
    const page = await open();
    page.expected.push(/401/);
    await logIn(page);
    const cookie = await sessionOf(page);
    assert.equal((await withCookie(cookie)).status, 200);
    const second = await page.context().newPage();
    await second.goto(`${base}/mail/inbox`);
    await second.waitForSelector(".row");
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByRole("menuitem", { name: "Log out" }).click();
    await page.waitForURL(/\/login$/);
    await second.waitForURL(/\/login$/);
    assert.equal((await withCookie(cookie)).status, 401);
    assert.equal(await sessionOf(page), undefined);
    await close(page);
  },

  async "a session outlives the page and its tab, and no script sees it"() {
    const page = await open();
    await logIn(page);
    const cookie = (await page.context().cookies()).find((one) => one.name === SESSION);
    assert.ok(cookie.httpOnly && cookie.secure && cookie.sameSite === "Strict" && cookie.expires > Date.now() / 1000 + 3600);
    const seen = await page.evaluate(() => JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }]));
    assert.ok(!seen.includes(cookie.value));
    const second = await page.context().newPage();
    await page.close();
    await second.goto(`${base}/mail/inbox`);
    await second.waitForSelector(".row");
    await second.context().close();
  },

  async "another page makes nothing of a session"() {
    const page = await open();
    await logIn(page);
    const cookie = await sessionOf(page);
    const asked = (fields, method = "POST") => fetch(`${base}/v1/folders`, { method, headers: { cookie: `${SESSION}=${cookie}`, "content-type": "application/json", "idempotency-key": `k${Date.now()}${method}`, ...fields }, body: method === "POST" ? JSON.stringify({ name: "Not made" }) : undefined });
    assert.equal((await asked({ "sec-fetch-site": "cross-site", origin: "https://evil.example" })).status, 403);
    assert.equal((await asked({ "sec-fetch-site": "same-site", origin: "https://evil.example" })).status, 403);
    assert.equal((await asked({ origin: "https://evil.example" })).status, 403);
    assert.equal((await asked({})).status, 403);
    assert.equal((await asked({ "sec-fetch-site": "cross-site" }, "GET")).status, 403);
    const mine = await api(base, address);
    assert.ok(!(await mine.get("/v1/folders")).some((folder) => folder.name === "Not made"));
    await close(page);
  },

  async "who logs out without a network is logged out when it is back"() {
    const page = await open();
    page.expected.push(/401|ERR_INTERNET_DISCONNECTED|WebSocket/);
    await logIn(page);
    const cookie = await sessionOf(page);
    await page.context().setOffline(true);
    await page.getByRole("button", { name: /^Account/ }).click();
    await page.getByRole("menuitem", { name: "Log out" }).click();
    await page.waitForURL(/\/login$/);
    assert.equal((await withCookie(cookie)).status, 200);
    await page.context().setOffline(false);
    await eventually("the session is over", async () => (await withCookie(cookie)).status === 401);
    await close(page);
  },
};
