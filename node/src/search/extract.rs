//! What of a stored message is found: its rows read into [`Words`].

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::ControlFlow;

use postrider_api::id::{BodyId, EmailId, UserId};
use postrider_api::pb;
use postrider_mime::{Searchable, searchable, searchable_texts, terms};
use postrider_shard::Broken;
use postrider_shard::key::Key;
use postrider_shard::store::Reader;
use prost::Message;

use super::words::{Words, field};

/// A message's row and its words; `None` where there is no such message (any more).
pub(super) fn message(
    rows: &impl Reader,
    user: UserId,
    email: EmailId,
) -> Result<Option<(pb::EmailRecord, Words)>, Broken> {
    let Some(row) = rows.get(&Key::Email(user, email).bytes())? else { return Ok(None) };
    let Ok(record) = pb::EmailRecord::decode(row) else { return Ok(None) };
    let found = texts(rows, &record)?;
    let words = words(&record, &found);
    Ok(Some((record, words)))
}

/// The texts of a message. A body that cannot be read has none: reading the message tells what is wrong, and finding it by its
/// subject must not fail for that.
fn texts(rows: &impl Reader, record: &pb::EmailRecord) -> Result<Searchable, Broken> {
    let Some(stored) = stored(rows, record)? else { return Ok(Searchable::default()) };
    Ok(searchable(record, &stored).unwrap_or_else(|error| {
        tracing::warn!(message = ?record.email_id, %error, "the text of a message cannot be read, and is not indexed");
        Searchable::default()
    }))
}

fn stored(rows: &impl Reader, record: &pb::EmailRecord) -> Result<Option<pb::StoredBody>, Broken> {
    let Ok(id) = BodyId::try_from(&record.body_id) else { return Ok(None) };
    let Some(head) = rows.get(&Key::BodyHead(id).bytes())? else { return Ok(None) };
    let Ok(head) = pb::BodyHead::decode(head) else { return Ok(None) };
    let Some(text) = rows.get(&Key::Body(id).bytes())? else { return Ok(None) };
    // Decompressed it may be many times as long, and reading it is most of the work.
    rows.charge(head.text_length as usize)?;
    let body = pb::BodyRecord { compression: head.compression, text, text_length: head.text_length };
    Ok(Some(pb::StoredBody { pieces: record.pieces.clone(), parts: record.parts.clone(), body: Some(body) }))
}

fn words(record: &pb::EmailRecord, found: &Searchable) -> Words {
    let mut words = Words::default();
    words.push(field::ANY_MESSAGE, "");
    if record.has_attachments {
        words.push(field::ATTACHMENTS, "");
    }
    words.push(field::MESSAGE_ID, &hex(&record.message_id_hash));
    for label in found.list_id.split('.').filter(|label| !label.is_empty()) {
        words.push(field::LIST, head(label, terms::TERM_BYTES_MAX));
    }
    if let Some(envelope) = &record.envelope {
        words.add(field::SUBJECT, &envelope.subject);
        let people = [
            (field::FROM, field::SENDER, &envelope.from),
            (field::TO, field::RECIPIENT, &envelope.to),
            (field::CC, field::RECIPIENT, &envelope.cc),
            (field::BCC, field::RECIPIENT, &envelope.bcc),
        ];
        for (field, role, mailboxes) in people {
            for mailbox in mailboxes {
                words.add(field, &mailbox.name);
                words.add(field, &mailbox.email);
                if mailbox.email.contains('@') {
                    words.push(role, &person(mailbox));
                }
            }
        }
    }
    for part in record.parts.iter().filter(|part| !part.filename.is_empty()) {
        words.add(field::FILENAME, &part.filename);
    }
    found.bodies.iter().for_each(|text| words.add(field::BODY, text));
    // HTML that says nothing else than the text beside it is not indexed again.
    let known: HashSet<u64> = match found.alternatives.is_empty() {
        true => HashSet::new(),
        false => found.bodies.iter().map(|text| said(text)).collect(),
    };
    let others = found.alternatives.iter().filter(|text| !known.contains(&said(text)));
    others.for_each(|text| words.add(field::BODY, text));
    found.attachments.iter().for_each(|text| words.add(field::BODY, text));
    words
}

/// Tells apart what two texts say, by their terms.
fn said(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    terms::cut(text, |term| term.text.hash(&mut hasher));
    hasher.finish()
}

/// Between address and name in a term that is a person.
pub(super) const NAME_BEHIND: char = '\u{1f}';

fn person(mailbox: &pb::Mailbox) -> String {
    let name: String = mailbox.name.chars().filter(|c| !c.is_control()).collect();
    let email: String = mailbox.email.chars().filter(|c| !c.is_control()).collect();
    format!("{}{NAME_BEHIND}{}", email.to_lowercase(), name.trim())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The beginning of a text, at most so many bytes of whole characters.
pub(super) fn head(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Gives the texts of a message one after the other, as long as `take` wants more.
pub(super) fn each_text(
    rows: &impl Reader,
    user: UserId,
    email: EmailId,
    mut take: impl FnMut(String) -> ControlFlow<()>,
) -> Result<(), Broken> {
    let Some(row) = rows.get(&Key::Email(user, email).bytes())? else { return Ok(()) };
    let Ok(record) = pb::EmailRecord::decode(row) else { return Ok(()) };
    if let Some(stored) = stored(rows, &record)? {
        // One that cannot be read has no texts; reading the message tells what is wrong.
        drop(searchable_texts(&record, &stored, |_, text| take(text)));
    }
    Ok(())
}
