// What matched, within a text: marks come from the interface in UTF-16 code units, which is what strings here are made of.
import type { Mark } from "../api/types";

export interface Part {
  text: string;
  marked: boolean;
}

export function marked(text: string, marks: readonly Mark[] | undefined): Part[] {
  const parts: Part[] = [];
  let at = 0;
  for (const { start, end } of marks ?? []) {
    if (start < at || end > text.length || start >= end) continue;
    if (start > at) parts.push({ text: text.slice(at, start), marked: false });
    parts.push({ text: text.slice(start, end), marked: true });
    at = end;
  }
  if (at < text.length) parts.push({ text: text.slice(at), marked: false });
  return parts;
}
