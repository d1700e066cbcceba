// Drafts that are open, and those that are closed and not in the mailbox yet.
//
// Invariant: what was typed is in the browser's database within a second, and leaves it only when the mailbox has it, or when it was thrown away.
import { isPassing, Problem } from "../api/client";
import { pause } from "../api/events";
import type { Change, Message } from "../api/types";
import { current, reasonOf, t } from "../i18n/index.svelte";
import { mailbox } from "../state/mailbox.svelte";
import { mailHere } from "../state/route.svelte";
import { client } from "../state/session.svelte";
import { all, put, remove } from "../state/store";
import { bodyOf, messagesOf } from "../state/thread.svelte";
import { say } from "../state/toasts.svelte";
import { shortName } from "../text/people";
import { medium } from "../text/when";
import { answerDraft, emptyDraft, escaped, forwardDraft, isBlank, isSaved, restored, type Conflict, type Draft } from "./draft";
import { taken } from "./lock";
import { outgoing } from "./outgoing";
import { draftOf } from "./resume";
import { Saver } from "./saver";
import { uploads } from "./uploads.svelte";

/** How long typing may rest before it is in the browser's database, ms. */
const KEEP_MS = 600;
/** How long it may rest before it is in the mailbox, ms; with larger files, which each version writes anew, longer. */
const SAVE_MS = 1_800;
const SAVE_LARGE_MS = 8_000;
const LARGE_BYTES = 1024 * 1024;
/** Who never rests is saved so often all the same, ms. */
const SAVE_MS_MAX = 12_000;
/** What became of so many drafts is remembered. */
const FATES_MAX = 300;

export type Standing = "saving" | "saved" | "local" | "updated";

/** Two people may use one browser: each sees what is theirs. */
interface Owned {
  owner: string;
}

export function owned<T extends { id: string }>(value: T): T & Owned {
  return { ...value, owner: mailbox.profile?.user_id ?? "" };
}

export async function mine<T extends { id: string }>(shelf: "drafts" | "outbox"): Promise<T[]> {
  const owner = mailbox.profile?.user_id ?? "";
  return (await all<T & Owned>(shelf)).filter((one) => one.owner === owner);
}

