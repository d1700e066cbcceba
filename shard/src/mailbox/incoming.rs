//! A message of a command, checked: everything that later steps take for granted.

use postrider_api::id::{BodyId, MessageIdHash};
use postrider_api::limit::{
    ADDRESS_BYTES_MAX, ENVELOPE_ID_BYTES_MAX, HEADER_ADDRESSES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX,
    ORIGINAL_RECIPIENT_BYTES_MAX, PARTS_MAX, PREVIEW_BYTES_MAX, RECIPIENTS_MAX, REFERENCES_MAX, SEND_LATER_MS_MAX,
    SUBJECT_BYTES_MAX,
};
use postrider_api::notify::Notify;
use postrider_api::pb::{
    BlobRef, Compression, MailCategory, Mailbox, NewMessage, Part, Recipient, ReturnContent, SendOptions,
};

use crate::blobs;
use crate::mailbox::threads;
use crate::queue::who::Who;
use crate::turn::{Stop, id, malformed};

/// Pieces of one message: every blob is one, with a literal before and behind it.
const PIECES_MAX: usize = 2 * PARTS_MAX + 1;
/// A message with the trace headers that SMTP put on top, bytes.
const SIZE_MAX: u64 = MESSAGE_BYTES_MAX + 64 * 1024;
/// MAIL FROM, bytes: an address, or a source route that an old sender put before it.
const MAIL_FROM_BYTES_MAX: usize = 2 * ADDRESS_BYTES_MAX;

/// A message that a command brings, with its ids.
pub(crate) struct Incoming<'a> {
    pub(crate) new: &'a NewMessage,
    pub(crate) mail_from: &'a str,
    pub(crate) body_id: BodyId,
    /// The blobs of the message, each once, by hash.
    pub(crate) blobs: Vec<BlobRef>,
    /// What the message's own id and its references hash to, each once: what it is found by.
    pub(crate) mentions: Vec<MessageIdHash>,
}

impl<'a> Incoming<'a> {
    /// Checks the message of a command.
    pub(crate) fn of_command(new: Option<&'a NewMessage>, mail_from: &'a str) -> Result<Self, Stop> {
        let new = new.ok_or_else(|| malformed("message: is missing"))?;
        if mail_from.len() > MAIL_FROM_BYTES_MAX {
            return Err(malformed(format!("mail_from: at most {MAIL_FROM_BYTES_MAX} bytes")));
        }
        check_bounds(new)?;
        let blobs = blobs(new)?;
        let body = new.body.as_ref().ok_or_else(|| malformed("message.body: is missing"))?;
        let body_id = id(&body.body_id, "message.body.body_id")?;
        if body.compression() == Compression::None
            && !body.text.is_empty()
            && body.text.len() as u64 != body.text_length
        {
            return Err(malformed("message.body: text_length is not the length of the text"));
        }
        let mentions = threads::mentions(&new.message_id_hash, &new.reference_hashes, |hash, field| id(hash, field))?;
        Ok(Self { new, mail_from, body_id, blobs, mentions })
    }
}

fn check_bounds(new: &NewMessage) -> Result<(), Stop> {
    if new.size > SIZE_MAX {
        return Err(malformed(format!("message.size: at most {SIZE_MAX}")));
    }
    let envelope = new.envelope.as_ref().ok_or_else(|| malformed("message.envelope: is missing"))?;
    let fields = [&envelope.from, &envelope.to, &envelope.cc, &envelope.bcc, &envelope.reply_to];
    if fields.iter().any(|field| field.len() > HEADER_ADDRESSES_MAX) {
        return Err(malformed(format!("message.envelope: at most {HEADER_ADDRESSES_MAX} addresses a field")));
    }
    // Lines of lists repeat them.
    let is_too_long =
        |mailbox: &Mailbox| mailbox.name.len() > NAME_BYTES_MAX || mailbox.email.len() > ADDRESS_BYTES_MAX;
    if fields.iter().any(|field| field.iter().any(is_too_long)) {
        let detail =
            format!("message.envelope: a name has at most {NAME_BYTES_MAX} bytes, an address {ADDRESS_BYTES_MAX}");
        return Err(malformed(detail));
    }
    if envelope.subject.len() > SUBJECT_BYTES_MAX || new.preview.len() > PREVIEW_BYTES_MAX {
        return Err(malformed("message: the subject or the preview is too long"));
    }
    if new.parts.len() > PARTS_MAX || new.pieces.len() > PIECES_MAX {
        return Err(malformed(format!("message: at most {PARTS_MAX} parts and {PIECES_MAX} pieces")));
    }
    let blobs = new.parts.iter().map(|part| &part.blob).chain(new.pieces.iter().map(|piece| &piece.blob));
    if blobs.into_iter().any(|blob| !blob.is_empty() && blob.len() != 32) {
        return Err(malformed("message: a blob hash has 32 bytes"));
    }
    if new.reference_hashes.len() > REFERENCES_MAX {
        return Err(malformed(format!("message.reference_hashes: at most {REFERENCES_MAX}")));
    }
    Ok(())
}

