//! Reports that others send: what became of our mail, and who complains of it.

use super::fields::{self, Group};
use crate::decode::decoded_head;
use crate::structure::{self, Structure};

/// Recipients of one report that are looked at.
const RECIPIENTS_MAX: usize = 1000;
/// Bytes of the part for programs that are looked at.
const STATUS_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the returned message's header that are looked at.
const RETURNED_BYTES_MAX: usize = 64 * 1024;

/// A delivery status notification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadReport {
    /// ENVID as it was meant; empty where there is none.
    pub envelope_id: String,
    /// Message-ID of the message that it is about, without angle brackets; empty where it is not given back.
    pub original_message_id: String,
    /// What became of whom.
    pub recipients: Vec<ReadRecipient>,
}

/// What a report says of one recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadRecipient {
    /// Final-Recipient, without its type.
    pub address: String,
    /// Original-Recipient, without its type; empty where there is none.
    pub original: String,
    /// `failed`, `delayed`, `delivered`, `relayed`, `expanded`, in lower case.
    pub action: String,
    /// RFC 3463.
    pub status: String,
    /// What a host said; empty where there is none.
    pub diagnostic: String,
}

/// A complaint (RFC 5965).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaint {
    /// `abuse`, `fraud`, `not-spam` and so on, in lower case.
    pub kind: String,
    /// Who complains, where that is said.
    pub recipients: Vec<String>,
    /// The reverse-path of the message that is complained of.
    pub mail_from: String,
    /// Its Message-ID, without angle brackets.
    pub original_message_id: String,
    /// Its Return-Path field, where the message is given back: what whoever complains was sent it with.
    pub return_path: String,
    /// Its ENVID.
    pub envelope_id: String,
}

/// Reads a delivery status notification; `None` where the message is none.
pub fn read_delivery_report(raw: &[u8]) -> Option<ReadReport> {
    let structure = structure::parse(raw);
    let kinds = ["message/delivery-status", "message/global-delivery-status"];
    let body = part(&structure, raw, &kinds, STATUS_BYTES_MAX)?;
    let mut groups = fields::groups(&body, RECIPIENTS_MAX + 1).into_iter();
    let first = groups.next()?;
    let mut report = ReadReport {
        envelope_id: first.value("Original-Envelope-Id").unwrap_or_default().to_owned(),
        original_message_id: original_message_id(&structure, raw),
        recipients: Vec::new(),
    };
    // Reports are seen whose fields of the message stand in one block with those of the first recipient.
    report.recipients = std::iter::once(first).chain(groups).filter_map(|group| recipient(&group)).collect();
    (!report.recipients.is_empty()).then_some(report)
}

/// Reads a complaint; `None` where the message is none.
pub fn complaint(raw: &[u8]) -> Option<Complaint> {
    let structure = structure::parse(raw);
    let body = part(&structure, raw, &["message/feedback-report"], STATUS_BYTES_MAX)?;
    let groups = fields::groups(&body, 1);
    let group = groups.first()?;
    let kind = group.value("Feedback-Type")?.to_ascii_lowercase();
    let bare = |address: &str| address.trim_matches(['<', '>', ' ']).to_owned();
    Some(Complaint {
        kind,
        recipients: group.values("Original-Rcpt-To").take(RECIPIENTS_MAX).map(bare).collect(),
        mail_from: group.value("Original-Mail-From").map(bare).unwrap_or_default(),
        original_message_id: original_message_id(&structure, raw),
        return_path: original(&structure, raw, "Return-Path"),
        envelope_id: group.value("Original-Envelope-Id").unwrap_or_default().to_owned(),
    })
}

/// The beginning of the first part of one of these kinds, decoded.
fn part(structure: &Structure, raw: &[u8], kinds: &[&str], bytes_max: usize) -> Option<Vec<u8>> {
    let node = structure.nodes.iter().find(|node| kinds.contains(&node.header.content_type.as_str()))?;
    Some(decoded_head(node.header.encoding, &raw[node.body.clone()], bytes_max))
}

fn original_message_id(structure: &Structure, raw: &[u8]) -> String {
    original(structure, raw, "Message-ID")
}

/// A field of the message that is given back, without angle brackets.
fn original(structure: &Structure, raw: &[u8], name: &str) -> String {
    let kinds = ["message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"];
    let Some(header) = part(structure, raw, &kinds, RETURNED_BYTES_MAX) else { return String::new() };
    let groups = fields::groups(&header, 1);
    let value = groups.first().and_then(|group| group.value(name)).unwrap_or_default();
    value.trim_matches(['<', '>', ' ']).to_owned()
}

