//! What submission changes in a message, and nothing else (RFC 6409 section 8): Date and Message-ID that are missing are added, and
//! Bcc is taken out; and whose message it says it is.
//!
//! Invariant: a message only gets shorter here. What may have to be added stands on top of it before it comes in
//! ([`spare_fields`]), and is taken away again where the author wrote it himself; so nothing is copied, and what is accounted is what
//! is there.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use postrider_api::address::Address;
use postrider_api::id::RequestId;
use postrider_mime::{Separator, addresses, trace};

use super::header;
use super::reply::Reply;

/// Date and Message-ID, in case the author has left them out.
pub(super) fn spare_fields(sender: &str, id: RequestId, now_ms: i64) -> String {
    let domain = sender.rsplit_once('@').map_or("", |(_, domain)| domain);
    format!("Date: {}\r\nMessage-ID: <{}@{domain}>\r\n", trace::date(now_ms), hex::encode(id.0))
}

/// What an author has written himself.
#[derive(Default)]
struct Seen {
    date: bool,
    message_id: bool,
    from: u32,
    sender: u32,
}

/// Repairs a message that begins with `trace` bytes of ours, of which the last are the [`spare_fields`].
///
/// # Errors
/// When From or Sender names anybody but `own`, in canonical form; when the message has not exactly one From, or several Sender
/// fields, of which one reader would take one for its author and another another; or when its header is none, so that readers could
/// differ on where it ends.
pub(super) fn repair(message: Bytes, trace: usize, own: &str) -> Result<Bytes, Reply> {
    let mut seen = Seen::default();
    let mut taken_out: Vec<Range<usize>> = Vec::new();
    for field in header::fields(&message[trace..])? {
        let name = field.name;
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        seen.date |= is("date");
        seen.message_id |= is("message-id");
        seen.from += u32::from(is("from"));
        seen.sender += u32::from(is("sender"));
        if (is("from") || is("sender")) && !names_only(field.value, own) {
            return Err(Reply::AuthorForeign);
        }
        // RFC 5322 section 3.6.3, and 3.6.6 for what was sent once more.
        if is("bcc") || is("resent-bcc") {
            taken_out.push(trace + field.range.start..trace + field.range.end);
        }
    }
    if seen.from != 1 || seen.sender > 1 {
        return Err(Reply::AuthorForeign);
    }
    for field in header::fields(&message[..trace])? {
        let is_spare = |wanted: &str, seen: bool| seen && field.name.eq_ignore_ascii_case(wanted.as_bytes());
        if is_spare("date", seen.date) || is_spare("message-id", seen.message_id) {
            taken_out.push(field.range.clone());
        }
    }
    taken_out.sort_unstable_by_key(|range| range.start);
    Ok(without(message, &taken_out))
}

/// A draft as it is sent: with another Date, and nothing of who gets it unseen.
///
/// # Errors
/// When its header is none.
pub(crate) fn of_draft(draft: &[u8], date_ms: i64) -> Result<Bytes, Reply> {
    let dated = format!("Date: {}\r\n", trace::date(date_ms));
    let mut message = BytesMut::with_capacity(dated.len() + draft.len());
    message.extend_from_slice(dated.as_bytes());
    message.extend_from_slice(draft);
    let is_out = |name: &[u8]| [&b"date"[..], b"bcc", b"resent-bcc"].iter().any(|out| name.eq_ignore_ascii_case(out));
    let moved = |range: &Range<usize>| range.start + dated.len()..range.end + dated.len();
    let fields = header::fields(draft)?;
    let taken_out: Vec<_> = fields.iter().filter(|field| is_out(field.name)).map(|field| moved(&field.range)).collect();
    Ok(without(message.freeze(), &taken_out))
}

/// The message without these parts of it, which are in order.
fn without(message: Bytes, parts: &[Range<usize>]) -> Bytes {
    if parts.is_empty() {
        return message;
    }
    // Nobody else has it: nothing is copied but what moves.
    let mut message = message.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let mut kept = parts[0].start;
    for (place, part) in parts.iter().enumerate() {
        let next = parts.get(place + 1).map_or(message.len(), |next| next.start);
        message.copy_within(part.end..next, kept);
        kept += next - part.end;
    }
    message.truncate(kept);
    message.freeze()
}

