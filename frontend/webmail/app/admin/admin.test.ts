import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { format } from "../i18n/format";
import { en, type Key } from "./i18n/en";
import { ko } from "./i18n/ko";
import { byNode } from "./load";
import { pageOf, PAGES, pathOf } from "./state/route.svelte";
import { ago, bytes } from "./text";

const names = (message: string): Set<string> => new Set([...message.matchAll(/\{(\w+)(?=[,}])/g)].map((match) => match[1]!));

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return sources(path);
    return /\.(?:svelte|ts)$/.test(name) && !/^(?:en|ko)\.ts$|\.test\.ts$/.test(name) ? [readFileSync(path, "utf8")] : [];
  });
}

/** Keys that are put together where they are used. */
const PATTERNS = [/^page\./, /^error\./, /^state\./, /^kind\./, /^move\./, /^step\./, /^phase\./, /^category\./, /^outcome\./, /^queue\.(?:hold|release)\.done$/];

describe("messages for operators", () => {
  it("are complete in Korean, and take no value that English does not take", () => {
    expect(Object.keys(ko).sort()).toEqual(Object.keys(en).sort());
    for (const [key, message] of Object.entries(en)) {
      const korean = ko[key as Key];
      expect(korean.trim(), key).not.toBe("");
      for (const name of names(korean)) expect(names(message), `${key}: ${name}`).toContain(name);
    }
    expect(Object.keys(en).filter((key) => en[key as Key] === ko[key as Key])).toEqual(["app.name"]);
  });

  it("leave no value unsaid", () => {
    for (const [locale, messages] of [["en", en], ["ko", ko]] as const) {
      for (const [key, message] of Object.entries(messages)) {
        const values = Object.fromEntries([...names(en[key as Key])].map((name) => [name, ["count", "entries", "primaries"].includes(name) ? 3 : "X"]));
        expect(format(message, values, locale), key).not.toMatch(/[{}#]/);
      }
    }
  });

  it("are all used: what nobody says is left out", () => {
    const text = sources(import.meta.dirname).join("\n");
    const isUsed = (key: string): boolean => text.includes(`"${key}"`) || text.includes(`'${key}'`) || PATTERNS.some((pattern) => pattern.test(key));
    expect(Object.keys(en).filter((key) => !isUsed(key))).toEqual([]);
  });
});

describe("paths", () => {
  it("lead to their page, and everything else to the first", () => {
    for (const page of PAGES) expect(pageOf(pathOf(page))).toBe(page);
    for (const path of ["/admin", "/admin/", "/admin/none", "/admin/queues/x"]) expect(pageOf(path)).toBe("cluster");
  });
});

describe("load", () => {
  it("is that of primaries; who leads nothing is there as well", () => {
    const loads = byNode([
      { primary: 2, replicas: [1, 2, 3], bytes: 300 },
      { primary: 2, replicas: [1, 2, 3], bytes: 100 },
      { primary: 1, replicas: [1, 2, 3], bytes: 100 },
      { primary: null, replicas: [1, 2, 4], bytes: 900 },
    ]);
    expect(loads).toEqual([
      { node: 1, primaries: 1, bytes: 100, part: 0.25 },
      { node: 2, primaries: 2, bytes: 400, part: 1 },
      { node: 3, primaries: 0, bytes: 0, part: 0 },
      { node: 4, primaries: 0, bytes: 0, part: 0 },
    ]);
    expect(byNode([])).toEqual([]);
  });
});

describe("words", () => {
  it("name sizes and times", () => {
    expect([0, 999, 1500, 25_000_000].map((count) => bytes(count, "en"))).toEqual(["0 B", "999 B", "1.5 kB", "25 MB"]);
    const now = Date.parse("2026-11-30T12:00:00Z");
    expect(ago("2026-11-30T11:57:30Z", "en", now)).toBe("2 minutes ago");
    expect(ago("2026-11-30T13:00:00Z", "en", now)).toBe("in 1 hour");
    expect(ago("2026-11-30T11:57:30Z", "ko", now)).toBe("2분 전");
  });
});
