// What is being written.
import type { Mailbox, Message } from "../api/types";
import { newKey } from "../api/client";
import { answerTo, written } from "../text/people";
import { quoted } from "../text/quote";
import { answerSubject, forwardSubject } from "../text/subject";

export interface DraftFile {
  id: string;
  name: string;
  type: string;
  size: number;
  /** What is in it; null of a file that is in the mailbox and was not fetched yet. */
  data: Blob | null;
  /** Where it is in the mailbox, by the path of REST. */
  path: string | null;
}

/** A version that is on its way to the mailbox: asked again under the same key it is saved once. */
export interface Saving {
  key: string;
  version: number;
  /** The draft that it replaces; null of a new one. */
  replaces: string | null;
  body: Record<string, unknown>;
}

/** What somebody did to the same draft elsewhere. */
export interface Conflict {
  how: "changed" | "gone" | "sent";
  /** The other version, where it is known. */
  theirs: string | null;
}

export interface Draft {
  id: string;
  to: Mailbox[];
  cc: Mailbox[];
  bcc: Mailbox[];
  subject: string;
  /** What was written, as HTML of the editor's schema. */
  html: string;
  /** The same as plain text. */
  text: string;
  /** Whether it looks different from its plain text. */
  isRich: boolean;
  /** What is answered, as plain text: sent along below what was written. */
  quotedText: string;
  /** The line above it. */
  quotedLine: string;
  files: DraftFile[];
  /** The message that it answers. */
  inReplyTo: string | null;
  /** The message that it passes on. */
  forwards: string | null;
  /** The conversation below which it is written; null of one in a window of its own. */
  thread: string | null;
  /** When something was last changed, ms. */
  changedAt: number;
  /** Grows with each change. */
  version: number;
  /** The mailbox's draft that has `savedVersion`; null where it has none. */
  serverId: string | null;
  savedVersion: number;
  saving: Saving | null;
  conflict: Conflict | null;
  /** Grows when its text was replaced from outside of the editor. */
  revision: number;
}

export function emptyDraft(): Draft {
  return {
    id: newKey(), to: [], cc: [], bcc: [], subject: "", html: "", text: "", isRich: false, quotedText: "", quotedLine: "",
    files: [], inReplyTo: null, forwards: null, thread: null, changedAt: Date.now(), version: 0, serverId: null, savedVersion: 0,
    saving: null, conflict: null, revision: 0,
  };
}

/** Whether there is nothing in it that the mailbox has not been given. */
export function isSaved(draft: Draft): boolean {
  return draft.saving === null && draft.version === draft.savedVersion;
}

/** As it was written by an older page, too. */
export function restored(kept: Partial<Draft> & { id: string }): Draft {
  const draft = { ...emptyDraft(), ...kept };
  if (kept.version === undefined) draft.version = 1;
  draft.files = draft.files.map((file) => ({ ...file, path: file.path ?? null }));
  return draft;
}

/** Whether nothing would be lost with it. */
export function isBlank(draft: Draft, signature: string): boolean {
  const text = draft.text.trim();
  const noText = text === "" || text === signature.trim() || text === `-- \n${signature}`.trim();
  return noText && draft.files.length === 0 && (draft.inReplyTo !== null || draft.forwards !== null || (draft.to.length === 0 && draft.subject.trim() === ""));
}

export function answerDraft(message: Message, me: readonly string[], all: boolean, line: string): Draft {
  return {
    ...emptyDraft(),
    ...answerTo(message, me, all),
    subject: answerSubject(message.subject),
    quotedText: message.body ?? "",
    quotedLine: line,
    inReplyTo: message.id,
    thread: message.thread_id,
  };
}

export interface Words {
  line: string;
  from: string;
  date: string;
  subject: string;
  to: string;
}

export function forwardDraft(message: Message, unnamed: string, words: Words, date: string): Draft {
  const files = message.attachments.map((file): DraftFile => ({
    id: newKey(), name: file.filename || unnamed, type: file.content_type, size: file.size, data: null, path: `/v1/messages/${message.id}/attachments/${file.id}`,
  }));
  const head = [
    words.line,
    `${words.from}: ${message.from ? written(message.from) : ""}`,
    `${words.date}: ${date}`,
    `${words.subject}: ${message.subject}`,
    `${words.to}: ${message.to.map(written).join(", ")}`,
  ].join("\n");
  return {
    ...emptyDraft(),
    subject: forwardSubject(message.subject),
    quotedText: message.body ?? "",
    quotedLine: head,
    files,
    forwards: message.id,
    thread: message.thread_id,
  };
}

/** The whole plain text that is sent. */
export function sentText(draft: Draft): string {
  const own = draft.text.trimEnd();
  if (draft.quotedText === "" && draft.quotedLine === "") return `${own}\n`;
  const below = draft.forwards ? draft.quotedText : quoted(draft.quotedText);
  return `${own}\n\n${draft.quotedLine}\n${draft.forwards ? "\n" : ""}${below}\n`;
}

/** The same as HTML; null where plain text says everything. */
export function sentHtml(draft: Draft): string | null {
  if (!draft.isRich) return null;
  const own = `<div>${draft.html}</div>`;
  if (draft.quotedText === "" && draft.quotedLine === "") return own;
  const text = (value: string): string => escaped(value).replace(/\n/g, "<br>");
  const inner = draft.forwards ? `<div>${text(draft.quotedText)}</div>` : `<blockquote type="cite">${text(draft.quotedText)}</blockquote>`;
  return `${own}<br><div class="gmail_quote"><div>${text(draft.quotedLine)}</div>${inner}</div>`;
}

export function escaped(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");
}

const SPEAKS_OF_FILES = /\b(?:attach(?:ed|ment|ments|ing)?|enclosed)\b|첨부|붙임|동봉/i;

/** Whether the text speaks of a file that is not there. */
export function forgotFile(draft: Draft): boolean {
  return draft.files.length === 0 && SPEAKS_OF_FILES.test(`${draft.subject}\n${draft.text}`);
}

/** Bytes that files take within a message: base64, and a line end in each 76. */
export function carriedBytes(files: readonly Pick<DraftFile, "size">[]): number {
  return files.reduce((sum, file) => sum + Math.ceil((file.size / 3) * 4 * (78 / 76)), 0);
}