/// Whether a list of mailboxes names somebody, and nobody but `own`.
fn names_only(value: &[u8], own: &str) -> bool {
    // Unfolded (RFC 5322 section 2.2.3): lines end with CRLF here.
    let text = String::from_utf8_lossy(value).replace("\r\n", "");
    let mut named = addresses(&text, Separator::Comma).peekable();
    named.peek().is_some()
        && named.all(|mailbox| Address::parse(&mailbox.email).is_ok_and(|address| address.as_str() == own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(sent: &str) -> Result<String, Reply> {
        let spare = "Received: by us\r\nDate: now\r\nMessage-ID: <ours@x>\r\n";
        let message = Bytes::from([spare, sent].concat().into_bytes());
        let repaired = repair(message, spare.len(), "ada@x.example")?;
        Ok(String::from_utf8(repaired.to_vec()).unwrap())
    }

    #[test]
    fn what_is_missing_is_added_and_nothing_else() {
        let bare = "From: ada@x.example\r\nSubject: a\r\n\r\nDate: in the body\r\nBcc: in the body\r\n";
        let all = "Received: by us\r\nDate: now\r\nMessage-ID: <ours@x>\r\n";
        assert_eq!(repaired(bare).unwrap(), format!("{all}{bare}"));
        let dated = "DATE: then\r\nFrom: ada@x.example\r\n\r\n";
        assert_eq!(repaired(dated).unwrap(), format!("Received: by us\r\nMessage-ID: <ours@x>\r\n{dated}"));
        let whole = "Date:\r\n then\r\nMessage-Id : <a@b>\r\nFrom: ada@x.example\r\n\r\nx\r\n";
        assert_eq!(repaired(whole).unwrap(), format!("Received: by us\r\n{whole}"));
    }

    #[test]
    fn bcc_is_taken_out_wherever_it_stands() {
        let sent = "Bcc: a@x.example,\r\n b@x.example\r\nDate: d\r\nFrom: ada@x.example\r\nbCC:c@x.example\r\nBcc\t: \
                    d@x.example\r\nMessage-ID: <m@x>\r\nResent-Bcc: e@x.example\r\n\r\nBcc: stays\r\n";
        let wanted = "Received: by us\r\nDate: d\r\nFrom: ada@x.example\r\nMessage-ID: <m@x>\r\n\r\nBcc: stays\r\n";
        assert_eq!(repaired(sent).unwrap(), wanted);
        assert_eq!(
            repaired("From: ada@x.example\r\nDate: d\r\nMessage-ID: <m@x>\r\nBcc: z@x.example\r\n").unwrap(),
            "Received: by us\r\nFrom: ada@x.example\r\nDate: d\r\nMessage-ID: <m@x>\r\n"
        );
    }

    #[test]
    fn a_draft_gets_the_time_at_which_it_is_sent() {
        let draft = b"Date: long ago\r\nFrom: a@x.example\r\nBcc: b@x.example\r\n\r\nBcc: in the text\r\n";
        let sent = of_draft(draft, 1_790_000_000_000).unwrap();
        let wanted = "Date: Mon, 21 Sep 2026 14:13:20 +0000\r\nFrom: a@x.example\r\n\r\nBcc: in the text\r\n";
        assert_eq!(sent, wanted.as_bytes());
        assert!(of_draft(b"no field\r\n\r\n", 0).is_err());
    }

    #[test]
    fn the_author_is_the_account() {
        for good in [
            "From: Ada <ADA@x.example>\r\n\r\n",
            "From:\r\n \"Lovelace, Ada\"\r\n <ada@x.example> (here)\r\n\r\n",
            "From: ada@x.example\r\nSender: ada@x.example\r\nReply-To: bob@y.example\r\n\r\n",
            "From: =?utf-8?q?Ada?= <ada@x.example>\r\n\r\n",
        ] {
            assert!(repaired(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "\r\nFrom: ada@x.example\r\n",
            "Subject: a\r\n\r\n",
            "From:\r\n\r\n",
            "From: bob@x.example\r\n\r\n",
            "From: ada@x.example, bob@x.example\r\n\r\n",
            "From: ada@x.example <bob@x.example>\r\n\r\n",
            "From: ada@x.example\r\nFROM: ada@x.example\r\n\r\n",
            "From: ada@x.example\r\nSender: bob@x.example\r\n\r\n",
            "From: ada@x.example\r\nSender: ada@x.example\r\nSender: ada@x.example\r\n\r\n",
        ] {
            assert_eq!(repaired(bad), Err(Reply::AuthorForeign), "{bad:?}");
        }
    }

    #[test]
    fn a_header_on_whose_end_readers_could_differ_is_none() {
        for bad in [
            " folded into ours\r\nFrom: ada@x.example\r\n\r\n",
            "From: ada@x.example\r\nno field\r\nBcc: bob@x.example\r\n\r\n",
            "From: ada@x.example\r\nTo : : a\r\n\u{fc}: b\r\n\r\n",
        ] {
            assert_eq!(repaired(bad), Err(Reply::HeaderMalformed), "{bad:?}");
        }
    }
}
