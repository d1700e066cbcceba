// Writing.
import assert from "node:assert/strict";

import { accessible, address, api, base, close, compose, DESKTOP, eventually, logIn, open, otherAddress, otherBase, row, toast } from "../harness.mjs";

export const journeys = {
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

  async "a draft is in the mailbox, and is thrown away there"() {
    const mine = await api(base, address);
    const page = await open();
    await logIn(page);
    await compose(page, { subject: "Half a thought", text: "and the other half" });
    await page.getByText("Draft saved").waitFor();
    const kept = await mine.until("drafts", "Half a thought");
    assert.match((await mine.get(`/v1/messages/${kept.id}`)).body, /^and the other half/);
    await page.reload();
    await page.waitForSelector(".row");
    await page.keyboard.press("g");
    await page.keyboard.press("d");
    await row(page, "Half a thought").locator("a").click();
    await page.locator(".ProseMirror", { hasText: "and the other half" }).waitFor();
    assert.equal((await mine.in("drafts")).filter((one) => one.subject === "Half a thought").length, 1);
    await page.getByRole("button", { name: "Discard draft" }).click();
    await toast(page, "Draft discarded").waitFor();
    await eventually("it is gone from the mailbox", async () => !(await mine.in("drafts")).some((one) => one.subject === "Half a thought"));
    await toast(page, "Draft discarded").getByRole("button", { name: "Undo" }).click();
    await mine.until("drafts", "Half a thought");
    await page.getByRole("button", { name: "Discard draft" }).click();
    await eventually("it is gone again", async () => !(await mine.in("drafts")).some((one) => one.subject === "Half a thought"));
    await close(page);
  },

  async "a draft with a file is written on at another region, and sent from there"() {
    const mine = await api(base, address);
    const page = await open();
    await logIn(page);
    await compose(page, { to: otherAddress, subject: "Begun here", text: "First words." });
    await page.locator("input[type=file]").setInputFiles({ name: "plan.txt", mimeType: "text/plain", buffer: Buffer.from("the plan") });
    await eventually("the mailbox has it with its file", async () => (await mine.in("drafts")).some((one) => one.subject === "Begun here" && one.has_attachments));
    await page.getByText("Draft saved").waitFor();
    const there = await open(DESKTOP, "/login", otherBase);
    await logIn(there);
    await there.getByRole("link", { name: /^Drafts/ }).click();
    await row(there, "Begun here").locator("a").click();
    await there.locator(".ProseMirror", { hasText: "First words." }).click();
    await there.keyboard.press("Control+End");
    await there.keyboard.type(" Last words.");
    await there.getByText("Draft saved").waitFor();
    await page.locator(".ProseMirror", { hasText: "Last words." }).waitFor();
    await page.getByText("Changed on another device").waitFor();
    await there.keyboard.press("Control+Enter");
    const theirs = await api(otherBase, otherAddress);
    const got = await theirs.until("inbox", "Begun here");
    const message = await theirs.get(`/v1/messages/${got.id}`);
    assert.match(message.body, /First words\. Last words\./);
    assert.equal(message.attachments[0].filename, "plan.txt");
    await page.getByText("This draft was sent from another device.").waitFor();
    assert.equal((await mine.in("drafts")).filter((one) => one.subject === "Begun here").length, 0);
    await close(there);
    await close(page);
  },

  async "two devices write at the same draft: both versions are kept, and it is told"() {
    const mine = await api(base, address);
    const page = await open();
    page.expected.push(/ERR_INTERNET_DISCONNECTED|WebSocket|404/);
    await logIn(page);
    await compose(page, { subject: "Written twice", text: "Common words." });
    await page.getByText("Draft saved").waitFor();
    const there = await open(DESKTOP, "/login", otherBase);
    await logIn(there);
    await there.getByRole("link", { name: /^Drafts/ }).click();
    await row(there, "Written twice").locator("a").click();
    await there.locator(".ProseMirror", { hasText: "Common words." }).waitFor();
    await page.context().setOffline(true);
    await page.locator(".ProseMirror").click();
    await page.keyboard.press("Control+End");
    await page.keyboard.type(" Mine.");
    await page.getByText("Kept on this device for now").waitFor();
    await there.locator(".ProseMirror").click();
    await there.keyboard.press("Control+End");
    await there.keyboard.type(" Theirs.");
    await there.getByText("Draft saved").waitFor();
    await page.context().setOffline(false);
    await page.getByText("This draft was changed on another device as well").waitFor();
    await accessible(page, "a conflict");
    await eventually("both are kept", async () => {
      const kept = (await mine.in("drafts")).filter((one) => one.subject === "Written twice");
      const texts = await Promise.all(kept.map((one) => mine.text(one.id)));
      return texts.length === 2 && texts.some((text) => text.includes("Mine.")) && texts.some((text) => text.includes("Theirs."));
    });
    await page.getByRole("button", { name: "Open the other" }).click();
    await page.locator(".ProseMirror", { hasText: "Theirs." }).waitFor();
    for (const one of await mine.in("drafts")) if (one.subject === "Written twice") await mine.delete(`/v1/drafts/${one.id}`);
    await close(there);
    await close(page);
  },

  async "two tabs of one browser do not write at one draft"() {
    const mine = await api(base, address);
    const page = await open();
    await logIn(page);
    await compose(page, { subject: "In the first tab", text: "One." });
    const second = await page.context().newPage();
    await second.goto(`${base}/mail/inbox`);
    await second.waitForSelector(".row");
    await page.getByText("Draft saved").waitFor();
    await page.locator(".ProseMirror").click();
    await page.keyboard.press("Control+End");
    await page.keyboard.type(" Two.");
    await eventually("the second version is saved", async () => {
      const kept = (await mine.in("drafts")).find((one) => one.subject === "In the first tab");
      return kept && (await mine.text(kept.id)).includes("Two.");
    });
    assert.equal(await page.locator(".conflict").count(), 0);
    assert.equal((await mine.in("drafts")).filter((one) => one.subject === "In the first tab").length, 1);
    await page.getByRole("button", { name: "Discard draft" }).click();
    await eventually("it is gone", async () => !(await mine.in("drafts")).some((one) => one.subject === "In the first tab"));
    await close(page);
  },

  async "a message is given its time, waits in the outbox, and is taken back"() {
    const mine = await api(base, address);
    const page = await open();
    await logIn(page);
    await compose(page, { to: otherAddress, subject: "For later", text: "Good morning." });
    await page.getByRole("button", { name: "Send later" }).click();
    await accessible(page, "send later");
    await page.getByRole("button", { name: /^Tomorrow morning/ }).click();
    await toast(page, "Will be sent").waitFor();
    const [entry] = (await mine.get("/v1/outbox")).messages;
    assert.equal(entry.subject, "For later");
    assert.equal(new Date(entry.send_at).getHours(), 8);
    await page.getByRole("link", { name: /^Outbox/ }).click();
    await page.getByText("Will be sent").last().waitFor();
    await accessible(page, "outbox");
    await page.getByRole("button", { name: "Take back and edit" }).click();
    await page.locator(".ProseMirror", { hasText: "Good morning." }).waitFor();
    await page.getByText("Nothing is on its way").waitFor();
    assert.equal((await mine.get("/v1/outbox")).messages.length, 0);
    await page.getByRole("button", { name: "Discard draft" }).click();
    await eventually("no draft is left", async () => (await mine.in("drafts")).length === 0);
    const theirs = await api(otherBase, otherAddress);
    assert.ok(!(await theirs.in("inbox")).some((one) => one.subject === "For later"));
    await close(page);
  },

  async "why a message waits is told, in the outbox and where it was sent"() {
    const mine = await api(base, address);
    const page = await open();
    await logIn(page);
    await compose(page, { to: "somebody@far.example", subject: "Far away", text: "Are you there?" });
    await page.keyboard.press("Control+Enter");
    await eventually("it is in the outbox", async () => (await mine.get("/v1/outbox")).messages.some((one) => one.subject === "Far away"));
    await page.getByRole("link", { name: /^Outbox/ }).click();
    await page.getByText("somebody@far.example").waitFor();
    await page.getByRole("button", { name: "Far away" }).click();
    await page.locator("article .waiting").getByText("somebody@far.example").waitFor();
    await accessible(page, "a message that waits");
    await close(page);
  },

  async "everybody is answered, and a message is passed on with its file"() {
    const theirs = await api(otherBase, otherAddress);
    const third = `third-${Date.now()}@postrider.example`;
    await theirs.signUp(third);
    await theirs.sendAll({ to: [address], cc: [third], subject: "To several", body: "All of you.", attachments: [{ filename: "list.txt", content_type: "text/plain", data: Buffer.from("a list").toString("base64") }] });
    const page = await open();
    await logIn(page);
    await row(page, "To several").locator("a").click();
    await page.locator("article").getByText("All of you.").first().waitFor();
    const mine = await api(base, address);
    await page.keyboard.press("f");
    const form = page.locator(".answer form, .docks form").last();
    await form.getByText("list.txt").waitFor();
    await form.getByRole("combobox", { name: "To" }).fill(`${otherAddress},`);
    await form.locator(".ProseMirror").click();
    await page.keyboard.press("Control+Enter");
    const passed = await theirs.until("inbox", "Fwd: To several");
    const message = await theirs.get(`/v1/messages/${passed.id}`);
    assert.equal(message.attachments[0].filename, "list.txt");
    assert.match(message.body, /All of you\./);
    await page.keyboard.press("a");
    await page.locator(".ProseMirror").waitFor();
    await page.locator(".answer").getByText(third).waitFor();
    await page.keyboard.type("Answer to all.");
    await page.keyboard.press("Control+Enter");
    await theirs.until("inbox", "Re: To several");
    const answer = await mine.until("sent", "Re: To several");
    assert.deepEqual((await mine.get(`/v1/messages/${answer.id}`)).cc.map((one) => one.email), [third]);
    await eventually("it is marked", async () => (await mine.in("inbox")).find((one) => one.subject === "To several").keywords.includes("$forwarded"));
    await close(page);
  },

  async "what is sent without a network is sent once when it is back, even by a page that comes after"() {
    const theirs = await api(otherBase, otherAddress);
    const page = await open();
    page.expected.push(/ERR_INTERNET_DISCONNECTED|WebSocket/);
    await logIn(page);
    await page.keyboard.press("c");
    await page.locator(".ProseMirror").waitFor();
    await page.context().setOffline(true);
    await compose(page, { to: otherAddress, subject: "Written on a train", text: "Through a tunnel.", isOpen: true });
    await page.keyboard.press("Control+Enter");
    await toast(page, "No connection").waitFor();
    const second = await page.context().newPage();
    await page.close({ runBeforeUnload: false });
    await second.context().setOffline(false);
    second.expected = [];
    await second.goto(`${base}/mail/inbox`);
    await second.waitForSelector(".row, input[type=email]");
    if (await second.locator("input[type=email]").count()) await logIn(second);
    await theirs.until("inbox", "Written on a train");
    await eventually("nothing waits any more", async () => (await second.evaluate(() => new Promise((resolve) => {
      const opening = indexedDB.open("postrider");
      opening.onsuccess = () => {
        const asked = opening.result.transaction("outbox").objectStore("outbox").count();
        asked.onsuccess = () => resolve(asked.result);
      };
    }))) === 0);
    assert.equal((await theirs.in("inbox")).filter((one) => one.subject === "Written on a train").length, 1);
    await second.context().close();
  },

  async "an answer that is lost on its way sends nothing twice"() {
    const theirs = await api(otherBase, otherAddress);
    const page = await open();
    page.expected.push(/ERR_FAILED|ERR_CONNECTION|Failed to load/);
    await logIn(page);
    let lost = 0;
    // The request arrives, its answer does not.
    await page.route(/\/v1\/(?:messages|drafts(?:\/[^/]+(?:\/send)?)?)$/, async (route) => {
      if (route.request().method() === "GET" || lost >= 3) return route.continue();
      lost += 1;
      await route.fetch();
      await route.abort("connectionreset");
    });
    await compose(page, { to: otherAddress, subject: "Once and no more", text: "Only once." });
    await page.getByText("Kept on this device for now").waitFor();
    await page.keyboard.press("Control+Enter");
    await theirs.until("inbox", "Once and no more");
    assert.equal(lost, 3);
    const mine = await api(base, address);
    assert.equal((await theirs.in("inbox")).filter((one) => one.subject === "Once and no more").length, 1);
    await eventually("no draft is left", async () => !(await mine.in("drafts")).some((one) => one.subject === "Once and no more"));
    await close(page);
  },

  async "what was forgotten is asked for: a subject, a file, somebody who is there"() {
    const page = await open();
    page.expected.push(/422/);
    await logIn(page);
    await compose(page, { to: "nobody-here@postrider.example", text: "The plan is attached." });
    await page.keyboard.press("Control+Enter");
    await page.getByRole("heading", { name: "Send without a subject?" }).waitFor();
    await page.getByRole("button", { name: "Keep writing" }).click();
    await page.getByRole("textbox", { name: "Subject" }).fill("Plan");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByRole("heading", { name: /^You mention an attachment/ }).waitFor();
    await page.getByRole("button", { name: "Send anyway" }).click();
    await page.getByRole("alert").getByText("There is nobody with this address: nobody-here@postrider.example").waitFor();
    await page.locator(".ProseMirror", { hasText: "The plan is attached." }).waitFor();
    await page.getByRole("button", { name: "Discard draft" }).click();
    await close(page);
  },

  async "somebody one knows is suggested, and chosen with the keyboard"() {
    const page = await open();
    await logIn(page);
    await page.keyboard.press("c");
    const to = page.getByRole("combobox", { name: "To" });
    await to.fill("writ");
    await page.getByRole("option").first().waitFor();
    await page.keyboard.press("Enter");
    await page.locator("form .chip", { hasText: /writer/i }).waitFor();
    await page.keyboard.press("Backspace");
    await page.locator("form .chip", { hasText: /writer/i }).waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Discard draft" }).click();
    await close(page);
  },

  async "by keyboard alone: written, sent, and read where it went"() {
    const theirs = await api(otherBase, otherAddress);
    const page = await open();
    await logIn(page);
    await page.keyboard.press("c");
    await page.locator(".ProseMirror").waitFor();
    await page.keyboard.type(`${otherAddress},`);
    for (let step = 0; step < 12 && !(await page.evaluate(() => document.activeElement?.classList.contains("subject"))); step += 1) await page.keyboard.press("Tab");
    await page.keyboard.type("Without a mouse");
    await page.keyboard.press("Tab");
    await page.keyboard.type("All by keys.");
    await page.keyboard.press("Control+Enter");
    await theirs.until("inbox", "Without a mouse");
    await page.keyboard.press("g");
    await page.keyboard.press("t");
    await row(page, "Without a mouse").waitFor();
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await page.locator("article").getByText("All by keys.").waitFor();
    await close(page);
  },
};
