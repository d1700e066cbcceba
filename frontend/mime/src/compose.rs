//! A message for somebody who sends one.
//!
//! Invariant: no field of a request can begin another header field, end the header or end the message: what could is refused
//! with the field's name, not mended.
//! Invariant: lines end with CRLF and have at most 998 bytes (RFC 5322 section 2.1.1).

use bytes::Bytes;
use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address as AddressField;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::text::Text;
use mail_builder::mime::{BodyPart, MimePart};
use postrider_api::address::{Address, AddressError};
use postrider_api::limit::{MESSAGE_BYTES_MAX, NAME_BYTES_MAX, RECIPIENTS_MAX, REFERENCES_MAX, SUBJECT_BYTES_MAX};
use postrider_api::pb;
use thiserror::Error;

use super::limit::FILENAME_BYTES_MAX;
use super::wrap::{Wrapper, Wrapping};

/// Attachments of one message.
const ATTACHMENTS_MAX: usize = 100;
/// An id in Message-ID, In-Reply-To or References, bytes: it cannot be folded.
const ID_BYTES_MAX: usize = 900;
/// RFC 5322 section 2.1.1, without CRLF.
const LINE_BYTES_MAX: usize = 998;
/// RFC 2045 section 6.8.
const BASE64_LINE: Wrapping = Wrapping { line_length: 76, final_newline: true };

/// What somebody wants to send.
#[derive(Debug, Clone, Default)]
pub struct Compose {
    /// The sender.
    pub from: pb::Mailbox,
    /// Who sees that he gets it, and is meant.
    pub to: Vec<pb::Mailbox>,
    /// Who sees that he gets it.
    pub cc: Vec<pb::Mailbox>,
    /// Who gets it unseen: checked like the others, never written.
    pub bcc: Vec<pb::Mailbox>,
    /// Whether it stays with its author for now: then it says who gets it unseen.
    pub is_draft: bool,
    /// One line.
    pub subject: String,
    /// The text.
    pub body: Option<String>,
    /// The same as HTML.
    pub body_html: Option<String>,
    /// Files, in this order.
    pub attachments: Vec<ComposeAttachment>,
    /// The id of the message that this one answers, with or without angle brackets.
    pub in_reply_to: Option<String>,
    /// Ids of the conversation so far, oldest first, with or without angle brackets; the newest `REFERENCES_MAX` are written.
    pub references: Vec<String>,
    /// When it was sent, milliseconds since the Unix epoch.
    pub date_ms: i64,
    /// The id of this message, with or without angle brackets; never used before.
    pub message_id: String,
}

/// A file to send.
#[derive(Debug, Clone, Default)]
pub struct ComposeAttachment {
    /// As the recipient sees it.
    pub filename: String,
    /// `type/subtype`, with a charset if it likes. Empty: not known.
    pub content_type: String,
    /// The file.
    pub content: Bytes,
}

/// Why a request makes no message. Each names the field of the request.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ComposeError {
    /// A line break, NUL or another control character.
    #[error("`{field}` holds a control character")]
    ControlCharacter {
        /// Which field.
        field: &'static str,
    },
    /// An address that is none.
    #[error("`{field}` holds an address that is not valid: {error}")]
    Address {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        error: AddressError,
    },
    /// Neither `type/subtype`, nor something that can be attached.
    #[error("`{field}` is no media type that can be attached")]
    ContentType {
        /// Which field.
        field: &'static str,
    },
    /// No id as RFC 5322 section 3.6.4 has them.
    #[error("`{field}` is no message id")]
    MessageId {
        /// Which field.
        field: &'static str,
    },
    /// More than is allowed.
    #[error("`{field}` is too long: at most {max} {unit}")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// How much is allowed.
        max: u64,
        /// Of what.
        unit: &'static str,
    },
}