/// The blobs that the pieces name. No part names another: references are counted of the pieces.
fn blobs(new: &NewMessage) -> Result<Vec<BlobRef>, Stop> {
    let blobs = blobs::of_pieces(&new.pieces).ok_or_else(|| malformed("message.pieces: a blob has two lengths"))?;
    let is_known = |part: &Part| part.blob.is_empty() || blobs.iter().any(|blob| blob.hash == part.blob);
    match new.parts.iter().all(is_known) {
        true => Ok(blobs),
        false => Err(malformed("message.parts.blob: is no piece's")),
    }
}

/// A recipient of a command.
pub(crate) struct To<'a> {
    pub(crate) who: Who,
    pub(crate) recipient: &'a Recipient,
}

/// Whom a command may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Our users: what comes from outside goes to nobody else.
    Users,
    /// Whoever has an address.
    Everybody,
}

/// Recipients of a command: each once, under the first address that named him.
pub(crate) fn recipients(recipients: &[Recipient], reach: Reach) -> Result<Vec<To<'_>>, Stop> {
    if recipients.is_empty() || recipients.len() > RECIPIENTS_MAX {
        return Err(malformed(format!("recipients: 1 to {RECIPIENTS_MAX}")));
    }
    let mut all: Vec<To<'_>> = Vec::with_capacity(recipients.len());
    for recipient in recipients {
        let who = Who::of_command(&recipient.user_id, &recipient.address, "recipients")?;
        if reach == Reach::Users && who.user().is_none() {
            return Err(malformed("recipients.user_id: is missing; mail that comes in is not relayed"));
        }
        check_recipient(recipient)?;
        if all.iter().all(|known| known.who != who) {
            all.push(To { who, recipient });
        }
    }
    Ok(all)
}

fn check_recipient(recipient: &Recipient) -> Result<(), Stop> {
    if recipient.address.len() > ADDRESS_BYTES_MAX {
        return Err(malformed(format!("recipients.address: at most {ADDRESS_BYTES_MAX} bytes")));
    }
    if !Notify(recipient.notify).is_valid() {
        return Err(malformed("recipients.notify: NEVER alone, or any of SUCCESS, FAILURE and DELAY"));
    }
    let is_text = recipient.original.bytes().all(|byte| byte.is_ascii_graphic());
    if recipient.original.len() > ORIGINAL_RECIPIENT_BYTES_MAX || !is_text {
        return Err(malformed(format!("recipients.original: printable, at most {ORIGINAL_RECIPIENT_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// Checks what a sender wants of his message's way.
pub(crate) fn check_options(options: &SendOptions, now: i64) -> Result<(), Stop> {
    if options.not_before_ms < 0 || options.not_before_ms.saturating_sub(now) > SEND_LATER_MS_MAX {
        return Err(malformed(format!("options.not_before_ms: at most {SEND_LATER_MS_MAX} ms from now")));
    }
    let is_text = options.envelope_id.bytes().all(|byte| byte.is_ascii_graphic());
    if options.envelope_id.len() > ENVELOPE_ID_BYTES_MAX || !is_text {
        return Err(malformed(format!("options.envelope_id: printable, at most {ENVELOPE_ID_BYTES_MAX} bytes")));
    }
    if ReturnContent::try_from(options.return_content).is_err() || MailCategory::try_from(options.category).is_err() {
        return Err(malformed("options: return_content or category is none that is known"));
    }
    Ok(())
}
