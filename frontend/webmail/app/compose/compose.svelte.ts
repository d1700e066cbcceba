// Drafts that are open, drafts that are kept, and what is on its way out.
//
// Invariant: what was typed is in the browser's database within a second, and leaves it only when it was sent or thrown away. What is sent has one
// idempotency key from its first attempt to its answer, whatever page makes the attempt: it is never sent twice.
import { isPassing, newKey, Problem } from "../api/client";
import { pause } from "../api/events";
import type { Message } from "../api/types";
import { current, reasonOf, t } from "../i18n/index.svelte";
import { mailbox } from "../state/mailbox.svelte";
import { client } from "../state/session.svelte";
import { settings } from "../state/settings.svelte";
import { all, put, remove } from "../state/store";
import { dismiss, say } from "../state/toasts.svelte";
import { shortName } from "../text/people";
import { medium } from "../text/when";
import { answerDraft, emptyDraft, escaped, forwardDraft, isBlank, sentHtml, sentText, type Draft, type DraftFile } from "./draft";

/** How long typing may rest unsaved, ms. */
const SAVE_MS = 600;

interface Leaving {
  id: string;
  key: string;
  draft: Draft;
  /** Not before, ms since 1970. */
  at: number;
}

/** Two people may use one browser: each sees what is theirs. */
interface Owned {
  owner: string;
}

function owned<T extends { id: string }>(value: T): T & Owned {
  return { ...value, owner: mailbox.profile?.user_id ?? "" };
}

class Compose {
  /** Those that are open, the newest last. */
  open = $state<Draft[]>([]);
  /** Those that are kept and not open. */
  kept = $state.raw<Draft[]>([]);
  leaving = $state.raw<Leaving[]>([]);
  minimised = $state<Record<string, boolean>>({});
  errors = $state<Record<string, string>>({});
  savedAt = $state<Record<string, number>>({});
  readonly #timers = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #sending = new Set<string>();

  async load(): Promise<void> {
    try {
      const owner = mailbox.profile?.user_id ?? "";
      const mine = <T extends Owned>(of: T[]): T[] => of.filter((one) => one.owner === owner);
      this.kept = mine(await all<Draft & Owned>("drafts")).sort((a, b) => b.changedAt - a.changedAt);
      for (const item of mine(await all<Leaving & Owned>("outbox"))) {
        this.leaving = [...this.leaving, item];
        this.#schedule(item);
      }
    } catch {
      // A browser without a database: drafts live as long as the page.
    }
  }

  forget(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.open = [];
    this.kept = [];
    this.leaving = [];
  }

  get signature(): string {
    return mailbox.profile?.signature ?? "";
  }

