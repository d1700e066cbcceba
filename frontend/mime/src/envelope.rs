//! The envelope: what lists and threads show of the header.

use std::ops::ControlFlow;

use prost::Message as _;

use postrider_api::limit::{ADDRESS_BYTES_MAX, HEADER_ADDRESSES_MAX, NAME_BYTES_MAX, SUBJECT_BYTES_MAX};
use postrider_api::pb;

use super::addresses::{HeaderMailbox, Separator};
use super::field::{self, Known, Name};
use super::ids::ids;
use super::limit::{ENVELOPE_BYTES_MAX, MESSAGE_ID_BYTES_MAX};
use super::text::in_line;

/// What a mailbox takes around its bytes: key and length.
const FIELD_OVERHEAD_BYTES: usize = 4;

/// Reads the envelope. `charset` is what the body names: what undeclared 8-bit text in the header is taken for.
pub(super) fn read(raw: &[u8], top: &Known, charset: &str) -> pb::Envelope {
    let mut envelope = pb::Envelope {
        subject: in_line(&field::unstructured(top.value(raw, Name::Subject), charset), SUBJECT_BYTES_MAX),
        date_ms: field::date_ms(top.value(raw, Name::Date)),
        message_id: first_id(top.value(raw, Name::MessageId)),
        in_reply_to: first_id(top.value(raw, Name::InReplyTo)),
        ..pb::Envelope::default()
    };
    let mut bytes_left = ENVELOPE_BYTES_MAX - envelope.encoded_len();
    let mut list = |name, separator| mailboxes(top.value(raw, name), charset, separator, &mut bytes_left);
    // Those who come first are kept whole where not everybody fits.
    envelope.from = list(Name::From, Separator::Comma);
    envelope.reply_to = list(Name::ReplyTo, Separator::Comma);
    envelope.to = list(Name::To, Separator::CommaOrSemicolon);
    envelope.cc = list(Name::Cc, Separator::CommaOrSemicolon);
    envelope.bcc = list(Name::Bcc, Separator::CommaOrSemicolon);
    envelope
}

fn first_id(value: &[u8]) -> String {
    // An id that is too long, or no text, could not be found by what is left of it.
    let id = ids(value).next().and_then(|id| std::str::from_utf8(id).ok());
    let fits = |id: &&str| id.len() <= MESSAGE_ID_BYTES_MAX && !id.chars().any(char::is_control);
    id.filter(fits).unwrap_or_default().to_owned()
}

fn mailboxes(value: &[u8], charset: &str, separator: Separator, bytes_left: &mut usize) -> Vec<pb::Mailbox> {
    let mut mailboxes = Vec::new();
    field::addresses(value, charset, separator, |HeaderMailbox { name, email }| {
        // An address that was shortened would be somebody else's.
        let email = if email.len() <= ADDRESS_BYTES_MAX { email } else { String::new() };
        let mailbox = pb::Mailbox { name: in_line(&name, NAME_BYTES_MAX), email };
        if mailbox == pb::Mailbox::default() {
            return ControlFlow::Continue(());
        }
        let bytes = mailbox.encoded_len() + FIELD_OVERHEAD_BYTES;
        if mailboxes.len() == HEADER_ADDRESSES_MAX || bytes > *bytes_left {
            return ControlFlow::Break(());
        }
        *bytes_left -= bytes;
        mailboxes.push(mailbox);
        ControlFlow::Continue(())
    });
    mailboxes
}

#[cfg(test)]
mod tests {
    use super::super::structure::parse;
    use super::*;

    fn of(raw: &[u8]) -> pb::Envelope {
        read(raw, &parse(raw).top, "")
    }

    #[test]
    fn fields_are_decoded() {
        let envelope = of("From: =?utf-8?B?7JWI64WV?= <a@x.example>\r\nTo: b@x.example, \"C, D\" <c@x.example>\r\n\
            Subject: =?iso-8859-1?Q?caf=E9?=\r\n =?iso-8859-1?Q?_au_lait?=\r\nDate: Thu, 1 Jan 1970 00:00:01 +0000\r\n\
            Message-ID: <1@x>\r\nIn-Reply-To: <0@x> (yours)\r\n\r\n"
            .as_bytes());
        assert_eq!(envelope.from, [pb::Mailbox { name: "안녕".into(), email: "a@x.example".into() }]);
        assert_eq!(envelope.to[1], pb::Mailbox { name: "C, D".into(), email: "c@x.example".into() });
        assert_eq!(envelope.subject, "café au lait");
        assert_eq!(envelope.date_ms, Some(1000));
        assert_eq!((envelope.message_id.as_str(), envelope.in_reply_to.as_str()), ("1@x", "0@x"));
    }

    #[test]
    fn the_envelope_is_bounded() {
        let many: String = (0..190).map(|at| format!(" {} <{at}@x.example>,\r\n", "n".repeat(140))).collect();
        let raw =
            format!("From:{many}To:{many}Cc:{many}Bcc:{many}Reply-To:{many}Subject: {}\r\n\r\n", "s".repeat(5000));
        assert!(5 * many.len() > ENVELOPE_BYTES_MAX);
        let envelope = of(raw.as_bytes());
        assert!(envelope.encoded_len() <= ENVELOPE_BYTES_MAX);
        assert_eq!(envelope.subject.len(), SUBJECT_BYTES_MAX);
        assert_eq!((envelope.from.len(), envelope.reply_to.len()), (190, 190));
        assert!(envelope.bcc.len() < 190);
    }

    #[test]
    fn no_more_addresses_than_rows_keep() {
        let many: String = (0..1000).map(|at| format!(" {at}@x.example,\r\n")).collect();
        assert_eq!(of(format!("To:{many}\r\n").as_bytes()).to.len(), HEADER_ADDRESSES_MAX);
    }

    #[test]
    fn nothing_is_made_up() {
        assert_eq!(of(b"no header at all"), pb::Envelope::default());
        assert_eq!(of(b"Message-ID: without-brackets\r\nDate: soon\r\n\r\n"), pb::Envelope::default());
    }
}
