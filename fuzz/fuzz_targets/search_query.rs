//! What people type into a search box.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_frontend::search::{Reading, fuzz_query};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for as_you_type in [false, true] {
        fuzz_query(text, Reading { as_you_type, now_ms: 1_790_000_000_000 });
    }
});
