//! Lists of addresses in header fields: any text is read, and what is given as an address is that address when it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_mime::{Separator, addresses};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for separator in [Separator::Comma, Separator::CommaOrSemicolon] {
        for one in addresses(text, separator) {
            assert!(!one.name.is_empty() || !one.email.is_empty(), "a member that is nothing");
            if !one.email.is_empty() {
                let again: Vec<String> = addresses(&one.email, Separator::Comma).map(|one| one.email).collect();
                assert_eq!(again, [one.email], "an address has one form");
            }
        }
    }
});
