//! Dates, read from the raw field (RFC 5322 sections 3.3 and 4.3) and in the other forms that programs write.
//!
//! Comments stand anywhere; the day of the week is optional and never believed; seconds are optional; years have two, three or
//! four digits; zones have names. What two readers would read as different days (01/02/03) is no date.

use super::lexical::Brackets;

const MS_PER_SECOND: i64 = 1000;
const SECONDS_PER_MINUTE: i64 = 60;
const SECONDS_PER_DAY: i64 = 86_400;
/// Tokens of a date that are looked at: the longest form has fewer than half of them.
const TOKENS_MAX: usize = 64;
/// Digits of one number: a year has four, a fraction of a second up to nine.
const DIGITS_MAX: usize = 9;

/// `text`, an unfolded value, in milliseconds since the Unix epoch. `None` where it is no date.
pub fn date_ms(text: &str) -> Option<i64> {
    let tokens = tokens(text)?;
    let mut parts = Parts::default();
    let mut rest = tokens.as_slice();
    while let Some((first, tail)) = rest.split_first() {
        rest = parts.take(first, tail)?;
    }
    parts.resolve()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Number { value: i64, digits: usize },
    Word(&'a str),
    Sign(u8),
}

/// Numbers, words and signs; white space, comments and commas only separate.
fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let bytes = text.as_bytes();
    let mut brackets = Brackets::default();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() && tokens.len() < TOKENS_MAX {
        let length = |is: fn(&u8) -> bool| bytes[at..].iter().take_while(|byte| is(byte)).count();
        let end = match bytes[at] {
            byte if byte.is_ascii_whitespace() || byte == b',' => at + 1,
            // One that is never closed ends the date.
            b'(' => brackets.comment(bytes, at).unwrap_or(bytes.len()),
            b'0'..=b'9' => {
                let digits = length(u8::is_ascii_digit);
                if digits > DIGITS_MAX {
                    return None;
                }
                tokens.push(Token::Number { value: text[at..at + digits].parse().ok()?, digits });
                at + digits
            }
            byte if byte.is_ascii_alphabetic() => {
                let letters = length(u8::is_ascii_alphabetic);
                tokens.push(Token::Word(&text[at..at + letters]));
                at + letters
            }
            byte => {
                tokens.push(Token::Sign(byte));
                at + 1
            }
        };
        at = end;
    }
    Some(tokens)
}

/// What was found of a date so far.
#[derive(Default)]
struct Parts {
    /// Numbers beside the time of day, with their digits, in order.
    numbers: Vec<(i64, usize)>,
    month: Option<i64>,
    /// How many numbers stand before the name of the month.
    before_month: usize,
    /// Seconds of the day.
    time: Option<i64>,
    /// Minutes east of Greenwich, where a zone is named, and by digits.
    zone_name: Option<i64>,
    zone_digits: Option<i64>,
}

impl Parts {
    /// Takes what begins with `first`, and gives what is left.
    fn take<'t, 'a>(&mut self, first: &Token<'a>, rest: &'t [Token<'a>]) -> Option<&'t [Token<'a>]> {
        match *first {
            Token::Number { value: hour, .. } if self.time.is_none() && rest.first() == Some(&Token::Sign(b':')) => {
                let (seconds, rest) = time_of_day(hour, &rest[1..])?;
                self.time = Some(seconds);
                return Some(rest);
            }
            // Behind the time nothing but a year is missing; some zones have numbers.
            Token::Number { value, digits } if self.time.is_none() || self.numbers.len() < 2 => {
                self.numbers.push((value, digits));
            }
            Token::Number { .. } => {}
            Token::Word(word) => self.word(word),
            Token::Sign(sign @ (b'+' | b'-')) if self.time.is_some() => {
                if let Some((minutes, rest)) = offset(sign, rest) {
                    self.zone_digits.get_or_insert(minutes);
                    return Some(rest);
                }
            }
            Token::Sign(_) => {}
        }
        Some(rest)
    }

    fn word(&mut self, word: &str) {
        if self.time.is_some() {
            if let (Some(time), Some(is_afternoon)) = (self.time, meridiem(word)) {
                self.time = Some(time % (SECONDS_PER_DAY / 2) + i64::from(is_afternoon) * SECONDS_PER_DAY / 2);
                return;
            }
            if let Some(minutes) = zone(word) {
                self.zone_name.get_or_insert(minutes);
                return;
            }
        }
        if self.month.is_none()
            && let Some(month) = month(word)
        {
            self.month = Some(month);
            self.before_month = self.numbers.len();
        }
        // Days of the week, "at", "T": no part of what is meant.
    }

    fn resolve(self) -> Option<i64> {
        let (day, month, year) = match (self.month, self.numbers.as_slice()) {
            // 2026 Mar 2
            (Some(month), &[year @ (_, 4..), (day, _)]) if self.before_month > 0 => (day, month, year),
            // 2 Mar 2026; Mar 2 2026
            (Some(month), &[(day, _), year]) => (day, month, year),
            // 2026-03-02
            (None, &[year @ (_, 4), (month, _), (day, _)]) => (day, month, year),
            _ => return None,
        };
        let days = days_since_epoch(whole_year(year)?, month, day)?;
        let zone = self.zone_digits.or(self.zone_name).unwrap_or(0);
        (days * SECONDS_PER_DAY + self.time? - zone * SECONDS_PER_MINUTE).checked_mul(MS_PER_SECOND)
    }
}

/// RFC 5322 section 4.3: two digits are of this century below 50, three are counted from 1900.
fn whole_year((value, digits): (i64, usize)) -> Option<i64> {
    match digits {
        2 if value < 50 => Some(2000 + value),
        2 | 3 => Some(1900 + value),
        4 => Some(value),
        _ => None,
    }
}

/// Seconds of the day: minutes, seconds and a fraction behind the hour's colon.
fn time_of_day<'t, 'a>(hour: i64, rest: &'t [Token<'a>]) -> Option<(i64, &'t [Token<'a>])> {
    let [Token::Number { value: minute, .. }, rest @ ..] = rest else { return None };
    let (second, rest) = match rest {
        [Token::Sign(b':'), Token::Number { value, .. }, rest @ ..] => (*value, rest),
        rest => (0, rest),
    };
    let rest = match rest {
        [Token::Sign(b'.'), Token::Number { .. }, rest @ ..] => rest,
        rest => rest,
    };
    // Second 60 is the leap second, which no clock of ours has: the next second stands for it. The end of a day is sometimes
    // called 24:00.
    let is_time = (0..24).contains(&hour) && *minute < 60 && second <= 60;
    let is_midnight = hour == 24 && *minute == 0 && second == 0;
    (is_time || is_midnight).then_some(((hour * 60 + minute) * 60 + second, rest))
}

