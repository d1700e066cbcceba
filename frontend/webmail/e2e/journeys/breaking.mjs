// When something breaks: the network, a socket, a region.
import assert from "node:assert/strict";

import { address, api, base, close, compose, eventually, logIn, open, otherAddress, otherBase, row } from "../harness.mjs";

export const journeys = {
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

  async "mail that came while there was no network is there when it is back"() {
    const theirs = await api(otherBase, otherAddress);
    const page = await open();
    page.expected.push(/ERR_INTERNET_DISCONNECTED|WebSocket/);
    await logIn(page);
    await page.context().setOffline(true);
    await page.getByText("You can go on reading what is here").waitFor();
    await theirs.send("Came in the dark", address);
    await page.context().setOffline(false);
    await row(page, "Came in the dark").waitFor();
    await close(page);
  },

  async "where no WebSocket passes, mail comes by long-poll"() {
    const theirs = await api(otherBase, otherAddress);
    const page = await open();
    page.expected.push(/WebSocket/);
    await page.routeWebSocket(/\/v1\/events/, (socket) => socket.close({ code: 1011 }));
    const polled = page.waitForRequest(/\/v1\/events\/poll/);
    await logIn(page);
    await polled;
    await theirs.send("Came by long-poll", address);
    await row(page, "Came by long-poll").waitFor();
    await close(page);
  },

  async "the page opens without a network, and says so"() {
    const page = await open();
    page.expected.push(/ERR_INTERNET_DISCONNECTED|WebSocket|Failed to fetch/);
    await logIn(page);
    await page.evaluate(() => navigator.serviceWorker.ready);
    // Its files are kept as they are asked for through the worker.
    await page.reload();
    await page.waitForSelector(".row");
    await page.context().setOffline(true);
    await page.reload();
    await page.getByText("No connection", { exact: false }).first().waitFor();
    await page.context().setOffline(false);
    await page.getByRole("button", { name: "Try again" }).click();
    await page.waitForSelector(".row");
    await close(page);
  },

  async "a copy that is old says how old it is, and changes are kept until they can be made"() {
    const page = await open();
    page.expected.push(/503/);
    await logIn(page);
    const mine = await api(base, address);
    // As the interface answers while the leader cannot be reached.
    await page.route("**/v1/folders", async (route) => {
      const answer = await route.fetch();
      await route.fulfill({ response: answer, headers: { ...answer.headers(), "postrider-stale-ms": "42000", warning: '110 - "stale"' } });
    });
    const refused = { status: 503, contentType: "application/problem+json", headers: { "retry-after": "1" }, body: JSON.stringify({ type: "urn:postrider:problem:no_quorum", title: "no quorum", status: 503 }) };
    await page.route("**/v1/messages/batch", (route) => route.fulfill(refused));
    await page.getByRole("button", { name: "Refresh" }).click();
    await page.getByText("at most 42 seconds old").waitFor();
    await row(page, "Plain words").locator(".star").click();
    await page.unroute("**/v1/folders");
    await page.unroute("**/v1/messages/batch");
    await eventually("the star has arrived", async () => (await mine.in("inbox")).find((one) => one.subject === "Plain words").is_flagged);
    await row(page, "Plain words").locator(".star").click();
    await eventually("it is taken back", async () => !(await mine.in("inbox")).find((one) => one.subject === "Plain words").is_flagged);
    await close(page);
  },

  async "when nothing answers, the other regions are offered, the nearest first, and none that does not answer"() {
    const page = await open();
    page.expected.push(/ERR_FAILED|WebSocket|ERR_CONNECTION/);
    page.elsewhere = /\/v1\/ping$/;
    const told = page.waitForResponse("**/v1/regions*");
    await logIn(page);
    const others = (await (await told).json()).regions.filter((region) => !region.here);
    assert.ok(others.length >= 2, "the cluster has three regions");
    const [near, gone] = [others.at(-1), others[0]];
    const origin = (region) => new URL(region.url).origin;
    // One region is gone as well; of the others all but one are far.
    for (const region of others) {
      await page.route(`${origin(region)}/v1/ping`, async (route) => {
        if (region === gone) return route.abort();
        if (region !== near) await new Promise((resolve) => setTimeout(resolve, 400));
        return route.continue();
      });
    }
    const here = (url) => url.origin === new URL(base).origin && url.pathname.startsWith("/v1/");
    await page.route(here, (route) => route.abort());
    await page.getByRole("button", { name: "Refresh" }).click();
    await page.getByRole("button", { name: "Refresh" }).click();
    const links = page.getByRole("status").getByRole("link");
    await links.first().waitFor();
    assert.equal(await links.first().getAttribute("href"), `${origin(near)}/mail/inbox`);
    assert.equal(await links.count(), others.length - 1);
    await page.unroute(here);
    await page.getByRole("button", { name: "Refresh" }).click();
    await links.first().waitFor({ state: "detached" });
    await close(page);
  },

  // The last of all: the region does not come back.
  async "a region dies while somebody writes: the draft is saved by the others, and sent"() {
    const pids = (process.env.WEBMAIL_KILL ?? "").split(",").filter(Boolean).map(Number);
    if (pids.length === 0) return "nobody said which processes a region is";
    const subject = `While it burned, ${Date.now()}`;
    const page = await open(undefined, "/login", otherBase);
    page.expected.push(/503|WebSocket/);
    await logIn(page);
    await compose(page, { to: otherAddress, subject, text: "Before." });
    await page.getByText("Draft saved").waitFor();
    for (const pid of pids) process.kill(pid, "SIGKILL");
    await page.locator(".ProseMirror").click();
    await page.keyboard.press("Control+End");
    await page.keyboard.type(" After.");
    const mine = await api(otherBase, address);
    await eventually("the others have the draft", async () => {
      const kept = (await mine.in("drafts")).find((one) => one.subject === subject);
      return kept && (await mine.text(kept.id)).includes("Before. After.");
    });
    await page.keyboard.press("Control+Enter");
    const theirs = await api(otherBase, otherAddress);
    await theirs.until("inbox", subject);
    assert.equal((await mine.in("drafts")).filter((one) => one.subject === subject).length, 0);
    await close(page);
  },
};
