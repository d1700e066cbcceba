// What somebody has sent, from there until the interface has it; and how it is taken back.
//
// Invariant: what is sent has one idempotency key from its first attempt to its answer, whatever page makes the attempt, and is written down under it
// before it is asked for: it is never sent twice.
import { isPassing, newKey, Problem } from "../api/client";
import { pause } from "../api/events";
import type { Cancelled, SentReceipt } from "../api/types";
import { current, reasonOf, t } from "../i18n/index.svelte";
import { outbox } from "../state/outbox.svelte";
import { client } from "../state/session.svelte";
import { settings } from "../state/settings.svelte";
import { put, remove } from "../state/store";
import { dismiss, say, UNDO_MS } from "../state/toasts.svelte";
import { medium } from "../text/when";
import { compose, mine, owned } from "./compose.svelte";
import { restored, isSaved, type Draft } from "./draft";
import { isUnsure, leavingOf, timesOf, type Leaving } from "./leaving";
import { taken } from "./lock";
import { outgoing } from "./outgoing";
import { uploads } from "./uploads.svelte";

class Sending {
  /** What the interface has not got yet. */
  leaving = $state<Leaving[]>([]);
  readonly #timers = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #running = new Set<string>();
  readonly #locks = new Map<string, () => void>();

  /** What a page that is no more has left behind. */
  async load(): Promise<void> {
    try {
      for (const kept of await mine<Leaving>("outbox")) {
        if (this.leaving.some((one) => one.id === kept.id)) continue;
        const release = await taken(kept.id);
        if (!release || this.leaving.some((one) => one.id === kept.id)) continue;
        this.#locks.set(kept.id, release);
        this.leaving.push({ ...leavingOf(restored(kept.draft), Date.now(), 0, null), ...kept, draft: restored(kept.draft) });
        void this.#attempt(this.leaving.at(-1)!, 0);
      }
    } catch {
      // A browser without a database.
    }
  }

  forget(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    for (const release of this.#locks.values()) release();
    this.#locks.clear();
    this.leaving = [];
  }

  /** `sendAt` is RFC 3339; null sends at once, which can be taken back for a moment. */
  async send(draft: Draft, sendAt: string | null = null): Promise<void> {
    compose.release(draft);
    this.leaving.push(leavingOf(draft, Date.now(), sendAt === null ? settings.undoSeconds : 0, sendAt));
    const item = this.leaving.at(-1)!;
    // First into the outbox, then out of the drafts: a page that dies between has it twice, not never.
    await this.#write(item);
    await remove("drafts", item.id).catch(() => {});
    say(t(sendAt === null ? "write.waits" : "write.scheduling"), { id: item.id, ms: UNDO_MS * 60, action: { label: t("act.undo"), run: () => void this.unsend(item) } });
    await this.#attempt(item, 0);
  }

  async keeps(draft: Draft): Promise<void> {
    const item = this.leaving.find((one) => one.id === draft.id);
    if (item) await this.#write(item);
  }

  async #write(item: Leaving): Promise<void> {
    await put("outbox", owned($state.snapshot(item) as Leaving)).catch(() => {});
  }

  async #left(item: Leaving): Promise<void> {
    clearTimeout(this.#timers.get(item.id));
    this.#timers.delete(item.id);
    this.leaving = this.leaving.filter((one) => one.id !== item.id);
    await remove("outbox", item.id).catch(() => {});
    this.#locks.get(item.id)?.();
    this.#locks.delete(item.id);
    compose.leave(item.id);
  }

  /** The network is back. */
  hurry(): void {
    void this.load();
    for (const item of this.leaving) if (!this.#running.has(item.id)) void this.#attempt(item, 0);
  }

  /** Takes it back: at once while nothing was asked for, else when it is known what became of that. */
  async unsend(item: Leaving): Promise<void> {
    item.unsend = true;
    await this.#write(item);
    if (item.request === null) {
      await this.#back(item, null);
      say(t("write.unsent"));
    } else {
      say(t("write.takingBack"), { id: item.id, ms: UNDO_MS });
      await this.#attempt(item, 0);
    }
  }

  async #back(item: Leaving, why: string | null): Promise<void> {
    dismiss(item.id);
    await this.#left(item);
    compose.reopen(item.draft, why);
  }

  async #attempt(item: Leaving, attempt: number): Promise<void> {
    if (this.#running.has(item.id) || !this.leaving.includes(item)) return;
    const rest = item.holdUntil - Date.now();
    if (rest > 0) return this.#later(item, 0, rest);
    if (isUnsure(item, Date.now())) return this.#back(item, t("write.unsure"));
    this.#running.add(item.id);
    try {
      await this.#ask(item);
    } catch (error) {
      this.#running.delete(item.id);
      await this.#failed(item, attempt, error);
    } finally {
      this.#running.delete(item.id);
    }
  }

  #later(item: Leaving, attempt: number, ms: number): void {
    clearTimeout(this.#timers.get(item.id));
    this.#timers.set(item.id, setTimeout(() => void this.#attempt(item, attempt), ms));
  }

