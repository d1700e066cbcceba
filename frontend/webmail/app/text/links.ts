// Addresses within plain text.

export interface Piece {
  text: string;
  /** Where it leads. */
  href?: string;
}

const LINK = /\b(?:https?:\/\/|www\.)[^\s<>"'`{}|\\^\u3000]+|[\p{L}\p{N}._%+-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)*\.\p{L}{2,}/giu;
/** What ends a sentence ends a link as well. */
const TRAILING = /[.,;:!?'"»」』）】、。]+$/u;

export function linked(text: string): Piece[] {
  const pieces: Piece[] = [];
  let at = 0;
  for (const match of text.matchAll(LINK)) {
    let found = match[0].replace(TRAILING, "");
    // A bracket belongs to the link only where it was opened in it.
    while (found.endsWith(")") && count(found, ")") > count(found, "(")) found = found.slice(0, -1).replace(TRAILING, "");
    if (found === "") continue;
    const href = hrefOf(found);
    if (!href) continue;
    if (match.index > at) pieces.push({ text: text.slice(at, match.index) });
    pieces.push({ text: found, href });
    at = match.index + found.length;
  }
  if (at < text.length) pieces.push({ text: text.slice(at) });
  return pieces;
}

function hrefOf(found: string): string | null {
  if (/^https?:/i.test(found) || /^www\./i.test(found)) {
    try {
      return new URL(/^www\./i.test(found) ? `https://${found}` : found).href;
    } catch {
      return null;
    }
  }
  return `mailto:${found}`;
}

function count(text: string, sign: string): number {
  return text.split(sign).length - 1;
}