/// Writes the message (RFC 5322), everything in UTF-8: the text and the HTML as alternatives, the files beside them.
///
/// # Errors
/// When a field of the request cannot stand in a message.
pub fn compose(draft: &Compose) -> Result<Vec<u8>, ComposeError> {
    let message_id = id("message_id", &draft.message_id)?;
    let mut builder = MessageBuilder::new()
        .header("Date", Date::new(draft.date_ms.div_euclid(1000)))
        .header("Message-ID", MessageId::new(message_id))
        .header("From", mailbox("from", &draft.from)?)
        .header("MIME-Version", HeaderType::Raw("1.0".into()));
    check_number("to", draft.to.len() + draft.cc.len() + draft.bcc.len(), RECIPIENTS_MAX, "recipients")?;
    for (name, field, list) in [("To", "to", &draft.to), ("Cc", "cc", &draft.cc)] {
        if !list.is_empty() {
            builder = builder.header(name, mailboxes(field, list)?);
        }
    }
    let bcc = mailboxes("bcc", &draft.bcc)?;
    if draft.is_draft && !draft.bcc.is_empty() {
        builder = builder.header("Bcc", bcc);
    }
    check_line("subject", &draft.subject, SUBJECT_BYTES_MAX)?;
    builder = builder.header("Subject", Text::new(draft.subject.as_str()));
    if let Some(answered) = &draft.in_reply_to {
        builder = builder.header("In-Reply-To", MessageId::new(id("in_reply_to", answered)?));
    }
    let newest = draft.references.len().saturating_sub(REFERENCES_MAX);
    let references: Vec<&str> =
        draft.references[newest..].iter().map(|one| id("references", one)).collect::<Result<_, _>>()?;
    if !references.is_empty() {
        builder = builder.header("References", MessageId::new_list(references.into_iter()));
    }
    let mut message = Vec::new();
    builder.body(content(draft, message_id)?).serialize(&mut message);
    check_message(&message)?;
    Ok(message)
}

fn content<'a>(draft: &'a Compose, message_id: &str) -> Result<MimePart<'a>, ComposeError> {
    let mut boundaries = Boundaries { seed: blake3::hash(message_id.as_bytes()), next: 0 };
    let text = |field, subtype: &'static str, text: &str| {
        lines(field, text).map(|text| MimePart::new(ContentType::new(subtype).attribute("charset", "utf-8"), text))
    };
    let html = draft.body_html.as_deref().map(|body| text("body_html", "text/html", body)).transpose()?;
    let plain = match (&draft.body, &html) {
        (None, Some(_)) => None,
        (body, _) => Some(text("body", "text/plain", body.as_deref().unwrap_or_default())?),
    };
    let body = match (plain, html) {
        (Some(plain), Some(html)) => multipart("multipart/alternative", boundaries.next(), vec![plain, html]),
        // One of the two is always there.
        (plain, html) => plain.or(html).unwrap_or_else(|| MimePart::new("text/plain", "")),
    };
    if draft.attachments.is_empty() {
        return Ok(body);
    }
    check_number("attachments", draft.attachments.len(), ATTACHMENTS_MAX, "files")?;
    let mut parts = vec![body];
    for attachment in &draft.attachments {
        parts.push(attached(attachment)?);
    }
    Ok(multipart("multipart/mixed", boundaries.next(), parts))
}

/// Boundaries that no body holds: made of the message's id, which is random and was never seen before.
struct Boundaries {
    seed: blake3::Hash,
    next: u8,
}

impl Boundaries {
    fn next(&mut self) -> String {
        self.next += 1;
        // `=_` stands in no quoted-printable and no base64 (RFC 2045 section 6.7).
        format!("=_{}_{}", &self.seed.to_hex()[..24], self.next)
    }
}

fn multipart<'a>(subtype: &'static str, boundary: String, parts: Vec<MimePart<'a>>) -> MimePart<'a> {
    MimePart::new(ContentType::new(subtype).attribute("boundary", boundary), BodyPart::Multipart(parts))
}

fn attached(attachment: &ComposeAttachment) -> Result<MimePart<'_>, ComposeError> {
    check_line("attachments.filename", &attachment.filename, FILENAME_BYTES_MAX)?;
    let mut encoded = Vec::with_capacity(attachment.content.len() / 3 * 4 + attachment.content.len() / 28);
    let mut wrapper = Wrapper::new(BASE64_LINE);
    wrapper.push(&attachment.content, &mut encoded);
    wrapper.finish(&mut encoded);
    let disposition = match attachment.filename.as_str() {
        "" => ContentType::new("attachment"),
        name => ContentType::new("attachment").attribute("filename", name),
    };
    // Encoded here: the builder leaves text as it is where it can, and a file has to arrive byte for byte.
    Ok(MimePart::new(media_type(&attachment.content_type)?, encoded)
        .header("Content-Disposition", disposition)
        .transfer_encoding("base64"))
}