/// Minutes east of Greenwich. `None` if no offset follows the sign.
fn offset<'t, 'a>(sign: u8, rest: &'t [Token<'a>]) -> Option<(i64, &'t [Token<'a>])> {
    let [Token::Number { value, digits }, rest @ ..] = rest else { return None };
    let (minutes, rest) = match (*digits, rest) {
        (1 | 2, [Token::Sign(b':'), Token::Number { value: minutes, .. }, rest @ ..]) if *minutes < 60 => {
            (value * 60 + minutes, rest)
        }
        (1 | 2, rest) => (value * 60, rest),
        (3 | 4, rest) if value % 100 < 60 => (value / 100 * 60 + value % 100, rest),
        // No offset in any reading: the time is taken as it stands, as one of an unknown zone.
        (_, rest) => (0, rest),
    };
    Some((if sign == b'-' { -minutes } else { minutes }, rest))
}

fn month(word: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let is_it =
        |month: &&str| word.len() >= 3 && month.get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word));
    MONTHS.iter().position(is_it).map(|at| at as i64 + 1)
}

/// Minutes east of Greenwich of the zones that RFC 5322 section 4.3 names. The military letters were defined with the wrong sign,
/// and nobody knows what other names mean: those are taken as UTC.
fn zone(word: &str) -> Option<i64> {
    const ZONES: [(&str, i64); 8] =
        [("EDT", -4), ("EST", -5), ("CDT", -5), ("CST", -6), ("MDT", -6), ("MST", -7), ("PDT", -7), ("PST", -8)];
    let known = ZONES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
    known
        .map(|(_, hours)| hours * 60)
        .or_else(|| ["UT", "UTC", "GMT", "Z"].iter().any(|name| word.eq_ignore_ascii_case(name)).then_some(0))
}

fn meridiem(word: &str) -> Option<bool> {
    if word.eq_ignore_ascii_case("pm") {
        return Some(true);
    }
    word.eq_ignore_ascii_case("am").then_some(false)
}

