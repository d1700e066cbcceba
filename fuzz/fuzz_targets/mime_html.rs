//! HTML turned into text: any HTML gives text, and not more of it than there was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_mime::html_to_text;

fuzz_target!(|data: &[u8]| {
    let Ok(html) = std::str::from_utf8(data) else { return };
    let text = html_to_text(html);
    // The shortest reference that becomes a longer character than it is itself has as many bytes as that.
    assert!(text.len() <= 2 * html.len(), "{} bytes of {}", text.len(), html.len());
});
