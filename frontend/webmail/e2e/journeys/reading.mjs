// Reading.
import assert from "node:assert/strict";

import { accessible, address, api, base, close, DESKTOP, eventually, logIn, open, otherAddress, otherBase, row } from "../harness.mjs";

export const journeys = {
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
    page.expected.push(/script-src-attr|Blocked script execution|Content Security Policy|50[0-9]/);
    await logIn(page);
    await row(page, "An attack").locator("a").click();
    const frame = page.frameLocator("iframe");
    await frame.getByText("harmless words").waitFor();
    assert.equal(await frame.locator("script, form, input, svg, iframe, object, embed, link, base").count(), 0);
    assert.equal(await frame.locator("a[href^='javascript']").count(), 0);
    await page.getByText("A tracker of tracker.evil.example was removed").waitFor();
    await page.getByText("2 images are not shown").waitFor();
    assert.equal(await page.evaluate(() => globalThis.hit), undefined);
    // What is asked for is fetched by the service: see the harness, which watches every request.
    await page.getByRole("button", { name: "Show images" }).click();
    const shown = page.frameLocator("iframe").locator("img[alt=seen]");
    await shown.waitFor({ state: "attached" });
    // Where the service fetches none there is no address at all.
    assert.match((await shown.getAttribute("src")) ?? "/v1/proxy/image?grant=", /^\/v1\/proxy\/image\?grant=/);
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

  async "a link to a conversation opens it behind the log-in"() {
    const mine = await api(base, address);
    const { thread_id: thread } = await mine.until("inbox", "Plain words");
    const page = await open(DESKTOP, `/mail/inbox/${thread}`);
    await page.waitForURL(/\/login$/);
    await logIn(page);
    await page.locator("article").getByText("First line of plain words").waitFor();
    assert.match(page.url(), new RegExp(`/mail/inbox/${thread}$`));
    await close(page);
  },

  async "what was read of a conversation is folded, and unfolds"() {
    const mine = await api(base, address);
    const page = await open();
    await logIn(page);
    await row(page, "Part 1 of many").locator("a").click();
    await page.getByRole("button", { name: /earlier messages/ }).waitFor();
    const cards = page.locator("[data-message]");
    assert.ok((await cards.count()) < 7);
    await page.locator("article").getByText("Words of part 7").waitFor();
    assert.equal(await page.locator("article .message:not(.folded)").count(), 2, "the two that were not read are unfolded");
    await page.getByRole("button", { name: "Expand all" }).click();
    await page.locator("article").getByText("Words of part 3").waitFor();
    assert.equal(await cards.count(), 7);
    assert.equal((await mine.get(`/v1/threads/${(await mine.until("inbox", "Re: Part 1 of many")).thread_id}`)).messages.length, 7);
    await close(page);
  },

  async "unread again from the keyboard: the list, the title and the mailbox say so"() {
    const mine = await api(base, address);
    const page = await open();
    await logIn(page);
    await row(page, "Plain words").locator("a").click();
    await page.locator("article").getByText("First line of plain words").waitFor();
    await eventually("it was read", async () => (await mine.in("inbox")).find((one) => one.subject === "Plain words").is_read);
    const count = () => page.title().then((title) => Number(/^\((\d+)\)/.exec(title)?.[1] ?? 0));
    await eventually("the title counts as the mailbox does", async () => (await count()) === (await mine.get("/v1/folders")).find((one) => one.role === "inbox").unread);
    const before = await count();
    await page.keyboard.press("Shift+U");
    await eventually("the title counts it", async () => (await count()) === before + 1);
    await eventually("it is unread", async () => !(await mine.in("inbox")).find((one) => one.subject === "Plain words").is_read);
    await close(page);
  },

  async "a star is given in the reader and has a list"() {
    const page = await open();
    await logIn(page);
    await row(page, "Plain words").locator("a").click();
    await page.locator("article").getByText("First line of plain words").waitFor();
    await page.locator("article").getByRole("button", { name: "Star", exact: true }).click();
    const mine = await api(base, address);
    await eventually("it is flagged", async () => (await mine.in("inbox")).find((one) => one.subject === "Plain words").is_flagged);
    await page.keyboard.press("g");
    await page.keyboard.press("s");
    await row(page, "Plain words").waitFor();
    await row(page, "Plain words").getByRole("button", { name: "Remove star" }).click();
    await eventually("it is not flagged", async () => !(await mine.in("inbox")).find((one) => one.subject === "Plain words").is_flagged);
    await close(page);
  },

  async "a file is saved as it was sent"() {
    const theirs = await api(otherBase, otherAddress);
    await theirs.sendAll({ to: [address], subject: "A file to save", body: "Here.", attachments: [{ filename: "numbers.csv", content_type: "text/csv", data: Buffer.from("1,2,3\n").toString("base64") }] });
    const page = await open();
    await logIn(page);
    await row(page, "A file to save").locator("a").click();
    const saving = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download numbers.csv" }).click();
    const saved = await saving;
    assert.equal(saved.suggestedFilename(), "numbers.csv");
    const parts = [];
    for await (const part of await saved.createReadStream()) parts.push(part);
    assert.equal(Buffer.concat(parts).toString(), "1,2,3\n");
    await close(page);
  },
};
