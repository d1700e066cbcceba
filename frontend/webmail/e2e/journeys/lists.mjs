// Lists: choosing, moving, finding, and the way back.
import assert from "node:assert/strict";

import { accessible, address, api, base, close, eventually, logIn, open, otherAddress, otherBase, row, toast } from "../harness.mjs";

export const journeys = {
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

  async "everything that a folder has is moved at once, loaded or not, and brought back"() {
    const mine = await api(base, address);
    const before = (await mine.get("/v1/folders")).find((one) => one.role === "inbox").total;
    assert.ok(before > 60, "more than a page");
    const page = await open();
    await logIn(page);
    await page.keyboard.press("*");
    await page.keyboard.press("a");
    await page.getByRole("button", { name: /^Select all \d+ messages of/ }).click();
    await page.getByText(/^All \d+ messages of “Inbox” are selected/).waitFor();
    await page.keyboard.press("e");
    const done = toast(page, /^\d+ archived/);
    await done.waitFor();
    assert.equal((await mine.in("inbox")).length, 0);
    await page.getByText("Your inbox is empty").waitFor();
    await accessible(page, "an empty inbox");
    await done.getByRole("button", { name: "Undo" }).click();
    await eventually("all are back", async () => (await mine.get("/v1/folders")).find((one) => one.role === "inbox").total === before);
    await row(page, "Plain words").waitFor();
    await close(page);
  },

  async "a folder is made while one moves, renamed, and deleted"() {
    const theirs = await api(otherBase, otherAddress);
    await theirs.send("For a folder", address);
    const mine = await api(base, address);
    const page = await open();
    await logIn(page);
    await row(page, "For a folder").locator(".pick").click();
    await page.keyboard.press("v");
    await page.getByRole("combobox", { name: "Find or create" }).fill("Boats");
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Create", exact: true }).click();
    await toast(page, "Moved to Boats").waitFor();
    await page.getByRole("link", { name: /^Boats/ }).click();
    await row(page, "For a folder").waitFor();
    await page.goto(`${base}/settings/organise`);
    await page.getByRole("button", { name: "Edit Boats" }).click();
    await page.getByRole("textbox", { name: "Name of the folder" }).fill("Ships");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByRole("link", { name: /^Ships/ }).waitFor();
    await page.getByRole("button", { name: "Delete: Ships" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await eventually("the folder is gone", async () => !(await mine.get("/v1/folders")).some((one) => one.name === "Ships"));
    await mine.until("trash", "For a folder");
    await close(page);
  },

  async "only what is unread is shown, and goes when it was read"() {
    const theirs = await api(otherBase, otherAddress);
    const subject = `Not read yet, ${Date.now()}`;
    await theirs.send(subject, address);
    const page = await open();
    await logIn(page);
    await row(page, subject).waitFor();
    await page.getByRole("button", { name: "Unread", exact: true }).click();
    await page.waitForURL(/show=unread/);
    await row(page, subject).locator(".pick").click();
    await page.keyboard.press("Shift+I");
    await toast(page, "Marked as read").waitFor();
    await page.reload();
    await page.waitForSelector(".row, .nothing");
    await row(page, subject).waitFor({ state: "detached" });
    await close(page);
  },

  async "spam goes, and comes back"() {
    const theirs = await api(otherBase, otherAddress);
    await theirs.send("Perhaps spam", address);
    const mine = await api(base, address);
    const page = await open();
    await logIn(page);
    await row(page, "Perhaps spam").locator(".pick").click();
    await page.keyboard.press("!");
    await mine.until("junk", "Perhaps spam");
    await page.getByRole("link", { name: /^Spam/ }).click();
    await row(page, "Perhaps spam").locator(".pick").click();
    await page.keyboard.press("!");
    await mine.until("inbox", "Perhaps spam");
    await close(page);
  },

  async "what is deleted for good waits for its time to undo, and then is gone"() {
    const theirs = await api(otherBase, otherAddress);
    await theirs.send("To be destroyed", address);
    const mine = await api(base, address);
    const page = await open();
    await logIn(page);
    await row(page, "To be destroyed").locator(".pick").click();
    await page.keyboard.press("#");
    await mine.until("trash", "To be destroyed");
    await page.getByRole("link", { name: "Trash" }).click();
    await row(page, "To be destroyed").locator(".pick").click();
    await page.keyboard.press("#");
    await toast(page, "Deleted for good").getByRole("button", { name: "Undo" }).click();
    await row(page, "To be destroyed").waitFor();
    assert.ok((await mine.in("trash")).some((one) => one.subject === "To be destroyed"));
    await page.getByRole("button", { name: "Empty trash now" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete forever" }).click();
    await eventually("the trash is empty", async () => (await mine.in("trash")).length === 0);
    await page.getByText("Trash is empty").waitFor();
    await close(page);
  },

  async "what is done in one tab is seen in the other"() {
    const theirs = await api(otherBase, otherAddress);
    await theirs.send("Seen in two tabs", address);
    const page = await open();
    await logIn(page);
    const second = await page.context().newPage();
    await second.goto(`${base}/mail/inbox`);
    await row(second, "Seen in two tabs").waitFor();
    await row(page, "Seen in two tabs").locator(".pick").click();
    await page.keyboard.press("e");
    await row(second, "Seen in two tabs").waitFor({ state: "detached" });
    await page.keyboard.press("z");
    await row(second, "Seen in two tabs").waitFor();
    await close(page);
  },
};
