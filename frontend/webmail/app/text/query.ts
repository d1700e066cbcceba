// The language of searches as chips: what of a text are operators. The interface decides what a search finds; this only shows it.

export interface Token {
  /** As it is written, with its sign and quotes. */
  raw: string;
  /** In lower case; null of a word. */
  operator: string | null;
  /** Without quotes. */
  value: string;
  negated: boolean;
}

/** Those that docs/api/rest.md names. */
export const OPERATORS = [
  "from", "to", "cc", "bcc", "subject", "filename", "has", "is", "in", "label",
  "after", "before", "newer_than", "older_than", "larger", "smaller", "list", "rfc822msgid",
] as const;

const TOKEN = /(-?)(?:([a-z0-9_]+):)?("(?:[^"]*)"?|\([^()]*\)|[^\s]+)/giu;

export function tokens(query: string): Token[] {
  const found: Token[] = [];
  for (const match of query.matchAll(TOKEN)) {
    const [raw, sign, name, rest] = match;
    const operator = name?.toLowerCase() ?? null;
    const known = operator !== null && (OPERATORS as readonly string[]).includes(operator);
    found.push({
      raw,
      operator: known ? operator : null,
      value: known ? (rest ?? "").replace(/^"|"$/g, "") : raw,
      negated: sign === "-",
    });
  }
  return found;
}

/** `value` as an operator takes it. */
export function term(operator: string, value: string): string {
  return /^[^\s"()]+$/.test(value) ? `${operator}:${value}` : `${operator}:"${value.replaceAll('"', "")}"`;
}

export function has(query: string, raw: string): boolean {
  return tokens(query).some((token) => token.raw.toLowerCase() === raw.toLowerCase());
}

export function without(query: string, raw: string): string {
  return tokens(query)
    .filter((token) => token.raw.toLowerCase() !== raw.toLowerCase())
    .map((token) => token.raw)
    .join(" ");
}

export function withTerm(query: string, raw: string): string {
  return has(query, raw) ? query : `${query.trim()} ${raw}`.trim();
}

/** In place of any other of its operator: an operator of which one alone makes sense. */
export function withOnly(query: string, operator: string, value: string | null): string {
  const kept = tokens(query).filter((token) => token.operator !== operator || token.negated);
  const terms = kept.map((token) => token.raw);
  if (value !== null) terms.push(term(operator, value));
  return terms.join(" ");
}
