import { describe, expect, it } from "vitest";

import { Problem, Unreachable, type Answer, type Ask } from "../api/client";
import type { Message, ThreadMessage } from "../api/types";
import { offers } from "../text/later";
import { emptyDraft, isSaved, restored, sentHtml, sentText, type Conflict, type Draft } from "./draft";
import { isUnsure, KEY_MS, leavingOf, timesOf } from "./leaving";
import { draftOf } from "./resume";
import { Saver, type Keeper } from "./saver";

function refused(kind: string, status = 404): Problem {
  return new Problem(kind, status, { type: kind, title: kind, status }, null);
}

/** An interface that keeps drafts, and loses what it is told to. */
class Drafts implements Keeper {
  readonly asked: { path: string; key: string; subject: string }[] = [];
  readonly made = new Map<string, string>();
  readonly there = new Set<string>();
  /** What happens to the next requests: refused before, or its answer lost behind. */
  next: ("lost" | Error | undefined)[] = [];
  #count = 0;

  async #ask<T>(path: string, ask: Ask = {}): Promise<Answer<T>> {
    const key = ask.key!;
    this.asked.push({ path, key, subject: String((ask.body as { subject: string }).subject) });
    const fate = this.next.shift();
    if (fate instanceof Error) throw fate;
    let id = this.made.get(key);
    if (id === undefined) {
      const replaced = /^\/v1\/drafts\/(.+)$/.exec(path)?.[1];
      if (replaced && !this.there.delete(replaced)) throw refused("not_found");
      id = `d${++this.#count}`;
      this.made.set(key, id);
      this.there.add(id);
    }
    if (fate === "lost") throw new Unreachable("lost");
    return { body: { id, thread_id: "t" } as T, staleMs: null, modseq: null };
  }
  post<T>(path: string, ask?: Ask): Promise<Answer<T>> {
    return this.#ask(path, ask);
  }
  put<T>(path: string, ask?: Ask): Promise<Answer<T>> {
    return this.#ask(path, ask);
  }
}

function saverOf(client: Drafts, fate: Conflict = { how: "gone", theirs: null }): { saver: Saver; kept: Draft[] } {
  const kept: Draft[] = [];
  const outgoing = (draft: Draft) => Promise.resolve({ body: { subject: draft.subject }, version: draft.version });
  const keep = (draft: Draft): Promise<void> => Promise.resolve(void kept.push(structuredClone(draft)));
  return { saver: new Saver({ client, outgoing, keep, whatBecame: () => fate, lost: () => {} }), kept };
}

const typed = (subject: string): Draft => ({ ...emptyDraft(), subject, version: 1 });

describe("drafts on their way to the mailbox", () => {
  it("are made once and replaced from then on", async () => {
    const client = new Drafts();
    const { saver } = saverOf(client);
    const draft = typed("a");
    await saver.save(draft);
    expect([draft.serverId, isSaved(draft)]).toEqual(["d1", true]);
    await saver.save(draft);
    draft.subject = "ab";
    draft.version += 1;
    await saver.save(draft);
    expect(client.asked.map((one) => one.path)).toEqual(["/v1/drafts", "/v1/drafts/d1"]);
    expect([...client.there]).toEqual(["d2"]);
  });

  it("are not made twice when an answer is lost, nor by the page that comes after", async () => {
    const client = new Drafts();
    client.next = ["lost"];
    const first = saverOf(client);
    const draft = typed("a");
    await expect(first.saver.save(draft)).rejects.toBeInstanceOf(Unreachable);
    // The page dies; what it had written down is taken up by another one, and more was written meanwhile.
    const again = restored(first.kept.at(-1)!);
    again.subject = "abc";
    again.version += 1;
    await saverOf(client).saver.save(again);
    expect([...client.there]).toEqual([again.serverId]);
    expect(client.asked.map((one) => one.subject)).toEqual(["a", "a", "abc"]);
    expect(client.asked[0]!.key).toBe(client.asked[1]!.key);
  });

  it("of two devices are both kept, and it is told", async () => {
    const client = new Drafts();
    const mine = typed("mine");
    const { saver } = saverOf(client, { how: "changed", theirs: "d9" });
    await saver.save(mine);
    const theirs = { ...structuredClone(mine), id: "other", subject: "theirs", version: 2 };
    await saverOf(client).saver.save(theirs);
    mine.subject = "mine, more";
    mine.version += 1;
    await saver.save(mine);
    expect(mine.conflict).toEqual({ how: "changed", theirs: "d9" });
    expect([...client.there].sort()).toEqual([theirs.serverId, mine.serverId].sort());
  });

  it("wait while nothing can be saved, and say so", async () => {
    const client = new Drafts();
    client.next = [refused("no_quorum", 503), refused("invalid_body", 422)];
    const { saver } = saverOf(client);
    const draft = typed("a");
    await expect(saver.save(draft)).rejects.toMatchObject({ kind: "no_quorum" });
    expect(draft.saving).not.toBeNull();
    await expect(saver.save(draft)).rejects.toMatchObject({ kind: "invalid_body" });
    expect(draft.saving).toBeNull();
    await saver.save(draft);
    expect(isSaved(draft)).toBe(true);
  });
});

