// What operators do at /admin.
import assert from "node:assert/strict";

import { DESKTOP, PHONE, accessible, address, api, base, close, eventually, open, otherAddress, password } from "../harness.mjs";

const { WEBMAIL_OPERATOR: operator, WEBMAIL_OPERATOR_PASSWORD: secret, WEBMAIL_ADMIN_TOKEN: token } = process.env;
assert.ok(operator && secret && token, "who operates is said in the environment: see tests/webmail.rs");

async function enter(options = DESKTOP, path = "/admin") {
  const page = await open(options, path);
  await page.fill("input[type=email]", operator);
  await page.fill("input[type=password]", secret);
  await page.click("button[type=submit]");
  await page.locator("main h1").waitFor();
  return page;
}

/** To another of the pages. */
async function to(page, name) {
  await page.getByRole("navigation").getByRole("link", { name }).click();
  await page.getByRole("heading", { level: 1, name }).waitFor();
}

const rowOf = (page, name) => page.getByRole("row", { name });

/** Says why, and does it. */
async function act(page, verb, why) {
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("textbox", { name: "Why" }).fill(why);
  await dialog.getByRole("button", { name: verb, exact: true }).click();
  await dialog.waitFor({ state: "detached" });
}

/** The interface as whoever holds the administrator's token sees it. */
async function log() {
  const response = await fetch(`${base}/v1/admin/audit?limit=200`, { headers: { authorization: `Bearer ${token}` } });
  assert.ok(response.ok);
  return (await response.json()).lines;
}

