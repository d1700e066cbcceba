// Names and addresses as they are shown and as they are typed.
import type { Mailbox } from "../api/types";

/** What a list calls somebody. */
export function shortName(mailbox: Mailbox | null | undefined): string {
  if (!mailbox) return "";
  const name = mailbox.name.trim();
  if (name && mailbox.email) return name;
  return name || localPart(mailbox.email) || mailbox.email;
}

/** The part before the last `@`: a quoted local part may hold one itself. */
export function localPart(email: string): string {
  const at = email.lastIndexOf("@");
  return at < 0 ? email : email.slice(0, at);
}

export function domain(email: string): string {
  const at = email.lastIndexOf("@");
  return at < 0 ? "" : email.slice(at + 1);
}

/** One or two signs that stand for somebody. */
export function initials(mailbox: Mailbox | null | undefined): string {
  const name = shortName(mailbox).replace(/["'()<>[\]]/g, "").trim();
  const words = name.split(/[\s._-]+/).filter(Boolean);
  const first = [...(words[0] ?? "?")][0] ?? "?";
  // Names in Hangul, Han and Kana are known by one sign.
  if (/[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]/u.test(first)) return first;
  const last = words.length > 1 ? ([...(words.at(-1) ?? "")][0] ?? "") : "";
  return (first + last).toUpperCase();
}

/** One of `count` hues, always the same for an address. */
export function hueOf(email: string, count: number): number {
  let hash = 2166136261;
  for (const sign of email.toLowerCase()) hash = Math.imul(hash ^ (sign.codePointAt(0) ?? 0), 16777619);
  return (hash >>> 0) % count;
}

/** As a header writes it. */
export function written(mailbox: Mailbox): string {
  if (!mailbox.name) return mailbox.email;
  const name = /^[\p{L}\p{N} .'-]+$/u.test(mailbox.name) ? mailbox.name : `"${mailbox.name.replace(/(["\\])/g, "\\$1")}"`;
  return mailbox.email ? `${name} <${mailbox.email}>` : mailbox.name;
}

export function sameAddress(a: string, b: string): boolean {
  return a.trim().toLowerCase() === b.trim().toLowerCase();
}

/** What is typed or pasted into a field of recipients. The interface has the last word; this finds what is plainly unfinished. */
export function recipients(text: string): { found: Mailbox[]; rest: string } {
  const found: Mailbox[] = [];
  const rest: string[] = [];
  for (const part of split(text)) {
    const match = /^\s*(?:"?([^"<]*?)"?\s*)<([^<>]+)>\s*$/.exec(part);
    const email = (match ? match[2]! : part).trim();
    if (/^[^\s@]+@[^\s@]+\.[^\s@]+$|^"[^"]+"@[^\s@]+$|^[^\s@]+@[^\s@]+$/.test(email)) {
      found.push({ name: (match?.[1] ?? "").trim(), email });
    } else if (part.trim()) {
      rest.push(part.trim());
    }
  }
  return { found, rest: rest.join(", ") };
}

/** At commas, semicolons and line ends that stand in no quotes and no brackets. */
function split(text: string): string[] {
  const parts: string[] = [];
  let part = "";
  let quoted = false;
  let angle = false;
  for (const sign of text) {
    if (sign === '"') quoted = !quoted;
    else if (sign === "<") angle = true;
    else if (sign === ">") angle = false;
    if (!quoted && !angle && (sign === "," || sign === ";" || sign === "\n")) {
      parts.push(part);
      part = "";
    } else {
      part += sign;
    }
  }
  return [...parts, part];
}

/** To whom an answer goes. `me` are the reader's own addresses. */
export function answerTo(
  message: { from?: Mailbox | null; reply_to: Mailbox[]; to: Mailbox[]; cc: Mailbox[] },
  me: readonly string[],
  all: boolean,
): { to: Mailbox[]; cc: Mailbox[] } {
  const isMe = (mailbox: Mailbox): boolean => me.some((mine) => sameAddress(mine, mailbox.email));
  const usable = (list: Mailbox[]): Mailbox[] => list.filter((mailbox) => mailbox.email !== "");
  const from = usable(message.from ? [message.from] : []);
  const replyTo = usable(message.reply_to);
  // Whoever answers what was sent by oneself goes on writing to the same people.
  const mine = from.length > 0 && from.every(isMe);
  const to = mine ? usable(message.to) : replyTo.length > 0 ? replyTo : from;
  if (!all) return { to: unique(to), cc: [] };
  const first = unique(to);
  const others = unique(usable(mine ? message.cc : [...message.to, ...message.cc]).filter((mailbox) => !isMe(mailbox)));
  return { to: first, cc: others.filter((other) => !first.some((one) => sameAddress(one.email, other.email))) };
}

export function unique(list: readonly Mailbox[]): Mailbox[] {
  return list.filter((mailbox, index) => list.findIndex((other) => sameAddress(other.email, mailbox.email)) === index);
}
