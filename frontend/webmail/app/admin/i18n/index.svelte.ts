// The language of the operator's page. English is there from the beginning, Korean is loaded when it is wanted.
import { Problem, Unreachable } from "../../api/client";
import { format, type Values } from "../../i18n/format";
import { en, type Key, type Messages } from "./en";

export type { Key } from "./en";
export type Language = "en" | "ko";

let language = $state<Language>("en");
let messages = $state.raw<Messages>(en);

/** The first language of the browser that the page knows. */
export function preferred(of: readonly string[] = navigator.languages): Language {
  for (const tag of of) {
    const base = tag.toLowerCase().split("-")[0];
    if (base === "en" || base === "ko") return base;
  }
  return "en";
}

export async function use(wanted: Language): Promise<void> {
  messages = wanted === "ko" ? (await import("./ko")).ko : en;
  language = wanted;
  document.documentElement.lang = wanted;
}

export function current(): Language {
  return language;
}

export function t(key: Key, values: Values = {}): string {
  return format(messages[key], values, language);
}

/** A word of the interface, where the page knows it; otherwise the word itself. */
export function word(group: string, value: string): string {
  const key = `${group}.${value}`;
  return key in messages ? t(key as Key) : value.replaceAll("_", " ");
}

/** What went wrong, as one tells it to an operator: with what the cluster said. */
export function reasonOf(error: unknown): string {
  if (error instanceof Unreachable) return t("error.unreachable");
  if (!(error instanceof Problem)) return t("error.other");
  const key = `error.${error.kind}`;
  const known = key in messages ? t(key as Key) : error.document.title;
  return error.document.detail ? `${known} (${error.document.detail})` : known;
}