fn media_type(text: &str) -> Result<ContentType<'_>, ComposeError> {
    const FIELD: &str = "attachments.content_type";
    const OCTETS: &str = "application/octet-stream";
    check_line(FIELD, text, 255)?;
    let mut words = text.split(';').map(str::trim);
    let media = words.next().unwrap_or_default();
    if media.is_empty() {
        return Ok(ContentType::new(OCTETS));
    }
    let error = ComposeError::ContentType { field: FIELD };
    let (kind, subtype) = media.split_once('/').ok_or_else(|| error.clone())?;
    if !is_token(kind) || !is_token(subtype) || kind.eq_ignore_ascii_case("multipart") {
        return Err(error);
    }
    if kind.eq_ignore_ascii_case("message") {
        // RFC 2046 section 5.2.1 forbids base64 for a message within a message; as a file it arrives unchanged.
        return Ok(ContentType::new(OCTETS));
    }
    let charset = words.filter_map(|word| word.split_once('=')).find(|(name, _)| name.eq_ignore_ascii_case("charset"));
    let media = ContentType::new(media);
    Ok(match charset.map(|(_, value)| value.trim_matches('"')).filter(|value| is_token(value)) {
        Some(charset) => media.attribute("charset", charset),
        None => media,
    })
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte))
}

fn mailboxes<'a>(field: &'static str, list: &'a [pb::Mailbox]) -> Result<AddressField<'a>, ComposeError> {
    let list = list.iter().map(|one| mailbox(field, one)).collect::<Result<_, _>>()?;
    Ok(AddressField::new_list(list))
}

fn mailbox<'a>(field: &'static str, mailbox: &'a pb::Mailbox) -> Result<AddressField<'a>, ComposeError> {
    check_line(field, &mailbox.name, NAME_BYTES_MAX)?;
    check_line(field, &mailbox.email, postrider_api::limit::ADDRESS_BYTES_MAX)?;
    Address::parse(&mailbox.email).map_err(|error| ComposeError::Address { field, error })?;
    let name = (!mailbox.name.is_empty()).then_some(mailbox.name.as_str());
    Ok(AddressField::new_address(name, mailbox.email.as_str()))
}

/// What stands between the angle brackets.
fn id<'a>(field: &'static str, text: &'a str) -> Result<&'a str, ComposeError> {
    let text = text.trim_matches(' ');
    let id = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
    let is_id = !id.is_empty() && !id.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>'));
    if id.len() > ID_BYTES_MAX {
        return Err(ComposeError::TooLong { field, max: ID_BYTES_MAX as u64, unit: "bytes" });
    }
    if is_id { Ok(id) } else { Err(ComposeError::MessageId { field }) }
}

fn check_line(field: &'static str, text: &str, bytes_max: usize) -> Result<(), ComposeError> {
    // Unicode has two more line ends; a program that takes them for such would see another field.
    if text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(ComposeError::ControlCharacter { field });
    }
    check_number(field, text.len(), bytes_max, "bytes")
}

fn check_number(field: &'static str, number: usize, max: usize, unit: &'static str) -> Result<(), ComposeError> {
    if number > max {
        return Err(ComposeError::TooLong { field, max: max as u64, unit });
    }
    Ok(())
}

/// A body with its lines ended by CRLF, the last too.
fn lines(field: &'static str, text: &str) -> Result<String, ComposeError> {
    if text.contains('\0') {
        return Err(ComposeError::ControlCharacter { field });
    }
    let mut out = String::with_capacity(text.len() + text.len() / 32 + 2);
    let mut rest = text;
    while let Some(end) = rest.find(['\r', '\n']) {
        out.push_str(&rest[..end]);
        out.push_str("\r\n");
        let width = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + width..];
    }
    out.push_str(rest);
    if !rest.is_empty() {
        out.push_str("\r\n");
    }
    Ok(out)
}

/// What was promised, checked on what was written.
fn check_message(message: &[u8]) -> Result<(), ComposeError> {
    if message.len() as u64 > MESSAGE_BYTES_MAX {
        return Err(ComposeError::TooLong { field: "attachments", max: MESSAGE_BYTES_MAX, unit: "bytes, encoded" });
    }
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', message) {
        let line = &message[start..end];
        debug_assert!(line.ends_with(b"\r") && !line[..line.len() - 1].contains(&b'\r'), "lines end with CRLF");
        if line.len() > LINE_BYTES_MAX + 1 {
            return Err(ComposeError::TooLong { field: "body", max: LINE_BYTES_MAX as u64, unit: "bytes a line" });
        }
        start = end + 1;
    }
    Ok(())
}
