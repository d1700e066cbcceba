import { describe, expect, it } from "vitest";

import { Problem, Unreachable, type Answer, type Ask } from "../api/client";
import { pause } from "../api/events";
import type { Summary } from "../api/types";
import { carriedBytes, emptyDraft, forgotFile, isBlank, sentHtml, sentText } from "../compose/draft";
import { BINDINGS, KeyReader } from "../keys/map";
import { bodyOf, WriteQueue } from "./queue";
import { nearest, others, originOf } from "./regions.svelte";
import { nameOf, parse, pathOf } from "./route.svelte";
import { collapsed, inverse, patched, patchedRow, reinserted, staysIn, withHead, type Row } from "./rows";

function message(id: string, more: Partial<Summary> = {}): Summary {
  return {
    id, thread_id: `t${id}`, folder_id: "1", from: { name: "Ada", email: "ada@a.example" }, to: [], subject: "S", preview: "P",
    date: "2026-11-30T12:00:00Z", is_read: false, is_flagged: false, keywords: [], labels: [], has_attachments: false, size: 1, ...more,
  };
}
const row = (id: string, more: Partial<Row> = {}): Row => ({ id: `t${id}`, message: message(id), total: 1, unread: 1, ...more });

describe("rows", () => {
  it("change and change back", () => {
    const before = message("1", { labels: ["7"] });
    const patch = { is_read: true, folder_id: "4", add: ["7", "8"], remove: ["9"] };
    const after = patched(before, patch);
    expect(after).toMatchObject({ is_read: true, folder_id: "4", labels: ["7", "8"] });
    const back = inverse(before, patch)!;
    expect(back).toEqual({ is_read: false, folder_id: "1", remove: ["8"] });
    expect(patched(after, back)).toEqual(before);
  });

  it("need no undoing where nothing was done", () => {
    expect(inverse(message("1", { is_read: true }), { is_read: true })).toBeNull();
  });

  it("leave a list when they leave its folder or lose its label", () => {
    expect(staysIn({ folder: "1", label: null }, { folder_id: "4" })).toBe(false);
    expect(staysIn({ folder: null, label: "7" }, { folder_id: "4" })).toBe(true);
    expect(staysIn({ folder: null, label: "7" }, { remove: ["7"] })).toBe(false);
    expect(staysIn({ folder: "1", label: null }, { is_read: true })).toBe(true);
    expect(staysIn({ folder: "6", label: null }, { destroy: true })).toBe(false);
  });

  it("count what was not read", () => {
    expect(patchedRow(row("1", { total: 4, unread: 3 }), { is_read: true }).unread).toBe(0);
    expect(patchedRow(row("1", { total: 4, unread: 0 }), { is_read: false }).unread).toBe(1);
  });

  it("come back where they were", () => {
    const ids = (rows: Row[]) => rows.map((one) => one.message.id).join("");
    expect(ids(reinserted([row("5"), row("3"), row("1")], [row("4"), row("2")], true))).toBe("54321");
    expect(ids(reinserted([], [row("4"), row("9")], true))).toBe("94");
    expect(ids(reinserted([row("5")], [row("9")], false))).toBe("95");
  });

  it("are as the head says and as they were behind it", () => {
    const ids = (rows: Row[]) => rows.map((one) => one.message.id).join("");
    const rows = [row("5"), row("4"), row("3"), row("2"), row("1")];
    expect(ids(withHead(rows, [row("6"), row("5"), row("3")], false))).toBe("65321");
    expect(ids(withHead(rows, [row("6")], true))).toBe("6");
    expect(withHead(rows, [], true)).toEqual([]);
  });

  it("are one for a conversation", () => {
    const found = collapsed([message("3", { thread_id: "a" }), message("2", { thread_id: "b" }), message("1", { thread_id: "a" })]);
    expect(found.map((one) => one.message.id)).toEqual(["3", "2"]);
  });
});

class Interface {
  readonly asked: { body: Record<string, unknown>; key: string | undefined }[] = [];
  answers: ((body: Record<string, unknown>) => void)[] = [];
  post<T>(_path: string, ask: Ask = {}): Promise<Answer<T>> {
    this.asked.push({ body: ask.body as Record<string, unknown>, key: ask.key });
    this.answers.shift()?.(ask.body as Record<string, unknown>);
    return Promise.resolve({ body: null as T, staleMs: null, modseq: 1 });
  }
}
const problem = (kind: string, status: number): Problem => new Problem(kind, status, { type: kind, title: kind, status }, null);

