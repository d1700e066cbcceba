// The language of the page. English is there from the beginning, others are loaded when they are wanted.
import { Problem, Unreachable } from "../api/client";
import { en, type Key, type Messages } from "./en";
import { format, type Values } from "./format";

export type { Key } from "./en";

export const LANGUAGES = { en: "English", ko: "한국어" } as const;
export type Language = keyof typeof LANGUAGES;

const LOADERS: Record<Language, () => Promise<Messages>> = {
  en: () => Promise.resolve(en),
  ko: async () => (await import("./ko")).ko,
};

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
  messages = await LOADERS[wanted]();
  language = wanted;
  document.documentElement.lang = wanted;
}

export function current(): Language {
  return language;
}

export function t(key: Key, values: Values = {}): string {
  return format(messages[key], values, language);
}

/** What went wrong, as one tells it to somebody. */
export function reasonOf(error: unknown): string {
  if (error instanceof Unreachable) return t("error.unreachable");
  if (error instanceof Problem) {
    const key = `error.${error.kind}`;
    if (key in messages) return t(key as Key);
    return error.document.detail ?? error.document.title;
  }
  return t("error.other");
}
