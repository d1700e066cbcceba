//! A delivery status notification: what the sender of a message is told of what became of it.
//!
//! Invariant: nothing that came from outside begins a line of the report's own fields: control characters become spaces.
//! Invariant: the report has the null reverse-path when it is sent, and says so of itself (RFC 3834 section 5), so nobody answers
//! it.

use std::fmt;

use mail_builder::headers::date::Date;

use super::xtext::from_xtext;

/// Bytes of a message that is given back whole; of a longer one its header is. Below what goes to blob storage: a report is filed in one
/// piece.
pub const RETURNED_BYTES_MAX: usize = 96 * 1024;
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
    /// ENVID as it was given, xtext; empty where there was none.
    pub envelope_id: String,
    /// What became of whom; not empty.
    pub recipients: Vec<ReportedRecipient>,
    /// A sentence for people; may be empty.
    pub remark: String,
    /// What is given back of the message.
    pub returned: Returned,
}

/// What is given back of a message (RFC 3461 section 4.3).
#[derive(Debug, Clone, Default)]
pub enum Returned {
    /// Nothing.
    #[default]
    Nothing,
    /// Its header section. Bytes behind it are not given back.
    Header(Vec<u8>),
    /// All of it, up to [`RETURNED_BYTES_MAX`]; of a longer message its header.
    Whole(Vec<u8>),
}

/// What became of a recipient (RFC 3464 section 2.3.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// He did not get it, and will not.
    #[default]
    Failed,
    /// He does not have it yet, and it is tried again.
    Delayed,
    /// It was given to a host that tells nobody what becomes of it.
    Relayed,
    /// He has it.
    Delivered,
}

/// A recipient, and what became of him.
#[derive(Debug, Clone, Default)]
pub struct ReportedRecipient {
    /// As the sender named him.
    pub address: String,
    /// ORCPT as it was given, `type;xtext`; empty where there was none.
    pub original: String,
    /// What became of him.
    pub action: Action,
    /// RFC 3463, of the action's class.
    pub status: String,
    /// The host that said so; empty where it was us.
    pub remote_mta: String,
    /// What the host said, or a sentence of ours.
    pub reason: String,
    /// When he was tried last, milliseconds since the Unix epoch; 0: never.
    pub last_attempt_ms: i64,
    /// DELAYED: until when he is tried, milliseconds since the Unix epoch; 0: not known.
    pub retry_until_ms: i64,
}

impl Action {
    /// As field `Action` has it.
    fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
            Self::Delivered => "delivered",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::Failed => "Your message could not be delivered",
            Self::Delayed => "Your message has not been delivered yet",
            Self::Relayed => "Your message was handed on",
            Self::Delivered => "Your message was delivered",
        }
    }

    /// What stands before the names of those whom it became of.
    fn sentence(self) -> &'static str {
        match self {
            Self::Failed => "could not be delivered to:",
            Self::Delayed => {
                "has not been delivered yet to the following; it is tried again, and nothing has to be done:"
            }
            Self::Relayed => "was handed to a host that does not tell what becomes of it, for:",
            Self::Delivered => "was delivered to:",
        }
    }
}

/// Lines with their ends.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        self.0.extend_from_slice(line.to_string().as_bytes());
        self.0.extend_from_slice(b"\r\n");
    }
}

/// Writes the report as a message: `multipart/report` with a text, the fields of RFC 3464 for each recipient, and what is given back
/// of the message that it is about. Where an address is not ASCII the parts are those of RFC 6533.
pub fn delivery_report(report: &DeliveryReport) -> Vec<u8> {
    let boundary = format!("report-{}", hex::encode(&blake3::hash(report.message_id.as_bytes()).as_bytes()[..12]));
    let mut out = Lines::default();
    header(report, &boundary, &mut out);
    out.line(format_args!("\r\n--{boundary}"));
    text(report, &mut out);
    let is_ascii = report.recipients.iter().all(|recipient| recipient.address.is_ascii());
    let status_type = if is_ascii { "message/delivery-status" } else { "message/global-delivery-status" };
    out.line(format_args!("--{boundary}\r\nContent-Type: {status_type}\r\nContent-Transfer-Encoding: 8bit\r\n"));
    status(report, &mut out);
    returned(&report.returned, &boundary, &mut out);
    out.line(format_args!("\r\n--{boundary}--"));
    out.0
}

