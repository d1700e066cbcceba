// Pictures of the operator's page in both languages, light and dark, desktop and phone: the built page, over answers that are made up here, so that
// what is seldom seen (a region that burns, a move, a destination that refuses) is seen. Each is held against axe, and shows what the policy
// of the page refuses. LOOK_OUT says where, LOOK_ONLY which.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, join } from "node:path";

import { chromium } from "playwright-core";

const out = process.env.LOOK_OUT ?? "/tmp/look";
const only = process.env.LOOK_ONLY ?? "";
const dist = join(import.meta.dirname, "../dist");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const policy = readFileSync(join(import.meta.dirname, "../src/policy.rs"), "utf8").match(/const PAGE: &str = "([^;]*;[\s\S]*?)";\n/)[1].replace(/\\\n\s*/g, "");
const at = (minutes) => new Date(Date.now() - minutes * 60_000).toISOString();

const REGIONS = ["seoul", "frankfurt", "virginia"];
const nodes = [1, 2, 3, 4, 5, 6].map((id) => ({
  id, region: REGIONS[(id - 1) % 3], address: `10.${id}.0.5:7105`, state: id === 3 ? "silent" : id === 5 ? "draining" : "active", up: id !== 3,
  error: id === 3 ? "10.3.0.5:7105: no answer in time" : null, version: id === 3 ? null : "0.1.0", replicas: id === 3 ? 0 : 24 - id, primaries: id === 3 ? 0 : 8 - id,
  stopped: [], silent_since: id === 3 ? at(4) : null,
}));
const shards = [1, 2, 3, ...Array.from({ length: 12 }, (_, at) => 1000 + at)].map((shard, index) => ({
  shard, kind: shard === 1 ? "placement" : shard < 1000 ? "directory" : "mailbox", zone: "world", home: REGIONS[index % 3], primary: index === 7 ? null : [1, 2, 4, 5, 6][index % 5],
  replicas: [1, 2, 3].map((one) => ((one + index) % 6) + 1), running: [1, 2, 3].map((one) => ((one + index) % 6) + 1).filter((one) => one !== 3), users: shard < 1000 ? 0 : 1200 + index * 37, bytes: shard < 1000 ? 40_000 : 7_400_000_000 + index * 610_000_000,
  lag: index === 4 ? 12 : 0, operation: index === 5 ? 812 : null,
}));
const ANSWERS = {
  operator: { name: "ada@postrider.example" },
  cluster: {
    regions: REGIONS.map((name, index) => ({ name, zone: "world", weight: 100, url: `https://${name}.postrider.example`, nodes: 2, answering: index === 2 ? 1 : 2, primaries: 5, homes: 5 })),
    nodes,
    shards: { count: shards.length, without_primary: [1004], missing_replicas: [2, 3, 1000, 1004], behind: [1001] },
  },
  shards: { shards },
  operations: {
    operations: [
      { id: 812, kind: "replicas", of: "shard 1002 on 1,4,6", state: "running", step: "catching_up", waits_for: "", why: "node 5 is being emptied", parent: 811, started_at: at(2), ended_at: null },
      { id: 811, kind: "drain", of: "node 5", state: "running", step: "draining", waits_for: "operation 812", why: "", parent: null, started_at: at(9), ended_at: null },
      { id: 810, kind: "home", of: "shard 1007 in seoul", state: "done", step: "handing_over", waits_for: "", why: "seoul is nearer to its users", parent: null, started_at: at(130), ended_at: at(129) },
    ],
  },
  plan: { steps: [{ shard: 1003, priority: "lost replica", change: "replicas 1,2,4 instead of 1,2,3", reason: "node 3 does not answer" }], blocked: [{ shard: 1004, reason: "no other region of its policy has room" }], blocked_shards: 1, waiting_shards: 4, has_more: true, silent_nodes: [3] },
  queues: {
    destinations: [
      { destination: "far.example", entries: 4213, recipients: 4390, bytes: 91_000_000, oldest: "1003-7", since: at(190), held: false, next_at: at(-6), attempts: 9, in_line: true, why: "the destination puts mail off", reply: "421 4.7.0 Try again later, too many connections" },
      { destination: "via mx.partner.example:25", entries: 12, recipients: 12, bytes: 310_000, oldest: "1001-4", since: at(22), held: true, next_at: null, attempts: 2, in_line: false, why: "held by an operator", reply: "" },
    ],
    left: 0,
  },
  search: { indexes: [1000, 1001, 1002].flatMap((shard, index) => [1, 2].map((node) => ({ shard, node, documents: 81_200, bytes: 140_000_000, lag: index === 1 ? 14_000 : 3, rebuilding: index === 2 && node === 2, rebuilt: 30_400, to_rebuild: 81_200 }))), failed: [{ node: 3, error: "10.3.0.5:7105: no answer in time" }] },
  blobs: { sweeps: [{ zone: "world", number: 41, phase: "comparing", percent: 37, started_at: at(3), ended_at: null, whole: true, running: { blobs: 51_000, bytes: 9_100_000_000, copies_read: 0, missing: 2, damaged: 0, restored: 2, lost: 0, deleted: 12, deleted_bytes: 900_000 }, last: null }] },
  domains: { domains: [{ domain: "postrider.example", zone: "world", policy: "", dkim_keys: [{ selector: "s2026", created_at: at(9000), retired_at: null }] }, { domain: "second.example", zone: "mars", policy: "three", dkim_keys: [] }] },
  "domains/postrider.example/dns": { records: [
    { name: "postrider.example.", type: "MX", state: "ok", expected: ["10 mx-seoul.postrider.example."], seen: ["10 mx-seoul.postrider.example."] },
    { name: "postrider.example.", type: "TXT", state: "differs", expected: ['"v=spf1 mx -all"'], seen: ['"v=spf1 ~all"'] },
    { name: "_mta-sts.postrider.example.", type: "TXT", state: "missing", expected: ['"v=STSv1; id=2026113001"'], seen: [] },
  ] },
  "accounts/bora@postrider.example": { user_id: "00010a3fc1d2e3f4a5b6c7d8e9f0a1b2", address: "bora@postrider.example", shard: 1003, state: "suspended", receives: true, since: at(50), why: "too much comes back", created_at: at(90_000), category: "personal", messages: 18_204, used_bytes: 2_310_000_000, quota_bytes: 15_000_000_000, sessions: 3 },
  audit: { lines: [
    { sequence: 93, at: at(1), operator: "ada@postrider.example", certificate: "ctl operators-seoul", action: "node.drain", targets: ["node 5"], why: "disks are replaced", outcome: "done", ended_at: at(1), detail: "" },
    { sequence: 91, at: at(70), operator: "administrator", certificate: "ctl operators-seoul", action: "account.suspend", targets: ["user 00010a3fc1d2e3f4a5b6c7d8e9f0a1b2", "address 5d41402abc4b2a76b9719d911017c592"], why: "a stolen password", outcome: "failed", ended_at: at(70), detail: "The cluster refused this. Nothing was changed." },
    { sequence: 88, at: at(800), operator: "jin", certificate: "ctl jin", action: "cluster.balance", targets: ["cluster"], why: "after the new racks", outcome: "not_known", ended_at: null, detail: "" },
  ], next_cursor: "88-88" },
};

