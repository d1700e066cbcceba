// On a phone.
import assert from "node:assert/strict";

import { accessible, address, api, base, close, logIn, open, otherAddress, otherBase, PHONE, row, toast } from "../harness.mjs";

export const journeys = {
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

  async "on a phone: a row is swiped away, and brought back"() {
    const theirs = await api(otherBase, otherAddress);
    await theirs.send("To be swiped", address);
    const mine = await api(base, address);
    const page = await open(PHONE);
    await logIn(page);
    await row(page, "To be swiped").waitFor();
    const box = await row(page, "To be swiped").boundingBox();
    const devtools = await page.context().newCDPSession(page);
    const touch = (type, x) => devtools.send("Input.dispatchTouchEvent", { type, touchPoints: type === "touchEnd" ? [] : [{ x, y: box.y + box.height / 2 }] });
    await touch("touchStart", 80);
    for (let x = 100; x <= 320; x += 20) await touch("touchMove", x);
    await touch("touchEnd");
    await mine.until("archive", "To be swiped");
    await toast(page, "Archived").getByRole("button", { name: "Undo" }).tap();
    await mine.until("inbox", "To be swiped");
    await close(page);
  },

  async "on a phone, in Korean: written with a file and sent"() {
    const theirs = await api(otherBase, otherAddress);
    const page = await open({ ...PHONE, viewport: { width: 360, height: 640 }, locale: "ko-KR" });
    await logIn(page);
    await page.getByRole("button", { name: "메일 쓰기" }).last().tap();
    await page.locator(".ProseMirror").waitFor();
    await page.getByRole("combobox", { name: "받는 사람" }).fill(`${otherAddress},`);
    await page.locator("input.subject").fill("점심");
    await page.locator(".ProseMirror").tap();
    await page.keyboard.insertText("열두 시에 만나요.");
    await page.locator("input[type=file]").setInputFiles({ name: "약도.txt", mimeType: "text/plain", buffer: Buffer.from("map") });
    await accessible(page, "writing on a phone, Korean");
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing is wider than the phone");
    await page.getByRole("button", { name: "보내기", exact: true }).tap();
    const got = await theirs.until("inbox", "점심");
    assert.equal((await theirs.get(`/v1/messages/${got.id}`)).attachments[0].filename, "약도.txt");
    await close(page);
  },

  async "no page is wider than a phone of 360 px"() {
    const page = await open({ ...PHONE, viewport: { width: 360, height: 640 } });
    await logIn(page);
    for (const path of ["/mail/inbox", "/mail/drafts", "/mail/outbox", "/mail/search?q=words", "/settings/general", "/settings/appearance", "/settings/organise", "/settings/account"]) {
      await page.goto(`${base}${path}`);
      await page.locator("main h1, main h2").first().waitFor();
      const wide = await page.evaluate(() => [...document.querySelectorAll("main, main *")].filter((one) => one.getBoundingClientRect().right > innerWidth + 1 && getComputedStyle(one).position !== "absolute" && !one.closest("nav")).length);
      assert.equal(wide, 0, path);
    }
    await close(page);
  },
};
