import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { en } from "./en";
import { format } from "./format";
import { ko } from "./ko";

function names(message: string): Set<string> {
  return new Set([...message.matchAll(/\{(\w+)(?=[,}])/g)].map((match) => match[1]!));
}

describe("messages", () => {
  it("are complete in Korean, and take no value that English does not take", () => {
    expect(Object.keys(ko).sort()).toEqual(Object.keys(en).sort());
    for (const [key, message] of Object.entries(en)) {
      const korean = ko[key as keyof typeof en];
      expect(korean.trim(), key).not.toBe("");
      for (const name of names(korean)) expect(names(message), `${key}: ${name}`).toContain(name);
    }
  });

  it("are said in Korean by Korean signs", () => {
    const same = Object.keys(en).filter((key) => en[key as keyof typeof en] === ko[key as keyof typeof en]);
    expect(same).toEqual(["app.name"]);
  });

  it("leave no value unsaid", () => {
    for (const [locale, messages] of [["en", en], ["ko", ko]] as const) {
      for (const [key, message] of Object.entries(messages)) {
        const values = Object.fromEntries([...names(en[key as keyof typeof en])].map((name) => [name, name === "count" ? 3 : "X"]));
        expect(format(message, values, locale), key).not.toMatch(/[{}#]/);
      }
    }
  });

  it("are all used: what nobody says is left out", () => {
    const text = sources(join(import.meta.dirname, "..")).join("\n");
    const used = (key: string): boolean => (text.includes(`"${key}"`) || text.includes(`'${key}'`)) || PATTERNS.some((pattern) => pattern.test(key));
    expect(Object.keys(en).filter((key) => !used(key))).toEqual([]);
  });
});

/** Keys that are put together where they are used. */
const PATTERNS = [/^folder\./, /^error\./, /^list\.filter\./, /^list\.empty\./, /^out\.state\./, /^set\.(?:theme|density|layout)\./];

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return sources(path);
    return /\.(?:svelte|ts)$/.test(name) && !/^(?:en|ko)\.ts$|\.test\.ts$/.test(name) ? [readFileSync(path, "utf8")] : [];
  });
}

describe("format", () => {
  it("chooses by number and language", () => {
    const message = "{count, plural, =0 {none} one {# mail} other {# mails in {place}}}";
    expect(format(message, { count: 0 }, "en")).toBe("none");
    expect(format(message, { count: 1 }, "en")).toBe("1 mail");
    expect(format(message, { count: 4213, place: "Inbox" }, "en")).toBe("4,213 mails in Inbox");
    expect(format(message, { count: 1, place: "Inbox" }, "ko")).toBe("1 mails in Inbox");
  });

  it("leaves a name without a value as it stands", () => {
    expect(format("Hello {name}", {}, "en")).toBe("Hello {name}");
  });
});
