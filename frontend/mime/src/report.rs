//! Delivery status notifications (RFC 3464): what the sender of a message is told that could not be delivered.
//!
//! Invariant: nothing that came from outside begins a line of the report's own fields: control characters become spaces.
//! Invariant: the report has the null reverse-path when it is sent, and says so of itself (RFC 3834 section 5), so nobody answers
//! it.

use mail_builder::headers::date::Date;

/// Bytes of the original header that are given back: it tells which message it was.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// A reason, characters: with its field's name a line of fewer than 998 bytes in any script (RFC 5322 section 2.1.1).
const REASON_CHARS_MAX: usize = 200;

/// What became of a message.
#[derive(Debug, Clone, Default)]
pub struct DeliveryReport {
    /// The host that tells it (RFC 3464 section 2.2.2).
    pub reporting_mta: String,
    /// Whose reverse-path it was: who is told.
    pub to: String,
    /// When the message came, milliseconds since the Unix epoch.
    pub arrival_ms: i64,
    /// Now, milliseconds since the Unix epoch.
    pub date_ms: i64,
    /// The report's own id, without angle brackets; never used before.
    pub message_id: String,
    /// Who did not get it.
    pub failed: Vec<FailedDelivery>,
    /// A sentence for people; may be empty.
    pub remark: String,
    /// The header section of the message, as it arrived.
    pub header: Vec<u8>,
}

/// A recipient who did not get the message.
#[derive(Debug, Clone, Default)]
pub struct FailedDelivery {
    /// As the sender named him.
    pub address: String,
    /// RFC 3463, of class 5.
    pub status: String,
    /// Why.
    pub reason: String,
}

/// Writes the report as a message: `multipart/report` with a text, the fields of RFC 3464 for each recipient, and the header of
/// the message that it is about. Where an address is not ASCII the two parts are those of RFC 6533.
pub fn delivery_report(report: &DeliveryReport) -> Vec<u8> {
    let host = one_line(&report.reporting_mta);
    let to = one_line(&report.to);
    let boundary = format!("report-{}", hex::encode(&blake3::hash(report.message_id.as_bytes()).as_bytes()[..12]));
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.push_str(&line.to_string());
        text.push_str("\r\n");
    };
    line(format_args!("From: Mail Delivery <postmaster@{host}>"));
    line(format_args!("To: <{to}>"));
    line(format_args!("Subject: Your message could not be delivered"));
    line(format_args!("Date: {}", date(report.date_ms)));
    line(format_args!("Message-ID: <{}>", one_line(&report.message_id)));
    line(format_args!("Auto-Submitted: auto-replied"));
    line(format_args!("MIME-Version: 1.0"));
    line(format_args!("Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\""));
    line(format_args!("\r\n--{boundary}"));
    line(format_args!("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"));
    line(format_args!("Your message of {} could not be delivered to:\r\n", date(report.arrival_ms)));
    for failed in &report.failed {
        line(format_args!("  {}\r\n    {}\r\n", one_line(&failed.address), one_line(&failed.reason)));
    }
    if !report.remark.is_empty() {
        line(format_args!("{}\r\n", one_line(&report.remark)));
    }
    let is_ascii = report.failed.iter().all(|failed| failed.address.is_ascii()) && report.header.is_ascii();
    let (status_type, header_type, address_type) = match is_ascii {
        true => ("message/delivery-status", "text/rfc822-headers", "rfc822"),
        false => ("message/global-delivery-status", "message/global-headers", "utf-8"),
    };
    let encoding = if is_ascii { "7bit" } else { "8bit" };
    line(format_args!("--{boundary}\r\nContent-Type: {status_type}\r\nContent-Transfer-Encoding: 8bit\r\n"));
    line(format_args!("Reporting-MTA: dns; {host}"));
    line(format_args!("Arrival-Date: {}", date(report.arrival_ms)));
    for failed in &report.failed {
        line(format_args!("\r\nFinal-Recipient: {address_type}; {}", one_line(&failed.address)));
        line(format_args!("Action: failed"));
        line(format_args!("Status: {}", one_line(&failed.status)));
        line(format_args!("Diagnostic-Code: x-postrider; {}", one_line(&failed.reason)));
    }
    line(format_args!("\r\n--{boundary}\r\nContent-Type: {header_type}\r\nContent-Transfer-Encoding: {encoding}\r\n"));
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(whole_lines(&report.header));
    bytes.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    bytes
}