fn header(report: &DeliveryReport, boundary: &str, out: &mut Lines) {
    let worst = report.recipients.iter().map(|recipient| recipient.action).min().unwrap_or_default();
    out.line(format_args!("From: Mail Delivery <postmaster@{}>", one_line(&report.reporting_mta)));
    out.line(format_args!("To: <{}>", one_line(&report.to)));
    out.line(format_args!("Subject: {}", worst.subject()));
    out.line(format_args!("Date: {}", date(report.date_ms)));
    out.line(format_args!("Message-ID: <{}>", one_line(&report.message_id)));
    out.line(format_args!("Auto-Submitted: auto-replied"));
    out.line(format_args!("MIME-Version: 1.0"));
    out.line(format_args!("Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\""));
}

/// The part for people.
fn text(report: &DeliveryReport, out: &mut Lines) {
    out.line(format_args!("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"));
    for action in [Action::Failed, Action::Delayed, Action::Relayed, Action::Delivered] {
        let mut of_action = report.recipients.iter().filter(|recipient| recipient.action == action).peekable();
        if of_action.peek().is_none() {
            continue;
        }
        out.line(format_args!("Your message of {} {}\r\n", date(report.arrival_ms), action.sentence()));
        for recipient in of_action {
            out.line(format_args!("  {}", one_line(&recipient.address)));
            match recipient.remote_mta.is_empty() {
                true => out.line(format_args!("    {}", one_line(&recipient.reason))),
                false => out.line(format_args!(
                    "    {} said: {}",
                    one_line(&recipient.remote_mta),
                    one_line(&recipient.reason)
                )),
            }
            if action == Action::Delayed && recipient.retry_until_ms > 0 {
                out.line(format_args!("    It is tried until {}.", date(recipient.retry_until_ms)));
            }
            out.line(format_args!(""));
        }
    }
    if !report.remark.is_empty() {
        out.line(format_args!("{}\r\n", one_line(&report.remark)));
    }
}

/// The part for programs (RFC 3464 sections 2.2 and 2.3).
fn status(report: &DeliveryReport, out: &mut Lines) {
    if !report.envelope_id.is_empty() {
        out.line(format_args!("Original-Envelope-Id: {}", one_line(&from_xtext(&report.envelope_id))));
    }
    out.line(format_args!("Reporting-MTA: dns; {}", one_line(&report.reporting_mta)));
    out.line(format_args!("Arrival-Date: {}", date(report.arrival_ms)));
    for recipient in &report.recipients {
        out.line(format_args!(""));
        if let Some((kind, value)) = recipient.original.split_once(';') {
            let value = from_xtext(value.trim());
            // A value that names its type once more is seen, and read by nobody (`rfc822;rfc822;a@b`).
            let twice = format!("{kind};");
            let value = value.strip_prefix(twice.as_str()).unwrap_or(&value).trim_start();
            out.line(format_args!("Original-Recipient: {};{}", one_line(kind.trim()), one_line(value)));
        }
        let kind = if recipient.address.is_ascii() { "rfc822" } else { "utf-8" };
        out.line(format_args!("Final-Recipient: {kind}; {}", one_line(&recipient.address)));
        out.line(format_args!("Action: {}", recipient.action.word()));
        out.line(format_args!("Status: {}", one_line(&recipient.status)));
        match recipient.remote_mta.is_empty() {
            true => out.line(format_args!("Diagnostic-Code: x-postrider; {}", one_line(&recipient.reason))),
            false => {
                out.line(format_args!("Remote-MTA: dns; {}", one_line(&recipient.remote_mta)));
                out.line(format_args!("Diagnostic-Code: smtp; {}", one_line(&recipient.reason)));
            }
        }
        if recipient.last_attempt_ms > 0 {
            out.line(format_args!("Last-Attempt-Date: {}", date(recipient.last_attempt_ms)));
        }
        if recipient.action == Action::Delayed && recipient.retry_until_ms > 0 {
            out.line(format_args!("Will-Retry-Until: {}", date(recipient.retry_until_ms)));
        }
    }
}

