// Drafts on their way to the mailbox: one version after the other, each under one idempotency key until it is answered.
//
// Invariant: a version that was asked for is never asked for under another key while its answer is not known, whatever page asks. So an answer that was
// lost makes no second draft.
import { newKey, Problem, type Answer, type Ask } from "../api/client";
import type { SavedDraft } from "../api/types";
import { isSaved, type Conflict, type Draft, type DraftFile } from "./draft";

/** What saving needs of the client. */
export interface Keeper {
  post<T>(path: string, ask?: Ask): Promise<Answer<T>>;
  put<T>(path: string, ask?: Ask): Promise<Answer<T>>;
}

export interface SaverParts {
  client: Keeper;
  /** The draft as REST takes it, once its files are there, and the version that this is. */
  outgoing(draft: Draft): Promise<{ body: Record<string, unknown>; version: number }>;
  /** Into the browser's database. */
  keep(draft: Draft): Promise<void>;
  /** What became of a draft that is not there any more. */
  whatBecame(id: string): Conflict;
  /** Uploads that are over. */
  lost(files: readonly DraftFile[]): void;
}

export class Saver {
  readonly #running = new Map<string, { draft: Draft; done: Promise<void> }>();

  constructor(private readonly parts: SaverParts) {}

  /** Saves what there is; saves again what was written meanwhile. Throws what kept it from that. */
  save(draft: Draft): Promise<void> {
    const running = this.#running.get(draft.id);
    if (running?.draft === draft) return running.done;
    // One that was taken up again is another object of the same draft: it goes on where the first stops.
    const before = running?.done.catch(() => {}) ?? Promise.resolve();
    const entry = { draft, done: before.then(() => this.#save(draft)) };
    entry.done = entry.done.finally(() => {
      if (this.#running.get(draft.id) === entry) this.#running.delete(draft.id);
    });
    this.#running.set(draft.id, entry);
    return entry.done;
  }

  /** Resolves when no version is on its way, however that ended. */
  async settled(draft: Draft): Promise<void> {
    await this.#running.get(draft.id)?.done.catch(() => {});
  }

  async #save(draft: Draft): Promise<void> {
    let again = true;
    while (!isSaved(draft)) {
      if (draft.saving === null) {
        const { body, version } = await this.parts.outgoing(draft);
        // Written down before it is asked for: whoever goes on after this page has died asks under the same key.
        draft.saving = { key: newKey(), version, replaces: draft.serverId, body };
        await this.parts.keep(draft);
      }
      const { key, version, replaces, body } = draft.saving;
      try {
        const saved = replaces === null ? await this.parts.client.post<SavedDraft>("/v1/drafts", { body, key }) : await this.parts.client.put<SavedDraft>(`/v1/drafts/${replaces}`, { body, key });
        draft.serverId = saved.body.id;
        draft.savedVersion = version;
        draft.saving = null;
        await this.parts.keep(draft);
      } catch (error) {
        if (!(error instanceof Problem) || error.isPassing || error.kind === "unauthenticated") throw error;
        draft.saving = null;
        if ((error.kind === "not_found" && replaces !== null) || error.kind === "idempotency_key_spent") {
          // Somebody else has saved, sent or thrown away what this was to replace, or what it had made: both are kept.
          draft.conflict = replaces === null ? { how: "gone", theirs: null } : this.parts.whatBecame(replaces);
          draft.serverId = null;
        } else if (error.kind === "reply_unknown" && draft.inReplyTo !== null) {
          // What it answers was deleted for good.
          draft.inReplyTo = null;
        } else if (error.kind === "upload_unknown" && again) {
          again = false;
          this.parts.lost(draft.files);
        } else {
          throw error;
        }
      }
    }
  }
}
