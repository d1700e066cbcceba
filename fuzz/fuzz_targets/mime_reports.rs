//! Delivery status notifications and complaints that others send.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_mime::dsn::{complaint, from_xtext, read_delivery_report};

fuzz_target!(|data: &[u8]| {
    if let Some(report) = read_delivery_report(data) {
        assert!(!report.recipients.is_empty());
        for recipient in report.recipients {
            assert!(!recipient.address.contains(char::is_control));
        }
    }
    complaint(data);
    if let Ok(text) = std::str::from_utf8(data) {
        from_xtext(text);
    }
});
