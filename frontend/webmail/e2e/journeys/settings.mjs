// Accounts and settings.
import assert from "node:assert/strict";

import { accessible, address, api, base, close, DESKTOP, eventually, logIn, open, otherAddress, otherBase, password, toast } from "../harness.mjs";

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
    await page.goto(`${base}/settings/account`);
    await page.fill("input[autocomplete=current-password]", "not this one");
    await page.fill("input[autocomplete=new-password]", "a second password");
    await page.getByRole("button", { name: "Change password" }).click();
    await page.getByText("The current password is another one.").waitFor();
    await page.fill("input[autocomplete=current-password]", "a first password");
    await page.getByRole("button", { name: "Change password" }).click();
    await toast(page, "Your password is changed").waitFor();
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