describe("changes on their way", () => {
  const make = (): { poster: Interface; queue: WriteQueue; told: boolean[] } => {
    const poster = new Interface();
    const told: boolean[] = [];
    return { poster, queue: new WriteQueue(poster, (_open, waits) => told.push(waits), () => 0), told };
  };

  it("that are alike go together", async () => {
    const { poster, queue } = make();
    await Promise.all([queue.add(["a"], { is_read: true }), queue.add(["b", "a"], { is_read: true }), queue.add(["a"], { is_flagged: true })]);
    expect(poster.asked.map((one) => one.body)).toEqual([{ ids: ["a", "b"], is_read: true }, { ids: ["a"], is_flagged: true }]);
    expect(queue.open).toBe(0);
  });

  it("keep their order", async () => {
    const { poster, queue } = make();
    await Promise.all([queue.add(["a"], { is_read: true }), queue.add(["a"], { is_read: false }), queue.add(["a"], { is_read: true })]);
    expect(poster.asked.map((one) => one.body["is_read"])).toEqual([true, false, true]);
  });

  it("are asked for once more when the page goes away, each under its key", async () => {
    const { poster, queue } = make();
    const first = queue.add(["a"], { is_read: true });
    void queue.add(["b"], { is_flagged: true });
    queue.leave();
    expect(poster.asked.map((one) => one.body)).toEqual([{ ids: ["a"], is_read: true }, { ids: ["b"], is_flagged: true }]);
    await first;
    queue.stop();
  });

  it("are asked again under the same key until they are answered", async () => {
    const { poster, queue, told } = make();
    const fail = (error: Error) => () => {
      throw error;
    };
    poster.answers = [fail(new Unreachable("gone")), fail(problem("outcome_unknown", 503))];
    await queue.add(["a"], { is_read: true });
    expect(poster.asked).toHaveLength(3);
    expect(new Set(poster.asked.map((one) => one.key)).size).toBe(1);
    expect(told).toContain(true);
  });

  it("are made without a message that is gone", async () => {
    const { poster, queue } = make();
    const check = (body: Record<string, unknown>): void => {
      if ((body["ids"] as string[]).includes("gone")) throw problem("not_found", 404);
    };
    poster.answers = Array.from({ length: 20 }, () => check);
    await queue.add(["a", "b", "gone", "c"], { is_read: true });
    const made = poster.asked.filter((one) => !(one.body["ids"] as string[]).includes("gone")).flatMap((one) => one.body["ids"] as string[]);
    expect(made.sort()).toEqual(["a", "b", "c"]);
  });

  it("that are refused say so", async () => {
    const { poster, queue } = make();
    poster.answers = [
      () => {
        throw problem("label_unknown", 422);
      },
    ];
    await expect(queue.add(["a"], { add: ["9"] })).rejects.toMatchObject({ kind: "label_unknown" });
  });

  it("of very many are several batches", async () => {
    const { poster, queue } = make();
    await queue.add(Array.from({ length: 2500 }, (_, index) => String(index)), { folder_id: "6" });
    expect(poster.asked.map((one) => (one.body["ids"] as string[]).length)).toEqual([1000, 1000, 500]);
  });

  it("are written as the interface takes them", () => {
    expect(bodyOf(["a"], { add: ["1"], remove: [] })).toEqual({ ids: ["a"], labels: { add: ["1"] } });
    expect(bodyOf(["a"], { destroy: true })).toEqual({ ids: ["a"], delete: true });
  });
});

describe("pauses", () => {
  it("grow and differ", () => {
    expect(pause(0, 0)).toBe(250);
    expect(pause(3, 1)).toBe(4000);
    expect(pause(99, 1)).toBe(30_000);
  });
});