fn recipient(group: &Group) -> Option<ReadRecipient> {
    let named = |field: &str| {
        let value = group.value(field)?;
        // RFC 3464 section 2.1.2: a type and a value. Hosts are seen that leave the type away.
        Some(value.split_once(';').map_or(value, |(_, value)| value).trim_matches(['<', '>', ' ']).to_owned())
    };
    Some(ReadRecipient {
        address: named("Final-Recipient")?,
        original: named("Original-Recipient").unwrap_or_default(),
        action: group.value("Action")?.split_whitespace().next()?.to_ascii_lowercase(),
        status: group
            .value("Status")
            .and_then(|status| status.split_whitespace().next())
            .unwrap_or_default()
            .to_owned(),
        diagnostic: named("Diagnostic-Code").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::compose::{Action, DeliveryReport, ReportedRecipient, Returned, delivery_report};
    use super::*;

    #[test]
    fn our_own_reports_are_read() {
        for address in ["bob@far.example", "jörg@far.example"] {
            let report = DeliveryReport {
                reporting_mta: "near.example".to_owned(),
                message_id: "r1@near.example".to_owned(),
                envelope_id: "e+2B1".to_owned(),
                recipients: vec![ReportedRecipient {
                    address: address.to_owned(),
                    original: "rfc822;Bob@far.example".to_owned(),
                    action: Action::Failed,
                    status: "5.1.1".to_owned(),
                    remote_mta: "mx.far.example".to_owned(),
                    reason: "550 5.1.1 nobody".to_owned(),
                    ..ReportedRecipient::default()
                }],
                returned: Returned::Header(b"Message-ID: <m1@near.example>\r\nSubject: x\r\n\r\n".to_vec()),
                ..DeliveryReport::default()
            };
            let read = read_delivery_report(&delivery_report(&report)).unwrap();
            assert_eq!(read.envelope_id, "e+1");
            assert_eq!(read.original_message_id, "m1@near.example");
            assert_eq!(
                read.recipients,
                [ReadRecipient {
                    address: address.to_owned(),
                    original: "Bob@far.example".to_owned(),
                    action: "failed".to_owned(),
                    status: "5.1.1".to_owned(),
                    diagnostic: "550 5.1.1 nobody".to_owned(),
                }]
            );
        }
    }

    #[test]
    fn a_complaint_is_read() {
        // After the example of RFC 5965, appendix B.2, with names of our own.
        let raw = b"From: <abuse@far.example>\r\nMIME-Version: 1.0\r\n\
            Content-Type: multipart/report; report-type=feedback-report; boundary=\"b\"\r\n\r\n\
            --b\r\nContent-Type: text/plain\r\n\r\nA complaint.\r\n\
            --b\r\nContent-Type: message/feedback-report\r\n\r\n\
            Feedback-Type: Abuse\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\nOriginal-Mail-From: <ada@near.example>\r\n\
            Original-Rcpt-To: <bob@far.example>\r\nOriginal-Rcpt-To: eve@far.example\r\n\r\n\
            --b\r\nContent-Type: message/rfc822\r\n\r\nReturn-Path: <b0=x@near.example>\r\nMessage-ID: <m1@near.example>\r\nSubject: Buy\r\n\r\nnow\r\n--b--\r\n";
        let complaint = complaint(raw).unwrap();
        assert_eq!((complaint.kind.as_str(), complaint.mail_from.as_str()), ("abuse", "ada@near.example"));
        assert_eq!(complaint.recipients, ["bob@far.example", "eve@far.example"]);
        assert_eq!(complaint.original_message_id, "m1@near.example");
        assert_eq!(complaint.return_path, "b0=x@near.example");
        assert_eq!(read_delivery_report(raw), None);
    }

    #[test]
    fn what_is_no_report_is_none_and_what_is_endless_is_bounded() {
        assert_eq!(read_delivery_report(b"Subject: x\r\n\r\nFinal-Recipient: rfc822; a@b\r\n"), None);
        assert_eq!(complaint(b""), None);
        let block = "Final-Recipient: rfc822; a@b\r\nAction: failed\r\n\r\n".repeat(100_000);
        let raw = format!("Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n{block}");
        assert_eq!(read_delivery_report(raw.as_bytes()).unwrap().recipients.len(), RECIPIENTS_MAX);
        let raw = format!(
            "Content-Type: message/delivery-status\r\n\r\nFinal-Recipient: {}\r\nAction: failed\r\n",
            "x".repeat(2_000_000)
        );
        assert!(read_delivery_report(raw.as_bytes()).is_none_or(|read| read.recipients[0].address.len() <= 1000));
    }
}
