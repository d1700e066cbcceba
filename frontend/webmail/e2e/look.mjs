// Pictures of every page, in both languages, light and dark, on a desk and on phones: to be looked at. Where and who is said in the environment, as in
// journeys.mjs; OUT is where they go. WEBMAIL_ONLY takes those whose name has it.
import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { chromium } from "playwright-core";

const { WEBMAIL_BASE: base, WEBMAIL_ADDRESS: address, WEBMAIL_PASSWORD: password, OUT: out = "pictures", WEBMAIL_ONLY: only = "" } = process.env;
mkdirSync(out, { recursive: true });

const SIZES = { desk: { width: 1280, height: 800 }, phone: { width: 390, height: 844 }, small: { width: 360, height: 640 } };
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

async function settled(page) {
  await page.waitForLoadState("networkidle");
  await page.evaluate(() => document.fonts.ready);
}

/** What is shown, by name. `page` is logged in and at the inbox. */
const SCENES = {
  async inbox() {},
  async chosen(page) {
    const boxes = page.locator(".row .pick");
    for (const at of [1, 2, 3]) await boxes.nth(at).click();
  },
  async conversation(page, phone) {
    await open(page, process.env.LOOK_CONVERSATION ?? "Re: Footbridge", phone);
  },
  async designed(page, phone) {
    await open(page, process.env.LOOK_HTML ?? "Newsletter", phone);
    await page.frameLocator("iframe").first().locator("body").waitFor();
  },
  async search(page) {
    await page.goto(`${base}/mail/search?q=${encodeURIComponent(process.env.LOOK_QUERY ?? "report")}`);
    await page.locator(".row mark, .list-pane .nothing").first().waitFor();
  },
  async searching(page) {
    await page.locator("form[role=search] input").click();
    await page.locator(".below").waitFor();
  },
  async nothing(page) {
    await page.goto(`${base}/mail/search?q=zzzznothing`);
    await page.locator(".list-pane .nothing").waitFor();
  },
  async write(page, phone) {
    await page.keyboard.press("c");
    if (phone && (await page.locator("form.phone").count()) === 0) await page.locator(".fab").click();
    await page.locator(".ProseMirror").waitFor();
    await page.locator("input.subject").fill("Canal boats in spring");
    await page.locator(".ProseMirror").focus();
    await page.keyboard.press("Control+Home");
    await page.keyboard.type("Shall we go in April? The locks are open again, and the towpath has been mended.");
    await page.locator("input[type=file]").setInputFiles({ name: "map-of-the-canal.pdf", mimeType: "application/pdf", buffer: Buffer.alloc(180_000) });
    await page.waitForFunction(() => /saved|저장됨|device|기기/.test(document.querySelector(".state")?.textContent ?? ""));
  },
  async later(page, phone) {
    await SCENES.write(page, phone);
    await page.getByRole("button", { name: /^(Send later|나중에 보내기)$/ }).click();
    await page.getByRole("dialog").waitFor();
  },
  async outbox(page) {
    await page.goto(`${base}/mail/outbox`);
    await page.locator(".standing, .nothing").first().waitFor();
  },
  async drafts(page) {
    await page.goto(`${base}/mail/drafts`);
    await page.locator(".row, .list-pane .nothing, .draft").first().waitFor();
  },
  async keys(page) {
    await page.keyboard.press("?");
    await page.getByRole("dialog").waitFor();
  },
  async menu(page, phone) {
    if (phone) await page.locator(".burger").click();
    else await page.locator(".tools .menu > button").click();
    await page.waitForTimeout(300);
  },
  async picker(page) {
    await page.keyboard.press("j");
    await page.keyboard.press("l");
    await page.getByRole("dialog").waitFor();
  },
  async general(page) {
    await page.goto(`${base}/settings/general`);
    await page.locator("h1", { hasText: /Settings|설정/ }).waitFor();
  },
  async appearance(page) {
    await page.goto(`${base}/settings/appearance`);
    await page.locator("[role=radiogroup]").first().waitFor();
  },
  async organise(page) {
    await page.goto(`${base}/settings/organise`);
    await page.locator("main h2").first().waitFor();
  },
  async account(page) {
    await page.goto(`${base}/settings/account`);
    await page.locator(".lines li").first().waitFor();
  },
  async offline(page) {
    await page.context().setOffline(true);
    await page.locator(".place p").waitFor();
  },
};

async function open(page, subject, phone) {
  const row = page.locator(".row", { hasText: subject }).first();
  await row.waitFor();
  await (phone ? row.locator("a").tap() : row.locator("a").click());
  await page.locator("article h2").waitFor();
}

for (const [size, viewport] of Object.entries(SIZES)) {
  for (const [locale, theme] of [["en-GB", "light"], ["en-GB", "dark"], ["ko-KR", "light"], ["ko-KR", "dark"]]) {
    const phone = size !== "desk";
    const name = (scene) => `${scene}-${size}-${locale.slice(0, 2)}-${theme}`;
    const wanted = Object.entries(SCENES).filter(([scene]) => name(scene).includes(only));
    if (wanted.length === 0 && !name("login").includes(only)) continue;
    const context = await browser.newContext({ viewport, locale, colorScheme: theme, isMobile: phone, hasTouch: phone, reducedMotion: "reduce" });
    context.setDefaultTimeout(30_000);
    const page = await context.newPage();
    await page.goto(base);
    await page.locator("input[type=email]").waitFor();
    if (name("login").includes(only)) await page.screenshot({ path: join(out, `${name("login")}.png`) });
    await page.fill("input[type=email]", address);
    await page.fill("input[autocomplete=current-password]", password);
    await page.click("button[type=submit]");
    await page.locator(".row").first().waitFor();
    for (const [scene, go] of wanted) {
      try {
        await page.goto(`${base}/mail/inbox`);
        await page.locator(".row").first().waitFor();
        await go(page, phone);
        if (scene !== "offline") await settled(page);
        await page.screenshot({ path: join(out, `${name(scene)}.png`) });
      } catch (error) {
        console.log(`${name(scene)}: ${String(error).split("\n")[0]}`);
        await page.screenshot({ path: join(out, `FAILED-${name(scene)}.png`) });
      }
      await context.setOffline(false);
    }
    await context.close();
    console.log(`${size} ${locale} ${theme}`);
  }
}
await browser.close();