  #signed(draft: Draft): Draft {
    const signature = this.signature.trim();
    if (!signature) return draft;
    const lines = signature.split("\n").map(escaped).join("<br>");
    return { ...draft, html: `<p></p><p>-- <br>${lines}</p>`, text: `\n\n-- \n${signature}` };
  }

  #show(draft: Draft): void {
    const there = this.open.find((one) => one.thread !== null && one.thread === draft.thread);
    if (there && draft.thread) {
      // An answer that has begun is not thrown away for another kind of answer, but when nothing was written yet.
      if (!isBlank(there, this.signature)) return;
      this.open = this.open.filter((one) => one !== there);
    }
    this.open = [...this.open, draft];
  }

  write(to: { name: string; email: string }[] = []): void {
    this.#show({ ...this.#signed(emptyDraft()), to });
  }

  answer(message: Message, all: boolean): void {
    const line = t("write.quoteLine", { date: medium(message.date, current()), name: shortName(message.from) });
    this.#show(this.#signed(answerDraft(message, mailbox.addresses, all, line)));
  }

  async forward(message: Message): Promise<void> {
    const words = { line: t("write.forwardLine"), from: t("read.from"), date: t("read.date"), subject: t("write.subject"), to: t("read.toLabel") };
    const date = medium(message.date, current());
    try {
      const files = await Promise.all(
        message.attachments.map(async (file): Promise<DraftFile> => {
          const data = await client.file(`/v1/messages/${message.id}/attachments/${file.id}`);
          return { id: newKey(), name: file.filename || t("read.unnamed"), type: file.content_type, size: data.size, data };
        }),
      );
      this.#show(this.#signed(forwardDraft(message, files, words, date)));
    } catch (error) {
      say(t("did.failed", { reason: reasonOf(error) }), { tone: "bad" });
    }
  }

  resume(draft: Draft): void {
    this.kept = this.kept.filter((one) => one.id !== draft.id);
    this.open = [...this.open.filter((one) => one.id !== draft.id), { ...draft, thread: null }];
  }

  /** Something was typed: it is in the database soon. */
  changed(draft: Draft): void {
    draft.changedAt = Date.now();
    delete this.errors[draft.id];
    clearTimeout(this.#timers.get(draft.id));
    this.#timers.set(draft.id, setTimeout(() => void this.save(draft), SAVE_MS));
  }

  async save(draft: Draft): Promise<void> {
    clearTimeout(this.#timers.get(draft.id));
    this.#timers.delete(draft.id);
    if (isBlank(draft, this.signature)) return;
    try {
      await put("drafts", owned($state.snapshot(draft) as Draft));
      this.savedAt[draft.id] = Date.now();
    } catch {
      // Kept in the page.
    }
  }

  /** What is typed and not saved yet: the page goes away. */
  saveAll(): void {
    for (const draft of this.open) if (this.#timers.has(draft.id)) void this.save(draft);
  }

  async close(draft: Draft): Promise<void> {
    await this.save(draft);
    this.open = this.open.filter((one) => one.id !== draft.id);
    if (isBlank(draft, this.signature)) await remove("drafts", draft.id).catch(() => {});
    else this.kept = [$state.snapshot(draft) as Draft, ...this.kept.filter((one) => one.id !== draft.id)];
  }

  discard(draft: Draft): void {
    clearTimeout(this.#timers.get(draft.id));
    this.#timers.delete(draft.id);
    const copy = $state.snapshot(draft) as Draft;
    this.open = this.open.filter((one) => one.id !== draft.id);
    this.kept = this.kept.filter((one) => one.id !== draft.id);
    void remove("drafts", draft.id).catch(() => {});
    if (isBlank(copy, this.signature)) return;
    const back = (): void => {
      this.open = [...this.open, copy];
      void this.save(copy);
    };
    say(t("write.discarded"), { action: { label: t("act.undo"), run: back } });
  }

  // --- on its way out -----------------------------------------------------------------------------------------------

  async send(draft: Draft): Promise<void> {
    clearTimeout(this.#timers.get(draft.id));
    this.#timers.delete(draft.id);
    const copy = $state.snapshot(draft) as Draft;
    const wait = settings.undoSeconds * 1000;
    const item: Leaving = { id: copy.id, key: newKey(), draft: copy, at: Date.now() + wait };
    this.open = this.open.filter((one) => one.id !== draft.id);
    this.leaving = [...this.leaving, item];
    // First into the outbox, then out of the drafts: a page that dies between has it twice, not never.
    await put("outbox", owned(item)).catch(() => {});
    await remove("drafts", copy.id).catch(() => {});
    say(t("write.waits"), { id: item.id, ms: wait + 500, action: { label: t("act.undo"), run: () => void this.#unsend(item) } });
    this.#schedule(item);
  }

  async #unsend(item: Leaving): Promise<void> {
    if (this.#sending.has(item.id)) return;
    clearTimeout(this.#timers.get(item.id));
    await this.#left(item);
    this.open = [...this.open, item.draft];
    void this.save(item.draft);
    say(t("write.unsent"));
  }

  async #left(item: Leaving): Promise<void> {
    this.leaving = this.leaving.filter((one) => one.id !== item.id);
    await remove("outbox", item.id).catch(() => {});
  }

  #schedule(item: Leaving): void {
    clearTimeout(this.#timers.get(item.id));
    this.#timers.set(item.id, setTimeout(() => void this.#attempt(item, 0), Math.max(0, item.at - Date.now())));
  }

  /** The network is back. */
  hurry(): void {
    for (const item of this.leaving) if (item.at <= Date.now() && !this.#sending.has(item.id)) void this.#attempt(item, 0);
  }

  async #attempt(item: Leaving, attempt: number): Promise<void> {
    if (this.#sending.has(item.id)) return;
    this.#sending.add(item.id);
    try {
      await client.post("/v1/messages", { key: item.key, body: await outgoing(item.draft) });
      this.#sending.delete(item.id);
      await this.#left(item);
      say(t("write.sent"), { id: item.id });
      if (item.draft.forwards) await markForwarded(item.draft.forwards);
    } catch (error) {
      this.#sending.delete(item.id);
      if (isPassing(error)) {
        if (attempt === 0) say(t("write.queued"), { id: item.id });
        this.#timers.set(item.id, setTimeout(() => void this.#attempt(item, attempt + 1), pause(attempt)));
        return;
      }
      // The session is over: it stays in the outbox and leaves after the next log-in.
      if (error instanceof Problem && error.kind === "unauthenticated") return;
      dismiss(item.id);
      await this.#left(item);
      this.open = [...this.open, item.draft];
      void this.save(item.draft);
      this.errors[item.draft.id] = whyNot(error);
    }
  }
}

async function outgoing(draft: Draft): Promise<Record<string, unknown>> {
  const files = await Promise.all(draft.files.map(async (file) => ({ filename: file.name, content_type: file.type || "application/octet-stream", data: await base64(file.data) })));
  const html = sentHtml(draft);
  return {
    to: draft.to,
    cc: draft.cc,
    bcc: draft.bcc,
    subject: draft.subject,
    body: sentText(draft),
    ...(html === null ? {} : { body_html: html }),
    ...(files.length > 0 ? { attachments: files } : {}),
    ...(draft.inReplyTo ? { in_reply_to: draft.inReplyTo } : {}),
  };
}

async function markForwarded(id: string): Promise<void> {
  await client.patch(`/v1/messages/${id}`, { body: { keywords: { add: ["$forwarded"] } } }).catch(() => {});
}

function base64(data: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, ""));
    reader.onerror = () => reject(reader.error ?? new Error("a file cannot be read"));
    reader.readAsDataURL(data);
  });
}

function whyNot(error: unknown): string {
  if (error instanceof Problem) {
    const named = error.document["recipients"] ?? error.document["addresses"];
    const addresses = Array.isArray(named) ? named.map((one) => (typeof one === "string" ? one : String((one as { email?: string }).email ?? ""))).join(", ") : "";
    if (error.kind === "recipient_unknown" && addresses) return t("write.unknown", { addresses });
    if (error.kind === "recipient_outside" && addresses) return t("write.outside", { addresses });
  }
  return t("write.failed", { reason: reasonOf(error) });
}

export const compose = new Compose();
addEventListener("online", () => compose.hurry());
addEventListener("pagehide", () => compose.saveAll());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") compose.saveAll();
});