const SCENES = {
  async code(page) {
    await page.fill("input[type=email]", "ada@postrider.example");
    await page.fill("input[type=password]", "right");
    await page.click("button[type=submit]");
    await page.fill("input[autocomplete=one-time-code]", "123456");
    await page.click("button[type=submit]");
    await page.getByRole("alert").waitFor();
    assert.equal(await page.inputValue("input[autocomplete=one-time-code]"), "");
  },
  login: async (page) => page.locator("button[type=submit]").waitFor(),
  ...Object.fromEntries(["cluster", "shards", "moves", "queues", "stores", "audit"].map((name) => [name, async (page) => page.locator("table").first().waitFor()])),
  async domains(page) {
    await page.locator("td button").first().click();
    await page.locator("section:nth-of-type(2) table").waitFor();
  },
  async accounts(page) {
    await page.fill("input[type=email]", "bora@postrider.example");
    await page.click("button[type=submit]");
    await page.locator("dl").waitFor();
  },
  async drain(page) {
    await page.locator("td button").first().click();
    await page.locator("dialog input").fill("disks are replaced");
  },
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const wrong = [];
for (const [size, viewport] of Object.entries({ desk: { width: 1280, height: 800 }, phone: { width: 360, height: 740 } })) {
  for (const [locale, colorScheme] of [["en-GB", "light"], ["en-GB", "dark"], ["ko-KR", "light"], ["ko-KR", "dark"]]) {
    for (const [scene, go] of Object.entries(SCENES)) {
      const name = `admin-${scene}-${size}-${locale.slice(0, 2)}-${colorScheme}`;
      if (!name.includes(only)) continue;
      const context = await browser.newContext({ viewport, locale, colorScheme, isMobile: size === "phone", hasTouch: size === "phone", reducedMotion: "reduce" });
      context.setDefaultTimeout(20_000);
      await context.route("**/*", async (route) => {
        const { pathname } = new URL(route.request().url());
        const problem = (status, kind, title) => route.fulfill({ status, contentType: "application/problem+json", body: JSON.stringify({ type: `urn:postrider:problem:${kind}`, title, status }) });
        if (pathname === "/v1/sessions") {
          // An account with a second factor, and a code that is not right.
          const { code } = route.request().postDataJSON();
          return code === undefined ? problem(401, "second_factor_required", "A code is wanted.") : problem(403, "wrong_code", "The code is wrong.");
        }
        if (pathname.startsWith("/v1/admin/")) {
          const answer = ANSWERS[decodeURIComponent(pathname.slice("/v1/admin/".length))];
          return answer ? route.fulfill({ json: answer }) : problem(404, "not_found", "There is no such thing here.");
        }
        const file = pathname.startsWith("/admin") ? "admin.html" : pathname.replace(/^\/webmail\//, "");
        await route.fulfill({ body: readFileSync(join(dist, file)), headers: { "content-type": TYPES[extname(file)], "content-security-policy": policy } });
      });
      const page = await context.newPage();
      page.on("console", (message) => message.type() === "error" && !(scene === "code" && /status of 40[13]/.test(message.text())) && wrong.push(`${name}: ${message.text()}`));
      page.on("pageerror", (error) => wrong.push(`${name}: ${error.message}`));
      if (!["login", "code"].includes(scene)) await page.addInitScript(() => sessionStorage.setItem("postrider.operator", "a token"));
      try {
        await page.goto(`https://operators.example/admin${["cluster", "login", "code", "drain"].includes(scene) ? "" : `/${scene}`}`);
        await go(page);
        await page.screenshot({ path: join(out, `${name}.png`) });
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
        wrong.push(...violations.map((one) => `${name}: ${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`));
        const width = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (width > 0) wrong.push(`${name}: ${width} pixels wider than the screen`);
      } catch (error) {
        wrong.push(`${name}: ${String(error).split("\n")[0]}`);
        await page.screenshot({ path: join(out, `FAILED-${name}.png`) });
      }
      await context.close();
    }
  }
}
await browser.close();
assert.deepEqual(wrong, []);
