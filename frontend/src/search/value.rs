//! Dates, ages and sizes, as they stand behind an operator.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// What [`moment`] takes.
pub(super) const MOMENT: &str = "a date as 2026-11-30 or 2026/11/30 (UTC), or a time as 2026-11-30T09:00:00Z";
/// What [`ago`] takes.
pub(super) const AGE: &str = "an age as 3d, 2w, 6m or 1y";
/// What [`size`] takes.
pub(super) const SIZE: &str = "a size in bytes as 5000, 10k, 5M or 1G";

/// Digits of the number in an age or a size: more say nothing that a mailbox has.
const DIGITS_MAX: usize = 15;

/// A date is its first moment in UTC; or an RFC 3339 time. Milliseconds.
pub(super) fn moment(text: &str) -> Option<i64> {
    if let Some(date) = date(text) {
        return date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_millisecond());
    }
    if !text.contains(['T', 't']) {
        return None;
    }
    text.parse().ok().map(Timestamp::as_millisecond)
}

fn date(text: &str) -> Option<Date> {
    let separator = if text.contains('/') { '/' } else { '-' };
    let mut numbers = text.split(separator);
    let mut number = |digits: std::ops::RangeInclusive<usize>| {
        let text = numbers.next().filter(|text| digits.contains(&text.len()))?;
        text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    let (year, month, day): (i16, i16, i16) = (number(4..=4)?, number(1..=2)?, number(1..=2)?);
    if numbers.next().is_some() {
        return None;
    }
    Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

/// The moment so long before `now_ms`, milliseconds. Days and weeks are of 24 hours each; months and years are the calendar's.
pub(super) fn ago(text: &str, now_ms: i64) -> Option<i64> {
    let (count, unit) = number(text)?;
    let span = match unit {
        "d" | "D" => Span::new().try_days(count),
        "w" | "W" => Span::new().try_weeks(count),
        "m" | "M" => Span::new().try_months(count),
        "y" | "Y" => Span::new().try_years(count),
        _ => return None,
    };
    let now = Timestamp::from_millisecond(now_ms).ok()?.to_zoned(TimeZone::UTC);
    now.checked_sub(span.ok()?).ok().map(|then| then.timestamp().as_millisecond())
}

/// Bytes; `k`, `M` and `G` are powers of 1,024.
pub(super) fn size(text: &str) -> Option<u64> {
    let (count, unit) = number(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    u64::try_from(count).ok()?.checked_mul(factor)
}

/// A number and what stands behind it.
fn number(text: &str) -> Option<(i64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits).filter(|_| (1..=DIGITS_MAX).contains(&digits))?;
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-31T12:00:00Z.
    const NOW_MS: i64 = 1_774_958_400_000;
    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn dates_are_in_utc() {
        assert_eq!(moment("1970-01-02"), Some(DAY_MS));
        assert_eq!(moment("1970/1/2"), Some(DAY_MS));
        assert_eq!(moment("2024-02-29"), Some(1_709_164_800_000));
        assert_eq!(moment("1970-01-02T00:00:00Z"), Some(DAY_MS));
        assert_eq!(moment("1970-01-02T09:00:00+09:00"), Some(DAY_MS));
        assert_eq!(moment("1970-01-02T00:00:00.250Z"), Some(DAY_MS + 250));
        for bad in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-30",
            "2025-02-29",
            "26-01-01",
            "2026-01",
            "2026-01-01-01",
            "2026/01-01",
            "+026-01-01",
            "2026-1-001",
            "yesterday",
            "2026-01-01T25:00:00Z",
            "2026-01-01T00:00:00",
            "٢٠٢٦-01-01",
        ] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }

    #[test]
    fn ages_go_back_from_now() {
        assert_eq!(ago("1d", NOW_MS), Some(NOW_MS - DAY_MS));
        assert_eq!(ago("2W", NOW_MS), Some(NOW_MS - 14 * DAY_MS));
        // There is no 31 February.
        assert_eq!(ago("1m", NOW_MS), Some(NOW_MS - 31 * DAY_MS));
        assert_eq!(ago("1y", NOW_MS), Some(NOW_MS - 365 * DAY_MS));
        assert_eq!(ago("0d", NOW_MS), Some(NOW_MS));
        for bad in ["", "d", "1", "1h", "-1d", "1.5d", "1 d", "99999y", "999999999999999d", "9999999999999999d", "1dd"]
        {
            assert_eq!(ago(bad, NOW_MS), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("5000"), Some(5000));
        assert_eq!(size("10k"), Some(10_240));
        assert_eq!(size("10KB"), Some(10_240));
        assert_eq!(size("5M"), Some(5_242_880));
        assert_eq!(size("1g"), Some(1 << 30));
        for bad in ["", "k", "M5", "-5", "1.5M", "5T", "5 M", "999999999999999G", "5é"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
