// Messages in the part of ICU's syntax that they use: `{name}`, and `{count, plural, =0 {…} one {…} other {… # …}}`.

export type Values = Record<string, string | number>;

/** What a message says with these values, in a language. A name that has no value stays as it stands: a test finds it. */
export function format(message: string, values: Values, locale: string): string {
  let text = "";
  let at = 0;
  while (at < message.length) {
    const open = message.indexOf("{", at);
    if (open < 0) return text + message.slice(at);
    text += message.slice(at, open);
    const close = closing(message, open);
    text += argument(message.slice(open + 1, close), values, locale);
    at = close + 1;
  }
  return text;
}

function closing(message: string, open: number): number {
  let depth = 0;
  for (let at = open; at < message.length; at += 1) {
    if (message[at] === "{") depth += 1;
    if (message[at] === "}" && --depth === 0) return at;
  }
  throw new SyntaxError(`a brace is not closed: ${message}`);
}

function argument(inner: string, values: Values, locale: string): string {
  const [name = "", kind, ...rest] = splitThrice(inner);
  const value = values[name];
  if (value === undefined) return `{${inner}}`;
  if (kind === undefined) return typeof value === "number" ? new Intl.NumberFormat(locale).format(value) : value;
  if (kind !== "plural") throw new SyntaxError(`${kind} is not known`);
  const choices = choicesOf(rest.join(","));
  const chosen = choices.get(`=${value}`) ?? choices.get(new Intl.PluralRules(locale).select(Number(value))) ?? choices.get("other") ?? "";
  return format(chosen.replaceAll("#", new Intl.NumberFormat(locale).format(Number(value))), values, locale);
}

function splitThrice(inner: string): string[] {
  const first = inner.indexOf(",");
  if (first < 0) return [inner.trim()];
  const second = inner.indexOf(",", first + 1);
  return [inner.slice(0, first).trim(), inner.slice(first + 1, second).trim(), inner.slice(second + 1)];
}

function choicesOf(text: string): Map<string, string> {
  const choices = new Map<string, string>();
  let at = 0;
  for (;;) {
    const open = text.indexOf("{", at);
    if (open < 0) return choices;
    const close = closing(text, open);
    choices.set(text.slice(at, open).trim(), text.slice(open + 1, close));
    at = close + 1;
  }
}
