// What people do with the webmail, done in Chromium against a real cluster. tests/webmail.rs starts it with the places and people that it names in
// the environment; it prints what became of each journey, and fails if one went wrong. WEBMAIL_ONLY takes those whose name has it, WEBMAIL_SMALL a few.
import assert from "node:assert/strict";

import { browser, wrong } from "./harness.mjs";
import { journeys as breaking } from "./journeys/breaking.mjs";
import { journeys as lists } from "./journeys/lists.mjs";
import { journeys as operators } from "./journeys/operators.mjs";
import { journeys as phone } from "./journeys/phone.mjs";
import { journeys as reading } from "./journeys/reading.mjs";
import { journeys as settings } from "./journeys/settings.mjs";
import { journeys as writing } from "./journeys/writing.mjs";

const journeys = { ...reading, ...lists, ...writing, ...settings, ...phone, ...operators, ...breaking };
/** What CI goes through: of each area what would break first. */
const SMALL = [
  "a wrong password", "a message is opened", "HTML that attacks", "an answer is written", "a draft with a file", "two devices", "an answer that is lost",
  "everything that a folder has", "by keyboard alone: down", "without a network", "on a phone: list", "who logs out", "a second factor", "an operator sees",
  "an operator holds",
];
const only = process.env.WEBMAIL_ONLY ?? "";
const isWanted = (name) => name.includes(only) && (!process.env.WEBMAIL_SMALL || SMALL.some((start) => name.startsWith(start)));
for (const start of SMALL) assert.ok(Object.keys(journeys).some((name) => name.startsWith(start)), `no journey is called ${start}`);

const failed = [];
let done = 0;
for (const [name, journey] of Object.entries(journeys)) {
  if (!isWanted(name)) continue;
  const began = Date.now();
  wrong.length = 0;
  try {
    const passed = await journey();
    assert.deepEqual(wrong, [], name);
    if (typeof passed === "string") console.log(`passed over  ${name}: ${passed}`);
    else {
      done += 1;
      console.log(`ok      ${name} (${Date.now() - began} ms)`);
    }
  } catch (error) {
    failed.push(name);
    console.log(`NOT OK  ${name}\n${error.stack}\n${wrong.join("\n")}`);
    for (const context of browser.contexts()) {
      if (process.env.WEBMAIL_PICTURES) for (const [at, page] of context.pages().entries()) await page.screenshot({ path: `${process.env.WEBMAIL_PICTURES}/${name.replace(/\W+/g, "-").slice(0, 60)}-${at}.png` }).catch(() => {});
      await context.close();
    }
  }
}
await browser.close();
console.log(`${done} journeys went well, ${failed.length} did not`);
process.exitCode = failed.length === 0 ? 0 : 1;
