// What was done, for a moment, with a way back.
import { newKey } from "../api/client";

export interface Toast {
  id: string;
  text: string;
  action?: { label: string; run: () => void };
  tone: "plain" | "bad";
}

/** How long an action can be undone, ms. */
export const UNDO_MS = 10_000;
const READ_MS = 4_000;
/** Older ones make place. */
const SHOWN_MAX = 3;

let toasts = $state.raw<Toast[]>([]);
const timers = new Map<string, ReturnType<typeof setTimeout>>();

export function shown(): Toast[] {
  return toasts;
}

export function say(text: string, options: { action?: Toast["action"]; ms?: number; tone?: Toast["tone"]; id?: string } = {}): string {
  const id = options.id ?? newKey();
  const toast: Toast = { id, text, action: options.action, tone: options.tone ?? "plain" };
  toasts = [...toasts.filter((other) => other.id !== id), toast].slice(-SHOWN_MAX);
  clearTimeout(timers.get(id));
  timers.set(id, setTimeout(() => dismiss(id), options.ms ?? (options.action ? UNDO_MS : READ_MS)));
  return id;
}

export function dismiss(id: string): void {
  clearTimeout(timers.get(id));
  timers.delete(id);
  toasts = toasts.filter((toast) => toast.id !== id);
}

/** Takes the way back of the newest that has one. */
export function undoNewest(): boolean {
  const toast = toasts.findLast((toast) => toast.action !== undefined);
  if (!toast) return false;
  dismiss(toast.id);
  toast.action?.run();
  return true;
}
