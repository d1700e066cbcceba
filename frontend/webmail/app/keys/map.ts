// Which keys do what: those that fingers know from Gmail.
import type { Key } from "../i18n/index.svelte";

export type Action =
  | "next" | "previous" | "open" | "back" | "nextMessage" | "previousMessage"
  | "archive" | "trash" | "spam" | "read" | "unread" | "star" | "select" | "selectAll" | "selectNone" | "move" | "label" | "undo"
  | "compose" | "reply" | "replyAll" | "forward"
  | "search" | "inbox" | "starred" | "sent" | "drafts" | "archived" | "settings" | "help";

export interface Binding {
  /** Keys one after the other; several ways to the same. */
  keys: string[];
  action: Action;
  label: Key;
  group: "move" | "do" | "go" | "write";
}

export const BINDINGS: readonly Binding[] = [
  { keys: ["j", "ArrowDown"], action: "next", label: "keys.next", group: "move" },
  { keys: ["k", "ArrowUp"], action: "previous", label: "keys.previous", group: "move" },
  { keys: ["o", "Enter"], action: "open", label: "keys.open", group: "move" },
  { keys: ["u", "Escape"], action: "back", label: "keys.back", group: "move" },
  { keys: ["n"], action: "nextMessage", label: "keys.nextMessage", group: "move" },
  { keys: ["p"], action: "previousMessage", label: "keys.previousMessage", group: "move" },
  { keys: ["/"], action: "search", label: "keys.search", group: "move" },
  { keys: ["e", "y"], action: "archive", label: "act.archive", group: "do" },
  { keys: ["#", "Delete"], action: "trash", label: "act.delete", group: "do" },
  { keys: ["!"], action: "spam", label: "act.spam", group: "do" },
  { keys: ["s"], action: "star", label: "act.star", group: "do" },
  { keys: ["Shift+I"], action: "read", label: "act.read", group: "do" },
  { keys: ["Shift+U"], action: "unread", label: "act.unread", group: "do" },
  { keys: ["x"], action: "select", label: "keys.select", group: "do" },
  { keys: ["* a"], action: "selectAll", label: "keys.selectAll", group: "do" },
  { keys: ["* n"], action: "selectNone", label: "keys.selectNone", group: "do" },
  { keys: ["v"], action: "move", label: "act.move", group: "do" },
  { keys: ["l"], action: "label", label: "act.label", group: "do" },
  { keys: ["z"], action: "undo", label: "act.undo", group: "do" },
  { keys: ["g i"], action: "inbox", label: "folder.inbox", group: "go" },
  { keys: ["g s"], action: "starred", label: "folder.starred", group: "go" },
  { keys: ["g t"], action: "sent", label: "folder.sent", group: "go" },
  { keys: ["g d"], action: "drafts", label: "folder.drafts", group: "go" },
  { keys: ["g a"], action: "archived", label: "folder.archive", group: "go" },
  { keys: ["g ,"], action: "settings", label: "nav.settings", group: "go" },
  { keys: ["c"], action: "compose", label: "nav.compose", group: "write" },
  { keys: ["r"], action: "reply", label: "write.reply", group: "write" },
  { keys: ["a"], action: "replyAll", label: "write.replyAll", group: "write" },
  { keys: ["f"], action: "forward", label: "write.forward", group: "write" },
  { keys: ["?"], action: "help", label: "keys.help", group: "write" },
];

/** How long the second key of two may take, ms. */
export const SEQUENCE_MS = 1_200;

/** What a key is called in the table. On a Korean keyboard `ㅓ` is the key of `j`: letters go by their place. */
export function nameOf(event: Pick<KeyboardEvent, "key" | "code" | "shiftKey">): string {
  const letter = /^Key([A-Z])$/.exec(event.code)?.[1];
  const isLatin = /^[a-z]$/i.test(event.key);
  if (letter && (!isLatin || event.shiftKey)) return event.shiftKey ? `Shift+${isLatin ? event.key.toUpperCase() : letter}` : letter.toLowerCase();
  return event.key;
}

export class KeyReader {
  #first: string | null = null;
  #at = 0;

  /** What a key means now; `pending` is the first of two. */
  read(event: Pick<KeyboardEvent, "key" | "code" | "shiftKey">, now: number): Action | "pending" | null {
    const key = nameOf(event);
    const name = this.#first !== null && now - this.#at <= SEQUENCE_MS ? `${this.#first} ${key}` : key;
    this.#first = null;
    const found = BINDINGS.find((binding) => binding.keys.includes(name)) ?? BINDINGS.find((binding) => binding.keys.includes(key));
    if (name === key && BINDINGS.some((binding) => binding.keys.some((one) => one.startsWith(`${key} `)))) {
      this.#first = key;
      this.#at = now;
      return "pending";
    }
    return found?.action ?? null;
  }
}