describe("a draft of the mailbox", () => {
  const message = (more: Partial<Message>): Message =>
    ({ id: "m", thread_id: "t", to: [], cc: [], bcc: [], subject: "S", date: "2026-11-30T12:00:00Z", attachments: [], body: null, body_html: null, ...more }) as unknown as Message;
  const within = [{ id: "q", parent_id: null }, { id: "m", parent_id: "q" }] as unknown as ThreadMessage[];
  const answer: Draft = { ...emptyDraft(), text: "Yes.\n\nAda", quotedText: "Is it?\n> Was it?", quotedLine: "On Monday, Bora wrote:", inReplyTo: "q" };

  it("is written on where it was left: plain text", () => {
    const again = draftOf(message({ body: sentText(answer) }), within);
    expect(again).toMatchObject({ text: answer.text, quotedText: answer.quotedText, quotedLine: answer.quotedLine, inReplyTo: "q", serverId: "m" });
    expect(sentText(again)).toBe(sentText(answer));
    expect(isSaved(again)).toBe(true);
  });

  it("is written on where it was left: HTML", () => {
    const rich = { ...answer, isRich: true, html: "<div><strong>Yes.</strong></div><div>Ada</div>" };
    const again = draftOf(message({ body: sentText(rich), body_html: sentHtml(rich) }), within);
    expect(again).toMatchObject({ html: rich.html, quotedText: rich.quotedText, quotedLine: rich.quotedLine, isRich: true });
    expect(sentHtml(again)).toBe(sentHtml(rich));
  });

  it("without a quotation is all of it one's own, whatever it looks like", () => {
    for (const body of ["", "Hello", "> only quoted", "On Monday, Bora wrote:\n> this\nand then more"]) {
      const again = draftOf(message({ body }), []);
      expect([again.text, again.quotedText, again.inReplyTo]).toEqual([body, "", null]);
    }
  });
});

describe("what is sent", () => {
  it("can be taken back for a moment, or has its time", () => {
    const item = leavingOf(emptyDraft(), 0, 10, null);
    expect(timesOf(item)).toEqual({ undo_s: 10 });
    expect(timesOf({ ...item, holdUntil: 1 })).toEqual({});
    expect(timesOf({ ...item, sendAt: "2026-12-01T08:00:00Z" })).toEqual({ send_at: "2026-12-01T08:00:00Z" });
  });
  it("is not asked for again when nobody knows any more what became of it", () => {
    const item = leavingOf(emptyDraft(), 0, 10, null);
    expect(isUnsure(item, 1e12)).toBe(false);
    const asked = { ...item, request: { key: "k", path: "/v1/messages", body: {}, askedAt: 1000 } };
    expect([isUnsure(asked, 1000 + KEY_MS), isUnsure(asked, 1001 + KEY_MS)]).toEqual([false, true]);
  });
  it("later is offered at times that are to come, each once", () => {
    const names = (now: Date): string[] => offers(now).map((offer) => offer.key.slice(6));
    expect(names(new Date(2026, 10, 30, 9))).toEqual(["today", "morning", "afternoon", "monday"]);
    expect(names(new Date(2026, 10, 30, 15))).toEqual(["morning", "afternoon", "monday"]);
    expect(names(new Date(2026, 10, 29, 15))).toEqual(["morning", "afternoon"]);
    for (let day = 1; day < 15; day += 1) for (const offer of offers(new Date(2026, 10, day, 15))) expect(offer.at > new Date(2026, 10, day, 15)).toBe(true);
  });
});