describe("addresses of the page", () => {
  it("lead back to where they came from", () => {
    for (const path of ["/mail/inbox", "/mail/inbox/0123", "/mail/folder-12?show=unread", "/mail/label-3/ff", "/mail/search?q=from%3Aada+%22a+b%22", "/mail/search/ff?q=x", "/mail/starred", "/settings/account", "/login", "/sign-up"]) {
      const url = new URL(path, "http://x");
      expect(pathOf(parse(url.pathname, url.search))).toBe(path);
    }
  });
  it("that say nothing are the inbox", () => {
    expect(pathOf(parse("/", ""))).toBe("/mail/inbox");
    expect(pathOf(parse("/mail/%E0%A4%A", ""))).toMatch(/^\/mail\//);
    expect(nameOf({ kind: "folder", key: "7" })).toBe("folder-7");
  });
});

describe("keys", () => {
  const press = (key: string, code = "", shiftKey = false) => ({ key, code, shiftKey });
  it("mean what fingers know", () => {
    const reader = new KeyReader();
    expect(reader.read(press("j", "KeyJ"), 0)).toBe("next");
    expect(reader.read(press("#", "Digit3", true), 0)).toBe("trash");
    expect(reader.read(press("I", "KeyI", true), 0)).toBe("read");
    expect(reader.read(press("q", "KeyQ"), 0)).toBeNull();
  });
  it("come in twos, but not too late", () => {
    const reader = new KeyReader();
    expect(reader.read(press("g", "KeyG"), 0)).toBe("pending");
    expect(reader.read(press("i", "KeyI"), 500)).toBe("inbox");
    reader.read(press("g", "KeyG"), 1000);
    expect(reader.read(press("s", "KeyS"), 9000)).toBe("star");
  });
  it("work while Korean is typed", () => {
    const reader = new KeyReader();
    expect(reader.read(press("ㅓ", "KeyJ"), 0)).toBe("next");
    expect(reader.read(press("ㅎ", "KeyG"), 0)).toBe("pending");
    expect(reader.read(press("ㅑ", "KeyI"), 1)).toBe("inbox");
  });
  it("mean one thing each", () => {
    const all = BINDINGS.flatMap((binding) => binding.keys);
    expect(new Set(all).size).toBe(all.length);
  });
});

describe("drafts", () => {
  const answer = { ...emptyDraft(), text: "Yes.", quotedText: "Shall we?\n> before", quotedLine: "Bora wrote:", inReplyTo: "1" };
  it("quote what they answer", () => {
    expect(sentText(answer)).toBe("Yes.\n\nBora wrote:\n> Shall we?\n>> before\n");
    expect(sentHtml(answer)).toBeNull();
    expect(sentHtml({ ...answer, isRich: true, html: "<b>Yes</b>", quotedText: "<script>" })).toContain("&lt;script&gt;");
  });
  it("pass on as it was", () => {
    expect(sentText({ ...answer, inReplyTo: null, forwards: "1" })).toBe("Yes.\n\nBora wrote:\n\nShall we?\n> before\n");
  });
  it("that speak of a file have one", () => {
    expect(forgotFile({ ...emptyDraft(), text: "I attached the plan" })).toBe(true);
    expect(forgotFile({ ...emptyDraft(), text: "파일을 첨부합니다" })).toBe(true);
    expect(forgotFile({ ...answer, text: "Yes", quotedText: "see attachment" })).toBe(false);
  });
  it("are blank while nothing would be lost", () => {
    expect(isBlank(emptyDraft(), "")).toBe(true);
    expect(isBlank({ ...emptyDraft(), text: "\n\n-- \nAda" }, "Ada")).toBe(true);
    expect(isBlank({ ...emptyDraft(), subject: "x" }, "")).toBe(false);
    expect(isBlank({ ...answer, text: "" }, "")).toBe(true);
  });
  it("know what files weigh", () => {
    expect(carriedBytes([{ size: 3_000_000 }])).toBeGreaterThan(4_000_000);
  });
});

describe("other regions", () => {
  it("are those that can be led to, without this one", () => {
    const region = (name: string, url: string, here = false) => ({ name, url, here });
    const all = [region("seoul", "https://seoul.mail.example/", true), region("virginia", "https://virginia.mail.example/x"), region("again", "https://here.example"), region("odd", "javascript:alert(1)"), region("none", "")];
    const found = others(all, "https://here.example");
    expect(found).toEqual([{ name: "virginia", origin: "https://virginia.mail.example" }]);
    expect(originOf("data:text/html,x")).toBeNull();
  });

  it("are offered by how near they are, and only if they answer", async () => {
    const of = (...names: string[]) => names.map((name) => ({ name, origin: `https://${name}.example` }));
    const times: Record<string, number | null> = { "https://far.example": 240, "https://near.example": 12, "https://gone.example": null };
    expect(await nearest(of("far", "gone", "near"), async (origin) => times[origin] ?? null)).toEqual(of("near", "far"));
    expect(await nearest(of("far", "near"), async () => null)).toEqual(of("far", "near"));
  });
});
