//! Delivery status notifications and complaints that others send.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_mime::dsn::{complained, complaint, from_xtext, read_delivery_report, returned};
use postrider_mime::reports::domain_reports;

fuzz_target!(|data: &[u8]| {
    if let Some(report) = read_delivery_report(data) {
        assert!(!report.recipients.is_empty());
        for recipient in report.recipients {
            assert!(!recipient.address.contains(char::is_control));
        }
    }
    if let Some(complaint) = complaint(data) {
        complained(&complaint);
    }
    domain_reports(data);
    // The content alone, in a part of its own.
    let mut part = b"Content-Type: application/octet-stream; name=a.xml.gz\r\n\r\n".to_vec();
    part.extend_from_slice(data);
    domain_reports(&part);
    for said in returned(data) {
        assert!(!said.detail.contains(char::is_control) && said.code.len() <= 11);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        from_xtext(text);
    }
});