/// The header up to its end, or as many whole lines of it as are given back.
fn whole_lines(header: &[u8]) -> &[u8] {
    let header = &header[..memchr::memmem::find(header, b"\r\n\r\n").map_or(header.len(), |end| end + 2)];
    if header.len() <= HEADER_BYTES_MAX {
        return header;
    }
    let cut = &header[..HEADER_BYTES_MAX];
    &cut[..memchr::memmem::rfind(cut, b"\r\n").map_or(0, |end| end + 2)]
}

fn one_line(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn date(ms: i64) -> String {
    Date::new(ms.div_euclid(1000)).to_rfc822()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders as _};

    fn report() -> DeliveryReport {
        DeliveryReport {
            reporting_mta: "postrider.example".to_owned(),
            to: "ada@postrider.example".to_owned(),
            arrival_ms: 1_790_000_000_000,
            date_ms: 1_790_000_100_000,
            message_id: "r1@postrider.example".to_owned(),
            failed: vec![
                FailedDelivery {
                    address: "bob@postrider.example".to_owned(),
                    status: "5.2.2".to_owned(),
                    reason: "the mailbox is full\r\nFinal-Recipient: rfc822; eve@far.example".to_owned(),
                },
                FailedDelivery {
                    address: "cleo@postrider.example".to_owned(),
                    status: "5.1.1".to_owned(),
                    reason: "there is no such user any more".to_owned(),
                },
            ],
            remark: String::new(),
            header: b"Subject: Hello\r\nX-Long: a\r\n b\r\n\r\nThe body is not given back.\r\n".to_vec(),
        }
    }

    #[test]
    fn a_report_has_a_block_for_each_recipient_and_the_header_of_the_message() {
        let bytes = delivery_report(&report());
        let parsed = MessageParser::new().parse(&bytes).unwrap();
        let content_type = parsed.content_type().unwrap();
        assert_eq!((content_type.ctype(), content_type.subtype()), ("multipart", Some("report")));
        assert_eq!(content_type.attribute("report-type"), Some("delivery-status"));
        let text = String::from_utf8(bytes.clone()).unwrap();
        // RFC 3464 section 2.1: a block for each, and the reason of one does not become another.
        assert_eq!(text.matches("\r\nFinal-Recipient: rfc822; ").count(), 2, "{text}");
        assert!(!text.contains("\r\nFinal-Recipient: rfc822; eve"), "{text}");
        assert_eq!(text.matches("\r\nAction: failed\r\nStatus: 5.").count(), 2);
        assert!(text.contains("Subject: Hello\r\nX-Long: a\r\n b\r\n"));
        assert!(!text.contains("not given back"));
        assert!(text.contains("Auto-Submitted: auto-replied\r\n"));
        assert_eq!(parsed.parts.len(), 4);
    }

    #[test]
    fn an_address_that_is_not_ascii_has_the_forms_of_rfc_6533() {
        let mut report = report();
        report.failed[1].address = "jörg@postrider.example".to_owned();
        let text = String::from_utf8(delivery_report(&report)).unwrap();
        assert!(text.contains("Content-Type: message/global-delivery-status\r\n"));
        assert!(text.contains("Final-Recipient: utf-8; jörg@postrider.example\r\n"), "{text}");
    }

    #[test]
    fn a_long_header_is_cut_at_a_line() {
        let header = b"X-Filler: 0123456789\r\n".repeat(10_000);
        let bytes = delivery_report(&DeliveryReport { header, ..report() });
        assert!(bytes.len() < HEADER_BYTES_MAX + 4096);
        assert!(bytes.windows(26).any(|window| window == b"X-Filler: 0123456789\r\n\r\n--"));
    }
}
