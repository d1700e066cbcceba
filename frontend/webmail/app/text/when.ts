// Times and sizes as people say them.

const DAY_MS = 86_400_000;
const formats = new Map<string, Intl.DateTimeFormat>();

/** Making a formatter costs more than using one a thousand times. */
function formatter(locale: string, name: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = `${locale} ${name}`;
  let found = formats.get(key);
  if (!found) formats.set(key, (found = new Intl.DateTimeFormat(locale, options)));
  return found;
}

/** In a list: today's time, this year's day, else the date. */
export function short(date: string, locale: string, now: Date = new Date()): string {
  const at = new Date(date);
  if (Number.isNaN(at.getTime())) return "";
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  if (at.getTime() >= midnight && at.getTime() < midnight + DAY_MS) {
    return formatter(locale, "time", { hour: "numeric", minute: "2-digit" }).format(at);
  }
  if (at.getFullYear() === now.getFullYear()) return formatter(locale, "day", { month: "short", day: "numeric" }).format(at);
  return formatter(locale, "date", { year: "numeric", month: "short", day: "numeric" }).format(at);
}

/** In full. */
export function full(date: string, locale: string): string {
  const at = new Date(date);
  if (Number.isNaN(at.getTime())) return date;
  return formatter(locale, "full", { dateStyle: "full", timeStyle: "short" }).format(at);
}

/** Day and time. */
export function medium(date: string, locale: string): string {
  const at = new Date(date);
  if (Number.isNaN(at.getTime())) return date;
  return formatter(locale, "medium", { dateStyle: "medium", timeStyle: "short" }).format(at);
}

/** A day that is near, with its time. */
export function near(date: Date, locale: string): string {
  return formatter(locale, "near", { weekday: "short", month: "short", day: "numeric", hour: "numeric", minute: "2-digit" }).format(date);
}

/** A span, rounded up to something that one says. */
export function span(ms: number, locale: string): string {
  const [value, unit] = ms < 60_000 ? [ms / 1000, "second"] : ms < 3_600_000 ? [ms / 60_000, "minute"] : [ms / 3_600_000, "hour"];
  return new Intl.NumberFormat(locale, { style: "unit", unit: unit as string, unitDisplay: "long" }).format(Math.max(1, Math.ceil(value as number)));
}

/** Bytes. */
export function size(bytes: number, locale: string): string {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return new Intl.NumberFormat(locale, {
    style: "unit",
    unit: units[unit]!,
    unitDisplay: unit === 0 ? "long" : "short",
    maximumFractionDigits: value < 10 && unit > 0 ? 1 : 0,
  }).format(value);
}