fn returned(returned: &Returned, boundary: &str, out: &mut Lines) {
    let (bytes, is_whole) = match returned {
        Returned::Nothing => return,
        Returned::Whole(message) if message.len() <= RETURNED_BYTES_MAX => (&message[..], true),
        Returned::Whole(message) | Returned::Header(message) => (whole_lines(message), false),
    };
    let is_header_ascii = whole_lines(bytes).is_ascii();
    let kind = match (is_whole, is_header_ascii) {
        (true, true) => "message/rfc822",
        (true, false) => "message/global",
        (false, true) => "text/rfc822-headers",
        (false, false) => "message/global-headers",
    };
    let encoding = if bytes.is_ascii() { "7bit" } else { "8bit" };
    out.line(format_args!("\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n"));
    out.0.extend_from_slice(bytes);
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
    use mail_parser::{MessageParser, MimeHeaders as _};

    use super::*;

    const HEADER: &[u8] = b"Subject: Hello\r\nX-Long: a\r\n b\r\n\r\nThe body is not given back.\r\n";

    fn report() -> DeliveryReport {
        DeliveryReport {
            reporting_mta: "postrider.example".to_owned(),
            to: "ada@postrider.example".to_owned(),
            arrival_ms: 1_790_000_000_000,
            date_ms: 1_790_000_100_000,
            message_id: "r1@postrider.example".to_owned(),
            envelope_id: "id+2B1".to_owned(),
            recipients: vec![
                ReportedRecipient {
                    address: "bob@far.example".to_owned(),
                    original: "rfc822;Bob+2Bx@far.example".to_owned(),
                    status: "5.2.2".to_owned(),
                    remote_mta: "mx.far.example".to_owned(),
                    reason: "552 5.2.2 full\r\nFinal-Recipient: rfc822; eve@far.example".to_owned(),
                    last_attempt_ms: 1_790_000_050_000,
                    ..ReportedRecipient::default()
                },
                ReportedRecipient {
                    address: "cleo@postrider.example".to_owned(),
                    original: "rfc822;rfc822;cleo@postrider.example".to_owned(),
                    status: "5.1.1".to_owned(),
                    reason: "there is no such user any more".to_owned(),
                    ..ReportedRecipient::default()
                },
            ],
            remark: String::new(),
            returned: Returned::Header(HEADER.to_vec()),
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
    fn what_the_sender_gave_comes_back_as_he_meant_it() {
        let text = String::from_utf8(delivery_report(&report())).unwrap();
        assert!(text.contains("\r\nOriginal-Envelope-Id: id+1\r\n"), "{text}");
        assert!(text.contains("\r\nOriginal-Recipient: rfc822;Bob+x@far.example\r\n"), "{text}");
        assert!(text.contains("\r\nOriginal-Recipient: rfc822;cleo@postrider.example\r\n"), "{text}");
        assert!(text.contains("\r\nRemote-MTA: dns; mx.far.example\r\nDiagnostic-Code: smtp; 552 5.2.2 full  Final"));
        assert!(!text.contains("rfc822; rfc822;") && !text.contains("rfc822;rfc822;"));
    }

    #[test]
    fn a_delay_says_until_when_and_the_worst_is_the_subject() {
        let mut report = report();
        report.recipients[0].action = Action::Delayed;
        report.recipients[0].retry_until_ms = 1_790_400_000_000;
        report.recipients[1].action = Action::Relayed;
        let text = String::from_utf8(delivery_report(&report)).unwrap();
        assert!(text.contains("Subject: Your message has not been delivered yet\r\n"));
        assert!(text.contains("\r\nAction: delayed\r\n") && text.contains("\r\nWill-Retry-Until: "));
        assert!(text.contains("\r\nAction: relayed\r\n"));
    }

    #[test]
    fn an_address_that_is_not_ascii_has_the_forms_of_rfc_6533() {
        let mut report = report();
        report.recipients[1].address = "jörg@postrider.example".to_owned();
        let text = String::from_utf8(delivery_report(&report)).unwrap();
        assert!(text.contains("Content-Type: message/global-delivery-status\r\n"));
        assert!(text.contains("Final-Recipient: utf-8; jörg@postrider.example\r\n"), "{text}");
        report.returned = Returned::Whole("Subject: Grüße\r\n\r\nHello\r\n".into());
        let text = String::from_utf8(delivery_report(&report)).unwrap();
        assert!(text.contains("Content-Type: message/global\r\n") && text.contains("Hello"), "{text}");
    }

    #[test]
    fn a_long_header_is_cut_at_a_line_and_a_long_message_at_its_header() {
        let header = b"X-Filler: 0123456789\r\n".repeat(10_000);
        let bytes = delivery_report(&DeliveryReport { returned: Returned::Header(header), ..report() });
        assert!(bytes.len() < HEADER_BYTES_MAX + 4096);
        assert!(bytes.windows(26).any(|window| window == b"X-Filler: 0123456789\r\n\r\n--"));
        let mut message = HEADER.to_vec();
        let whole = delivery_report(&DeliveryReport { returned: Returned::Whole(message.clone()), ..report() });
        assert!(String::from_utf8(whole).unwrap().contains("not given back"));
        message.resize(RETURNED_BYTES_MAX + 1, b'x');
        let cut = delivery_report(&DeliveryReport { returned: Returned::Whole(message), ..report() });
        assert!(cut.len() < 4096);
    }
}
