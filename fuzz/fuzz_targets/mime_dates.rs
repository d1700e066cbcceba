//! Dates in header fields: any text is a date or none, within the years that four digits have.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_mime::date_ms;

/// 1 January 10000, and a hundred hours for the zone, milliseconds.
const END_MS: i64 = 253_402_300_800_000 + 360_000_000;
/// 1 January of the year 0, the same.
const BEGIN_MS: i64 = -62_167_219_200_000 - 360_000_000;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(ms) = date_ms(text) {
        assert!((BEGIN_MS..END_MS).contains(&ms), "{ms}");
        assert_eq!(ms % 1000, 0, "a date has whole seconds");
    }
});