/// Days between the epoch and a day of the Gregorian calendar, if there is such a day.
fn days_since_epoch(year: i64, month: i64, day: i64) -> Option<i64> {
    const DAYS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let index = usize::try_from(month - 1).ok()?;
    let length = DAYS.get(index)? + i64::from(is_leap && month == 2);
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years are counted from March, so that the day of a leap year is the last of one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    // 719,468 days lie between 1 March of the year 0 and the epoch.
    Some(365 * year + leap_days + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In RFC 3339, or what is no date.
    fn read(text: &str) -> String {
        date_ms(text).map_or("no date".to_owned(), |ms| {
            jiff::Timestamp::from_millisecond(ms).expect("a date of four digits is a timestamp").to_string()
        })
    }

    const MONDAY: &str = "2026-03-02T09:30:00Z";

    #[test]
    fn the_form_of_rfc_5322() {
        for text in [
            "Mon, 02 Mar 2026 09:30:00 +0000",
            "2 Mar 2026 09:30:00 -0000",
            "mon, 2 MAR 2026 9:30 gmt",
            "Mon, 2 Mar 2026 10:30:00 +0100 (CET)",
            "Mon, 2 Mar 2026 04:30 EST",
            "Mon, 2 Mar 26 02:30:00 MST",
            "Mon, 02 Mar 126 09:30:00 +0000",
            "Tue, 02 Mar 2026 09:30:00 +0000",
            "(sent) Mon(day (first)), 2 (nd) Mar 2026 09 : 30 (or so) : 00 +0000",
            "Mon, 2 Mar 2026 09:30:00 Z",
            "Mon, 2 Mar 2026 09:30:00 A",
            "Mon, 2 Mar 2026 09:30:00 XYZ",
            "Mon, 2 Mar 2026 09:30:00",
            "Mon,2 Mar 2026 15:00:00 +0530",
            "Mon 2 Mar 2026 00:30:00 -0900",
            "Monday, 2 March 2026 09:30:00 UT",
        ] {
            assert_eq!(read(text), MONDAY, "{text}");
        }
    }

    #[test]
    fn obsolete_years_and_zones() {
        assert_eq!(read("13 Feb 22 00:04 EST"), "2022-02-13T05:04:00Z");
        assert_eq!(read("21 Nov 97 09:55:06 GMT"), "1997-11-21T09:55:06Z");
        assert_eq!(read("1 Jan 49 00:00 UT"), "2049-01-01T00:00:00Z");
        assert_eq!(read("1 Jan 50 00:00 UT"), "1950-01-01T00:00:00Z");
        assert_eq!(read("1 Jul 100 12:00:00 PDT"), "2000-07-01T19:00:00Z");
        for (zone, hour) in [("EDT", 4), ("CST", 6), ("CDT", 5), ("MDT", 6), ("PST", 8)] {
            assert_eq!(read(&format!("1 Jul 2026 00:00 {zone}")), format!("2026-07-01T{hour:02}:00:00Z"));
        }
    }

    #[test]
    fn the_ends_of_a_day() {
        assert_eq!(read("Sat, 31 Dec 2016 23:59:60 +0000"), "2017-01-01T00:00:00Z");
        assert_eq!(read("Sun, 1 Jan 2017 08:59:60 +0900"), "2017-01-01T00:00:00Z");
        assert_eq!(read("Sat, 31 Dec 2016 24:00:00 +0000"), "2017-01-01T00:00:00Z");
        for text in ["24:00:01", "25:00", "12:60", "23:59:61"] {
            assert_eq!(read(&format!("31 Dec 2016 {text} +0000")), "no date", "{text}");
        }
    }

    #[test]
    fn other_forms() {
        for text in [
            "2026-03-02T09:30:00Z",
            "2026-03-02 09:30:00 +0000",
            "2026-03-02T10:30:00.123+01:00",
            "2026/03/02 09:30",
            "Mon Mar  2 09:30:00 2026",
            "Mon Mar  2 10:30:00 2026 +0100",
            "Mon Mar 2 09:30:00 UTC 2026",
            "Mon Mar 02 2026 10:30:00 GMT+0100 (Central European Standard Time)",
            "2-Mar-2026 09:30:00 +0000",
            "02-Mar-26 09:30",
            "March 2, 2026 9:30 AM",
            "March 2, 2026 at 10:30:00 AM +0100",
            "2026 Mar 2 09:30:00 GMT",
            "Montag, 2 Mar 2026 09:30:00 +0",
            "Mon, 2 Mar 2026 10:30:00 +1",
            "Mon, 2 Mar 2026 09:30:00 +9999",
            "Mon, 2 Mar 2026 09:30:00 +00:999999999",
            "Mon, 2. Mar 2026 09:30:00 +0000",
            "09:30:00 2 Mar 2026",
            "Mon, 2 Mar 2026 04:30:00 EST5EDT",
        ] {
            assert_eq!(read(text), MONDAY, "{text}");
        }
        assert_eq!(read("2 Mar 2026 12:05 AM"), "2026-03-02T00:05:00Z");
        assert_eq!(read("2 Mar 2026 12:05 PM"), "2026-03-02T12:05:00Z");
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "yesterday",
            "Mon, 2 Mar 2026",
            "09:30:00 +0000",
            "31 Feb 2026 09:30 GMT",
            "0 Mar 2026 09:30 GMT",
            "29 Feb 2025 09:30 GMT",
            "02/03/26 09:30",
            "2 Mar 20260 09:30 GMT",
            "2 Mar 2026 09",
            "2 Foo 2026 09:30 GMT",
            "99999999999999999999 Mar 2026 09:30",
            "2 Mar 2026 (09:30",
        ] {
            assert_eq!(read(text), "no date", "{text}");
        }
        assert_eq!(read("29 Feb 2024 09:30 GMT"), "2024-02-29T09:30:00Z");
        assert_eq!(read("29 Feb 1900 09:30 GMT"), "no date");
    }

    proptest! {
        #[test]
        fn every_day_is_that_of_another_implementation(ms in -2_000_000_000_000i64..200_000_000_000_000) {
            let time = jiff::Timestamp::from_millisecond(ms / 1000 * 1000).expect("a timestamp");
            let text = time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
            prop_assert_eq!(date_ms(&text), Some(time.as_millisecond()), "{}", text);
        }

        #[test]
        fn any_text_is_read(text in "([0-9:+,/. -]|Mon|Mar|EST|AM|\\PC|\\(){0,40}") {
            date_ms(&text);
        }
    }
}
