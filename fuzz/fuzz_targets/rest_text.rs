//! What clients of REST hand in as text: cursors, colours, keywords, tokens, codes, uploads, ranges, addresses of people and of images.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_api::address::Address;
use postrider_api::keyword::Keywords;
use postrider_frontend::account::token::Token;
use postrider_frontend::account::totp::fuzz_shown;
use postrider_frontend::rest::{fuzz_color, fuzz_cursor, fuzz_grant, fuzz_upload};
use postrider_mime::ByteRange;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    fuzz_cursor(text);
    fuzz_color(text);
    fuzz_grant(text);
    fuzz_shown(text);
    fuzz_upload(data);
    if let Some(keyword) = Keywords::named(text) {
        assert!(keyword.names().eq([text.to_ascii_lowercase()]), "{keyword:?} has one name");
    }
    if let Some(token) = Token::parse(text) {
        assert_eq!(token.text(), text, "a token has one form");
    }
    if let Some(range) = ByteRange::parse(text) {
        for length in [0, 1, 1000, u64::MAX] {
            if let Some(bytes) = range.resolve(length) {
                assert!(bytes.start < bytes.end && bytes.end <= length, "{bytes:?} of {length}");
            }
        }
    }
    if let Ok(address) = Address::parse(text) {
        let again = Address::parse(address.as_str()).expect("the canonical form is an address");
        assert_eq!(again.as_str(), address.as_str(), "the canonical form is its own");
    }
});