export const journeys = {
  async "an operator sees regions, nodes and shards"() {
    const page = await enter();
    await rowOf(page, /^seoul/).first().waitFor();
    const cluster = await (await fetch(`${base}/v1/admin/cluster`, { headers: { authorization: `Bearer ${token}` } })).json();
    assert.equal(await page.getByRole("table", { name: "Nodes" }).getByRole("row").count(), cluster.nodes.length + 1);
    await page.getByText(`All ${cluster.shards.count} shards are whole`).waitFor();
    await accessible(page, "regions and nodes");
    for (const [name, what] of [["Shards", "mailbox"], ["Moves", "What should move"], ["Queues", "Read again"], ["Search and blobs", "Blobs"], ["Domains", "postrider.example"], ["Accounts", "Address"], ["Audit log", "queue.why"]]) {
      await to(page, name);
      await page.locator("main").getByText(what).first().waitFor();
      await accessible(page, name);
    }
    await page.goBack();
    await page.getByRole("heading", { level: 1, name: "Accounts" }).waitFor();
    await page.reload();
    await page.getByRole("heading", { level: 1, name: "Accounts" }).waitFor();
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByRole("heading", { name: "Log in as an operator" }).waitFor();
    await close(page);
  },

  async "an operator checks what the world sees of a domain"() {
    const page = await enter(DESKTOP, "/admin/domains");
    await page.getByRole("button", { name: "Check DNS: postrider.example" }).click();
    await page.getByRole("table", { name: "What the world sees of postrider.example" }).getByText("as it should be").first().waitFor();
    await close(page);
  },

  async "an operator is asked before anything is done, and nothing is done on second thoughts"() {
    const before = (await log()).filter((line) => line.action === "node.drain").length;
    const page = await enter();
    await page.getByRole("button", { name: /^Drain: / }).first().click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText("moves the leads").waitFor();
    assert.ok(await dialog.getByRole("button", { name: "Drain", exact: true }).isDisabled(), "without a reason nothing is done");
    await accessible(page, "a question");
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
    assert.equal((await log()).filter((line) => line.action === "node.drain").length, before);
    await close(page);
  },

  async "an operator holds what waits for a destination, and releases it"() {
    const writer = await api(base, otherAddress);
    await writer.send("It waits", "x@held.example");
    const page = await enter(DESKTOP, "/admin/queues");
    await eventually("it waits in the list", async () => {
      await page.getByRole("button", { name: "Read again" }).click();
      return rowOf(page, /^held\.example/).isVisible();
    });
    await page.getByRole("button", { name: "Hold: held.example" }).click();
    await act(page, "Hold", "the other side is being moved");
    await page.getByRole("status").getByText("1 message is held.").waitFor();
    await rowOf(page, /^held\.example/).getByText("held", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Release: held.example" }).click();
    await act(page, "Release", "it has been moved");
    await page.getByRole("status").getByText("1 message is tried again.").waitFor();
    await to(page, "Audit log");
    await rowOf(page, /queue\.release/).first().getByText("it has been moved").waitFor();
    const [released, held] = (await log()).filter((line) => /^queue\.(?:hold|release)$/.test(line.action));
    for (const line of [held, released]) assert.deepEqual([line.operator, line.outcome, line.targets], [operator, "done", ["destination held.example"]]);
    assert.match(held.certificate, /^ctl operators-/);
    await close(page);
  },

  async "an operator suspends an account and resumes it, and sees nothing of its mail"() {
    const writer = await api(base, otherAddress);
    const who = "to-be-suspended@postrider.example";
    await writer.signUp(who);
    const opened = await (await fetch(`${base}/v1/sessions`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ address: who, password }) })).json();
    const profile = () => fetch(`${base}/v1/profile`, { headers: { authorization: `Bearer ${opened.token}` } });
    const page = await enter(DESKTOP, "/admin/accounts");
    await page.getByRole("textbox", { name: "Address" }).fill(who);
    await page.keyboard.press("Enter");
    await page.getByText("active", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Suspend" }).click();
    await act(page, "Suspend", "a stolen password");
    await page.getByText("suspended", { exact: true }).waitFor();
    assert.equal((await profile()).status, 403);
    await page.getByRole("button", { name: "Resume" }).click();
    await act(page, "Resume", "it has another one");
    await page.getByText("active", { exact: true }).waitFor();
    assert.equal((await profile()).status, 200);
    assert.ok((await log()).every((line) => !line.targets.join().includes("@")), "the log names nobody");
    await close(page);
  },

  async "an operator's page opens for nobody else"() {
    const page = await open(DESKTOP, "/admin");
    page.expected.push(/status of 40[13]/);
    await page.fill("input[type=email]", address);
    await page.fill("input[type=password]", password);
    await page.click("button[type=submit]");
    await page.getByRole("alert").getByText("operators of the cluster").waitFor();
    await accessible(page, "the operator's log-in");
    assert.equal(await page.evaluate(() => sessionStorage.getItem("postrider.operator")), null, "no session is kept");
    await page.getByLabel("The administrator's token").check();
    await page.fill("input[type=password]", "another token");
    await page.click("button[type=submit]");
    await page.getByRole("alert").getByText("opens nothing").waitFor();
    await page.fill("input[type=password]", token);
    await page.click("button[type=submit]");
    await page.getByText("administrator", { exact: true }).waitFor();
    await close(page);
  },

  async "an operator's page by keyboard alone: to the queues, and a balance"() {
    const page = await open(DESKTOP, "/admin");
    const press = async (...keys) => {
      for (const key of keys) await page.keyboard.press(key);
    };
    await page.getByRole("radio").first().focus();
    await press("Tab");
    await page.keyboard.type(operator);
    await press("Tab");
    await page.keyboard.type(secret);
    await press("Enter");
    await page.getByRole("heading", { level: 1, name: "Regions and nodes" }).waitFor();
    const focused = () => page.evaluate(() => document.activeElement?.textContent?.trim() ?? "");
    const tabTo = async (name) => {
      for (let tries = 0; (await focused()) !== name; tries += 1) {
        assert.ok(tries < 60, `${name} is reached by Tab`);
        await press("Tab");
      }
    };
    await tabTo("Moves");
    await press("Enter");
    await page.getByRole("heading", { level: 1, name: "Moves" }).waitFor();
    assert.equal(await focused(), "Moves", "the focus is at the page's heading");
    await page.getByRole("button", { name: "Balance" }).waitFor();
    await tabTo("Balance");
    await press("Enter");
    await page.getByRole("dialog").getByRole("textbox").waitFor();
    await page.keyboard.type("after the test");
    await press("Enter");
    await page.getByRole("status").getByText("being balanced").waitFor();
    assert.equal(await focused(), "Balance", "the focus is where it was");
    await page.getByRole("table", { name: "Operations" }).getByText("balance: the cluster").first().waitFor();
    await close(page);
  },

  async "an operator's page on a phone in Korean"() {
    const page = await open({ ...PHONE, locale: "ko-KR" }, "/admin");
    await page.fill("input[type=email]", operator);
    await page.fill("input[type=password]", secret);
    await page.getByRole("button", { name: "로그인" }).tap();
    await page.getByRole("heading", { level: 1, name: "지역과 노드" }).waitFor();
    await page.getByRole("table", { name: "노드" }).waitFor();
    for (const name of ["샤드", "이동", "대기열", "검색과 블롭", "도메인", "계정", "감사 기록"]) {
      await page.getByRole("navigation").getByRole("link", { name, exact: true }).tap();
      await page.getByRole("heading", { level: 1, name }).waitFor();
      await accessible(page, `${name} on a phone`);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name} is not wider than the phone`);
    }
    await close(page);
  },
};
