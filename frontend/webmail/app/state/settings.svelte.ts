// What somebody likes, on this device.
import { preferred, use, type Language } from "../i18n/index.svelte";

export interface Settings {
  theme: "auto" | "light" | "dark";
  density: "comfortable" | "compact";
  layout: "beside" | "full";
  language: "auto" | Language;
  keys: boolean;
  /** How long sending can be undone, s. */
  undoSeconds: number;
  images: "ask" | "always";
  /** Senders whose images are always shown. */
  trusted: string[];
  notify: boolean;
}

export const UNDO_SECONDS = [5, 10, 20, 30] as const;
const NAME = "postrider.settings";

const DEFAULTS: Settings = {
  theme: "auto",
  density: "comfortable",
  layout: "beside",
  language: "auto",
  keys: true,
  undoSeconds: 10,
  images: "ask",
  trusted: [],
  notify: false,
};

function read(): Settings {
  try {
    const kept = JSON.parse(localStorage.getItem(NAME) ?? "{}") as Partial<Settings>;
    return { ...DEFAULTS, ...kept };
  } catch {
    return { ...DEFAULTS };
  }
}

export const settings = $state<Settings>(read());

export function change(wanted: Partial<Settings>): void {
  Object.assign(settings, wanted);
  try {
    localStorage.setItem(NAME, JSON.stringify(settings));
  } catch {
    // A browser that keeps nothing: the wish holds as long as the page.
  }
  void applied();
}

const dark = matchMedia("(prefers-color-scheme: dark)");
let systemIsDark = $state(dark.matches);
dark.addEventListener("change", () => {
  systemIsDark = dark.matches;
  void applied();
});

export function isDark(): boolean {
  return settings.theme === "dark" || (settings.theme === "auto" && systemIsDark);
}

/** Makes the page as the settings say. */
export async function applied(): Promise<void> {
  document.documentElement.dataset["theme"] = isDark() ? "dark" : "light";
  document.documentElement.dataset["density"] = settings.density;
  document.querySelector('meta[name="theme-color"]')?.setAttribute("content", isDark() ? "#0f1216" : "#eef1f6");
  await use(settings.language === "auto" ? preferred() : settings.language);
}