class Compose {
  /** Those that are open, the newest last. */
  open = $state<Draft[]>([]);
  /** Those that are closed, and the mailbox has not got yet. */
  kept = $state<Draft[]>([]);
  minimised = $state<Record<string, boolean>>({});
  errors = $state<Record<string, string>>({});
  standing = $state<Record<string, Standing>>({});
  readonly #keeping = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #saving = new Map<string, { timer: ReturnType<typeof setTimeout>; since: number }>();
  readonly #locks = new Map<string, () => void>();
  /** Messages that went, and what came in their place. */
  readonly #fates = new Map<string, Conflict>();
  readonly saver = new Saver({
    client,
    outgoing,
    keep: (draft) => (this.#find(draft.id) ? this.#write(draft) : this.keepsSent(draft)),
    whatBecame: (id) => this.#fates.get(id) ?? { how: "gone", theirs: null },
    lost: (files) => uploads.lost(files),
  });

  /** Where a draft is kept that is on its way out. */
  keepsSent: (draft: Draft) => Promise<void> = () => Promise.resolve();

  /** What a page that is no more has left behind. */
  async load(): Promise<void> {
    try {
      for (const kept of await mine<Draft>("drafts")) {
        if (this.#find(kept.id)) continue;
        // Another tab looks after what it has open.
        if (!(await this.#take(kept.id)) || this.#find(kept.id)) continue;
        this.kept.push(restored(kept));
        const draft = this.kept.at(-1)!;
        this.standing[draft.id] = "local";
        void this.#save(draft, 0);
      }
    } catch {
      // A browser without a database: drafts live as long as the page, and in the mailbox.
    }
  }

  forget(): void {
    for (const timer of this.#keeping.values()) clearTimeout(timer);
    for (const { timer } of this.#saving.values()) clearTimeout(timer);
    this.#keeping.clear();
    this.#saving.clear();
    for (const id of [...this.#locks.keys()]) this.leave(id);
    uploads.forget();
    this.open = [];
    this.kept = [];
  }

  get signature(): string {
    return mailbox.profile?.signature ?? "";
  }

  #find(id: string): Draft | undefined {
    return this.open.find((one) => one.id === id) ?? this.kept.find((one) => one.id === id);
  }

  async #take(id: string): Promise<boolean> {
    if (this.#locks.has(id)) return true;
    const release = await taken(id);
    if (release) this.#locks.set(id, release);
    return release !== null;
  }

  leave(id: string): void {
    this.#locks.get(id)?.();
    this.#locks.delete(id);
  }

  #signed(draft: Draft): Draft {
    const signature = this.signature.trim();
    if (!signature) return draft;
    const lines = signature.split("\n").map(escaped).join("<br>");
    return { ...draft, html: `<p></p><p>-- <br>${lines}</p>`, text: `\n\n-- \n${signature}` };
  }

  /** Opens it; gives it as it is from then on. */
  show(draft: Draft): Draft {
    const there = this.open.find((one) => one.thread !== null && one.thread === draft.thread);
    if (there && draft.thread) {
      // An answer that has begun is not thrown away for another kind of answer, but when nothing was written yet.
      if (!isBlank(there, this.signature)) return there;
      this.open = this.open.filter((one) => one !== there);
    }
    this.open.push(draft);
    void this.#take(draft.id);
    return this.open.at(-1)!;
  }

  write(to: { name: string; email: string }[] = []): void {
    this.show({ ...this.#signed(emptyDraft()), to });
  }

  answer(message: Message, everybody: boolean): void {
    const line = t("write.quoteLine", { date: medium(message.date, current()), name: shortName(message.from) });
    this.show(this.#signed(answerDraft(message, mailbox.addresses, everybody, line)));
  }

  forward(message: Message): void {
    const words = { line: t("write.forwardLine"), from: t("read.from"), date: t("read.date"), subject: t("write.subject"), to: t("read.toLabel") };
    const draft = this.show(this.#signed(forwardDraft(message, t("read.unnamed"), words, medium(message.date, current()))));
    for (const file of draft.files) uploads.begin(file);
  }

  resume(draft: Draft): void {
    this.kept = this.kept.filter((one) => one.id !== draft.id);
    if (!this.open.some((one) => one.id === draft.id)) this.open.push(draft);
    draft.thread = null;
    this.minimised[draft.id] = false;
  }

  /** A draft of the mailbox. `thread` is the conversation below which it is shown. */
  async resumeMessage(id: string, thread: string | null = null): Promise<void> {
    const there = [...this.open, ...this.kept].find((one) => one.serverId === id);
    if (there) return this.resume(there);
    try {
      const message = await bodyOf(id);
      const draft = draftOf(message, await messagesOf(message.thread_id));
      if (this.open.some((one) => one.serverId === id)) return;
      this.#fetch(this.show({ ...draft, thread }));
    } catch (error) {
      say(t("did.failed", { reason: reasonOf(error) }), { tone: "bad" });
    }
  }

  /** Its files are here before anybody replaces the version that has them. */
  #fetch(draft: Draft): void {
    for (const file of draft.files) {
      uploads.content(file).catch(() => {
        // Whoever saves or sends the draft is told.
      });
    }
  }

  /** Whether a message of the mailbox is a draft that is open here. */
  isOpen(id: string): boolean {
    return this.open.some((one) => one.serverId === id);
  }

  // --- keeping ------------------------------------------------------------------------------------------------------

  /** Something was written. */
  changed(draft: Draft): void {
    draft.changedAt = Date.now();
    draft.version += 1;
    delete this.errors[draft.id];
    if (this.standing[draft.id] === "updated" || this.standing[draft.id] === "saved") delete this.standing[draft.id];
    clearTimeout(this.#keeping.get(draft.id));
    this.#keeping.set(draft.id, setTimeout(() => void this.#keep(draft), KEEP_MS));
    this.#saveSoon(draft);
  }

  async #write(draft: Draft): Promise<void> {
    try {
      await put("drafts", owned($state.snapshot(draft) as Draft));
    } catch {
      // Kept in the page, and in the mailbox.
    }
  }

  async #keep(draft: Draft): Promise<void> {
    clearTimeout(this.#keeping.get(draft.id));
    this.#keeping.delete(draft.id);
    if (!isBlank(draft, this.signature)) await this.#write(draft);
  }

  /** What is typed and not kept yet: the page goes away. */
  keepAll(): void {
    for (const draft of this.open) if (this.#keeping.has(draft.id)) void this.#keep(draft);
  }

  #saveSoon(draft: Draft): void {
    const waiting = this.#saving.get(draft.id);
    const since = waiting?.since ?? Date.now();
    clearTimeout(waiting?.timer);
    const bytes = draft.files.reduce((sum, file) => sum + file.size, 0);
    const rest = bytes > LARGE_BYTES ? SAVE_LARGE_MS : SAVE_MS;
    const timer = setTimeout(() => void this.#save(draft, 0), Math.max(0, Math.min(rest, since + SAVE_MS_MAX - Date.now())));
    this.#saving.set(draft.id, { timer, since });
  }

  #stopSaving(draft: Draft): void {
    clearTimeout(this.#keeping.get(draft.id));
    clearTimeout(this.#saving.get(draft.id)?.timer);
    this.#keeping.delete(draft.id);
    this.#saving.delete(draft.id);
  }

  async #save(draft: Draft, attempt: number): Promise<void> {
    clearTimeout(this.#saving.get(draft.id)?.timer);
    this.#saving.delete(draft.id);
    if (isBlank(draft, this.signature) && draft.serverId === null && draft.saving === null) return this.#done(draft);
    if (!isSaved(draft) && this.standing[draft.id] !== "local") this.standing[draft.id] = "saving";
    try {
      await this.saver.save(draft);
      if (!this.#find(draft.id)) return;
      delete this.errors[draft.id];
      this.standing[draft.id] = "saved";
      this.#done(draft);
    } catch (error) {
      if (!this.#find(draft.id) || (error instanceof DOMException && error.name === "AbortError")) return;
      this.standing[draft.id] = "local";
      await this.#keep(draft);
      if (isPassing(error)) this.#saving.set(draft.id, { timer: setTimeout(() => void this.#save(draft, attempt + 1), pause(attempt)), since: Date.now() });
      else if (!(error instanceof Problem && error.kind === "unauthenticated")) this.errors[draft.id] = t("write.notSaved", { reason: reasonOf(error) });
    }
  }

  /** The mailbox has it: a closed one is not kept here any more. */
  #done(draft: Draft): void {
    if (this.open.some((one) => one.id === draft.id)) return;
    this.#drop(draft);
  }

  #drop(draft: Draft): void {
    this.kept = this.kept.filter((one) => one.id !== draft.id);
    void remove("drafts", draft.id).catch(() => {});
    this.leave(draft.id);
  }

  /** Does not wait any longer: the network is back, or somebody wants to go. */
  async hurry(): Promise<void> {
    await this.load();
    await Promise.all([...this.open, ...this.kept].filter((one) => !isSaved(one)).map((one) => this.#save(one, 0)));
  }

  /** Whether something is on this device alone. */
  get isOnlyHere(): boolean {
    return [...this.open, ...this.kept].some((one) => !isSaved(one) && !isBlank(one, this.signature));
  }

  async close(draft: Draft): Promise<void> {
    this.#stopSaving(draft);
    if (isBlank(draft, this.signature)) return this.#throwAway(draft);
    await this.#keep(draft);
    this.open = this.open.filter((one) => one.id !== draft.id);
    draft.thread = null;
    this.kept.unshift(draft);
    await this.#save(draft, 0);
  }

  /** It leaves the drafts: it is sent, and the outbox looks after it. */
  release(draft: Draft): void {
    this.#stopSaving(draft);
    this.open = this.open.filter((one) => one.id !== draft.id);
    this.kept = this.kept.filter((one) => one.id !== draft.id);
    delete this.standing[draft.id];
    delete this.errors[draft.id];
  }

  /** It was not sent: it is open again. */
  reopen(draft: Draft, why: string | null): void {
    const shown = this.show({ ...draft, thread: draft.thread === mailHere().thread ? draft.thread : null });
    if (why !== null) this.errors[draft.id] = why;
    void this.#write(shown);
    if (!isSaved(shown)) this.#saveSoon(shown);
  }

  discard(draft: Draft): void {
    const copy = $state.snapshot(draft) as Draft;
    this.#throwAway(draft);
    if (isBlank(copy, this.signature)) return;
    const back = (): void => {
      // What was thrown away is gone: it comes back as a new one.
      const shown = this.show({ ...copy, serverId: null, saving: null, savedVersion: -1 });
      void this.#write(shown);
      this.#saveSoon(shown);
    };
    say(t("write.discarded"), { action: { label: t("act.undo"), run: back } });
  }

  #throwAway(draft: Draft): void {
    this.#stopSaving(draft);
    for (const file of draft.files) uploads.stop(file);
    this.open = this.open.filter((one) => one.id !== draft.id);
    this.#drop(draft);
    void this.#delete(draft);
  }

  async #delete(draft: Draft): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        await this.saver.settled(draft);
        // An answer that was lost: the version has to be known to be deleted.
        if (draft.saving !== null) await this.saver.save(draft);
        await remove("drafts", draft.id).catch(() => {});
        if (draft.serverId !== null) await client.delete(`/v1/drafts/${draft.serverId}`);
        return;
      } catch (error) {
        if (!isPassing(error)) return;
        await new Promise((resolve) => setTimeout(resolve, pause(attempt)));
      }
    }
  }

  // --- what others did ------------------------------------------------------------------------------------------------

  /** Changes of the mailbox, of which some may be of drafts that are open here. */
  changedElsewhere(changes: readonly Change[]): void {
    const drafts = mailbox.role("drafts")?.id;
    const sent = mailbox.role("sent")?.id;
    for (const change of changes) {
      if (change.type !== "message_deleted" || !change.message_id) continue;
      // What takes a draft's place is filed in the same moment, with the number behind that of its removal.
      const next = changes.find((one) => one.type === "message_created" && one.modseq === change.modseq + 1);
      const how = next?.folder_id === sent ? "sent" : next?.folder_id === drafts ? "changed" : "gone";
      this.#fates.set(change.message_id, { how, theirs: how === "gone" ? null : (next?.message_id ?? null) });
      const oldest = this.#fates.size > FATES_MAX ? this.#fates.keys().next().value : undefined;
      if (oldest !== undefined) this.#fates.delete(oldest);
    }
    for (const draft of [...this.open, ...this.kept]) {
      const id = draft.serverId;
      if (id === null) continue;
      const left = changes.some((one) => one.message_id === id && one.type === "message_updated" && one.folder_id !== drafts);
      if (left) this.#fates.set(id, { how: "gone", theirs: null });
      if (this.#fates.has(id)) void this.#meet(draft, id);
    }
  }

  async #meet(draft: Draft, id: string): Promise<void> {
    // It may be this page itself that has replaced it, and not know yet.
    await this.saver.settled(draft);
    const fate = this.#fates.get(id);
    if (draft.serverId !== id || !fate || !this.#find(draft.id)) return;
    if (isSaved(draft) && fate.how === "changed" && fate.theirs) await this.#adopt(draft, fate.theirs);
    else {
      draft.serverId = null;
      draft.conflict = fate;
      await this.#keep(draft);
      if (!isSaved(draft)) this.#saveSoon(draft);
    }
  }

  /** Nothing was written here since: what was written elsewhere is shown. */
  async #adopt(draft: Draft, theirs: string): Promise<void> {
    try {
      const message = await bodyOf(theirs);
      const other = draftOf(message, await messagesOf(message.thread_id));
      if (!isSaved(draft)) throw new Error("something was written meanwhile");
      const { id, thread, forwards, version } = draft;
      Object.assign(draft, other, { id, thread, forwards, version: version + 1, savedVersion: version + 1, revision: draft.revision + 1 });
      this.#fetch(draft);
      this.standing[draft.id] = "updated";
      await this.#write(draft);
    } catch {
      draft.serverId = null;
      draft.conflict = { how: "changed", theirs };
    }
  }
}

export const compose = new Compose();
addEventListener("online", () => void compose.hurry());
addEventListener("pagehide", () => compose.keepAll());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") compose.keepAll();
});