  async #ask(item: Leaving): Promise<void> {
    if (item.request === null) {
      const plan = await this.#plan(item.draft);
      // It was taken back while its files were on their way.
      if (item.unsend || !this.leaving.includes(item)) return;
      item.request = { key: newKey(), path: plan.path, body: { ...plan.body, ...timesOf(item) }, askedAt: Date.now() };
      await this.#write(item);
    }
    const { key, path, body } = item.request;
    const receipt = (await client.post<SentReceipt>(path, { key, body: Object.keys(body).length === 0 ? undefined : body })).body;
    outbox.refreshSoon();
    const { draft } = item;
    await this.#left(item);
    if (draft.forwards) void client.patch(`/v1/messages/${draft.forwards}`, { body: { keywords: { add: ["$forwarded"] } } }).catch(() => {});
    if (item.unsend) await this.#cancel(draft, receipt);
    else this.#told(item, receipt);
  }

  /** What is asked: the mailbox's draft is sent where it has all of it, since sending takes it out of the drafts in the same moment. */
  async #plan(draft: Draft): Promise<{ path: string; body: Record<string, unknown> }> {
    if (draft.serverId === null && draft.saving === null) return { path: "/v1/messages", body: (await outgoing(draft)).body };
    const known = draft.conflict !== null;
    if (!isSaved(draft)) await compose.saver.save(draft);
    if (draft.conflict !== null && !known) throw new Elsewhere();
    return { path: `/v1/drafts/${draft.serverId}/send`, body: {} };
  }

  #told(item: Leaving, receipt: SentReceipt): void {
    const id = item.id;
    const action = { label: t("act.undo"), run: () => void this.#cancel(item.draft, receipt) };
    if (item.sendAt !== null) say(t("write.scheduled", { date: medium(item.sendAt, current()) }), { id, action });
    else if (receipt.outbox_id === null || receipt.outbox_id === undefined || item.request?.body["undo_s"] === undefined) say(t("write.sent"), { id });
    else say(t("write.sent"), { id, ms: item.undoS * 1000, action });
  }

  /** Takes back what the interface has. */
  async #cancel(draft: Draft, receipt: SentReceipt): Promise<void> {
    const key = newKey();
    for (let attempt = 0; ; attempt += 1) {
      try {
        if (!receipt.outbox_id) throw new Problem("too_late", 409, { type: "", title: "", status: 409 }, null);
        const { body } = await client.post<Cancelled>(`/v1/outbox/${receipt.outbox_id}/cancel`, { key });
        const there = body.draft_id ?? null;
        const version = draft.version + 1;
        // Its copy in Sent is the draft again.
        compose.reopen({ ...draft, serverId: there, saving: null, conflict: null, version, savedVersion: there === null ? -1 : version }, null);
        say(t("write.unsent"));
        outbox.refreshSoon();
        return;
      } catch (error) {
        if (!isPassing(error)) {
          say(error instanceof Problem && (error.kind === "too_late" || error.kind === "not_found") ? t("write.tooLate") : t("did.failed", { reason: reasonOf(error) }), { tone: "bad" });
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, pause(attempt)));
      }
    }
  }

  async #failed(item: Leaving, attempt: number, error: unknown): Promise<void> {
    if (!this.leaving.includes(item)) return;
    if (isPassing(error)) {
      if (attempt === 0) say(t("write.queued"), { id: item.id, action: { label: t("act.undo"), run: () => void this.unsend(item) } });
      const after = error instanceof Problem ? (error.retryAfterMs ?? 0) : 0;
      return this.#later(item, attempt + 1, Math.max(after, pause(attempt)));
    }
    // The session is over: it stays here and leaves after the next log-in.
    if (error instanceof Problem && error.kind === "unauthenticated") return;
    const refused = error instanceof Problem ? error.kind : "";
    item.request = null;
    if (refused === "not_available_yet" && item.sendAt === null && item.holdUntil === 0) {
      // Somebody of another residency zone gets it, and there nothing can be taken back: this page keeps it until it is sure.
      item.holdUntil = Date.now() + item.undoS * 1000;
      await this.#write(item);
      say(t("write.waits"), { id: item.id, ms: item.undoS * 1000, action: { label: t("act.undo"), run: () => void this.unsend(item) } });
      return this.#later(item, 0, item.undoS * 1000);
    }
    if (refused === "upload_unknown" && attempt === 0) {
      uploads.lost(item.draft.files);
      return this.#later(item, 1, 0);
    }
    if (refused === "reply_unknown" && item.draft.inReplyTo !== null) {
      item.draft.inReplyTo = null;
      return this.#later(item, attempt, 0);
    }
    const isGone = error instanceof Elsewhere || (refused === "not_found" && item.draft.serverId !== null);
    if (isGone && item.draft.conflict === null) {
      item.draft.conflict = { how: "gone", theirs: null };
      item.draft.serverId = null;
      item.draft.savedVersion = -1;
    }
    await this.#back(item, isGone ? t("write.elsewhere") : whyNot(error));
  }
}

/** The draft is not as it was: somebody else has changed it, sent it or thrown it away. */
class Elsewhere extends Error {}

function whyNot(error: unknown): string {
  if (error instanceof Problem) {
    const named = error.document["recipients"] ?? error.document["addresses"];
    const addresses = Array.isArray(named) ? named.map((one) => (typeof one === "string" ? one : String((one as { email?: string }).email ?? ""))).join(", ") : "";
    if (error.kind === "recipient_unknown" && addresses) return t("write.unknown", { addresses });
  }
  return t("write.failed", { reason: reasonOf(error) });
}

export const sending = new Sending();
compose.keepsSent = (draft) => sending.keeps(draft);
addEventListener("online", () => sending.hurry());
