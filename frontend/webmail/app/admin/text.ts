// Times, sizes and numbers as operators read them.
const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"] as const;

export function bytes(count: number, locale: string): string {
  let [value, unit] = [count, 0];
  while (value >= 1000 && unit < UNITS.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${new Intl.NumberFormat(locale, { maximumFractionDigits: value < 10 && unit > 0 ? 1 : 0 }).format(value)} ${UNITS[unit]}`;
}

export function number(value: number, locale: string): string {
  return new Intl.NumberFormat(locale).format(value);
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [["day", 86_400_000], ["hour", 3_600_000], ["minute", 60_000], ["second", 1000]];

/** How long ago, or until when. */
export function ago(date: string, locale: string, now: number = Date.now()): string {
  const ms = new Date(date).getTime() - now;
  const [unit, step] = STEPS.find(([, step]) => Math.abs(ms) >= step) ?? ["second", 1000];
  return new Intl.RelativeTimeFormat(locale, { numeric: "auto" }).format(Math.trunc(ms / step), unit);
}

export function full(date: string, locale: string): string {
  return new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(date));
}
