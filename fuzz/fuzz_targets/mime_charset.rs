//! Bytes in a charset that a sender names: any bytes give text, whatever they are called.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_mime::to_text;

fuzz_target!(|data: &[u8]| {
    // A name, a zero, and the bytes.
    let Some(end) = data.iter().position(|byte| *byte == 0) else { return };
    let Ok(charset) = std::str::from_utf8(&data[..end]) else { return };
    let bytes = &data[end + 1..];
    let text = to_text(bytes, charset);
    // A byte that is no text becomes a character of three bytes, and so does one of half-width katakana.
    assert!(text.len() <= 3 * bytes.len(), "{} bytes of {}", text.len(), bytes.len());
});
