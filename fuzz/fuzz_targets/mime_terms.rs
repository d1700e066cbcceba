//! Any text is cut into terms: bounded ones, in order, each of what stands where it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_mime::terms::{TERM_BYTES_MAX, cut};

fuzz_target!(|text: &str| {
    let (mut next, mut last) = (0, 0);
    cut(text, |term| {
        assert!(!term.text.is_empty() && term.text.len() <= TERM_BYTES_MAX && !term.text.contains('\n'));
        assert!(term.position == next && term.source.start >= last && text.get(term.source.clone()).is_some());
        (next, last) = (next + 1, term.source.start);
    });
});
