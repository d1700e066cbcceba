// The language and the colours, as the mailbox's settings on this device say them; where they say nothing, as the browser does.
import { use, preferred, type Language } from "../i18n/index.svelte";

/** The mailbox's own: what somebody likes there he likes here. */
const NAME = "postrider.settings";

interface Wishes {
  theme?: "auto" | "light" | "dark";
  language?: "auto" | Language;
}

function wishes(): Wishes {
  try {
    return JSON.parse(localStorage.getItem(NAME) ?? "{}") as Wishes;
  } catch {
    return {};
  }
}

const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => void applied());

/** Makes the page as the wishes say. */
export async function applied(): Promise<void> {
  const { theme = "auto", language = "auto" } = wishes();
  const isDark = theme === "dark" || (theme === "auto" && dark.matches);
  document.documentElement.dataset["theme"] = isDark ? "dark" : "light";
  await use(language === "auto" ? preferred() : language);
}

/** Keeps a wish beside the mailbox's. */
export async function wish(wanted: Wishes): Promise<void> {
  try {
    localStorage.setItem(NAME, JSON.stringify({ ...wishes(), ...wanted }));
  } catch {
    // A browser that keeps nothing: the next page begins anew.
  }
  await applied();
}
