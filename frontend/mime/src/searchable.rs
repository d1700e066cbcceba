//! What a search index reads of a stored message: its texts as a reader sees them, without what lies in blobs (ADR 095).
//!
//! Encoded data that was pasted into a text (base64, PEM) is no text: each of its lines would be a word that nobody looks for.

use std::ops::{ControlFlow, Range};

use futures::executor::block_on;
use postrider_api::id::BlobHash;
use postrider_api::pb;

use super::attachment::{collect, read_head};
use super::charset::{html_text, to_text};
use super::field;
use super::html::html_to_text;
use super::limit::{ENCODED_LINE_LENGTH_MIN, HEADER_BYTES_MAX, SEARCHABLE_ATTACHMENT_BYTES_MAX, SEARCHABLE_BYTES_MAX};
use super::raw::{RawError, StoredMessage};
use super::source::{BlobReadError, BlobSource, BlobStream};

/// The texts of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Searchable {
    /// The bodies that a reader of text sees, the text of HTML where the sender gave nothing else.
    pub bodies: Vec<String>,
    /// The text of HTML bodies that stand beside those.
    pub alternatives: Vec<String>,
    /// What is in text attachments.
    pub attachments: Vec<String>,
    /// What stands between the angle brackets of List-Id (RFC 2919), in lower case; empty where there is none.
    pub list_id: String,
}

/// Which of its texts one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchableKind {
    /// See [`Searchable::bodies`].
    Body,
    /// See [`Searchable::alternatives`].
    Alternative,
    /// See [`Searchable::attachments`].
    Attachment,
}

/// Reads them. What lies in a blob is left out; so is what is beyond the limits.
///
/// # Errors
/// When the stored message is damaged.
pub fn searchable(record: &pb::EmailRecord, stored: &pb::StoredBody) -> Result<Searchable, RawError> {
    let message = StoredMessage::open(stored, &NoBlobs)?;
    let mut found = Searchable { list_id: list_id(&message, &record.parts)?, ..Searchable::default() };
    texts(&message, record, |kind, text| {
        match kind {
            SearchableKind::Body => found.bodies.push(text),
            SearchableKind::Alternative => found.alternatives.push(text),
            SearchableKind::Attachment => found.attachments.push(text),
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Reads the texts one after the other, as long as `take` wants more.
///
/// # Errors
/// When the stored message is damaged.
pub fn searchable_texts(
    record: &pb::EmailRecord,
    stored: &pb::StoredBody,
    take: impl FnMut(SearchableKind, String) -> ControlFlow<()>,
) -> Result<(), RawError> {
    texts(&StoredMessage::open(stored, &NoBlobs)?, record, take)
}

fn texts(
    message: &StoredMessage<NoBlobs>,
    record: &pb::EmailRecord,
    mut take: impl FnMut(SearchableKind, String) -> ControlFlow<()>,
) -> Result<(), RawError> {
    let mut left = SEARCHABLE_BYTES_MAX;
    for part in record.parts.iter().filter(|part| part.blob.is_empty() && part.content_type.starts_with("text/")) {
        let (kind, max) = match (part.is_text_body, part.is_html_body) {
            (true, _) => (SearchableKind::Body, left),
            (false, true) => (SearchableKind::Alternative, left),
            (false, false) => (SearchableKind::Attachment, left.min(SEARCHABLE_ATTACHMENT_BYTES_MAX)),
        };
        if let Some(text) = text(message, part, max, &mut left)?
            && take(kind, text).is_break()
        {
            break;
        }
    }
    Ok(())
}

fn text(
    message: &StoredMessage<NoBlobs>,
    part: &pb::Part,
    max: u64,
    left: &mut u64,
) -> Result<Option<String>, RawError> {
    let wanted = part.decoded_size.min(max);
    if wanted == 0 {
        return Ok(None);
    }
    // An encoding has at most four bytes for one.
    let head = match block_on(read_head(message, part, wanted, wanted.saturating_mul(4))) {
        Ok(head) => head,
        // A stretch of it was cut out because the message would not have fitted into a command.
        Err(RawError::Blob(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    *left = left.saturating_sub(head.bytes.len() as u64);
    Ok(Some(if part.content_type == "text/html" {
        html_to_text(&html_text(&head.bytes, &part.charset))
    } else {
        without_encoded_lines(&to_text(&head.bytes, &part.charset))
    }))
}

fn without_encoded_lines(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n').filter(|line| !is_encoded(line.trim())) {
        kept.push_str(line);
    }
    kept
}

/// Whether a line is of the alphabet of base64 alone, capitals, small letters and digits mixed as no words are.
fn is_encoded(line: &str) -> bool {
    line.len() >= ENCODED_LINE_LENGTH_MIN
        && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
        && line.bytes().any(|byte| byte.is_ascii_uppercase())
        && line.bytes().any(|byte| byte.is_ascii_lowercase())
        && line.bytes().any(|byte| byte.is_ascii_digit())
}

fn list_id(message: &StoredMessage<NoBlobs>, parts: &[pb::Part]) -> Result<String, RawError> {
    // The header ends before the first part begins.
    let end = parts.first().map_or(u64::MAX, |part| part.offset).min(HEADER_BYTES_MAX as u64);
    let bytes = match block_on(async { collect(message.read(0..end).await?).await }) {
        Ok(bytes) => bytes,
        Err(RawError::Blob(_)) => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut found = String::new();
    field::walk_section(
        &bytes,
        0,
        bytes.len(),
        |_| false,
        |field| {
            if found.is_empty() && bytes[field.name.clone()].eq_ignore_ascii_case(b"list-id") {
                let value = String::from_utf8_lossy(&bytes[field.value.clone()]);
                let id = value.rsplit_once('<').map_or(&*value, |(_, id)| id.split('>').next().unwrap_or(id));
                found = id.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect::<String>().to_lowercase();
            }
        },
    );
    Ok(found)
}

/// Blobs are not read.
#[derive(Clone)]
struct NoBlobs;

impl BlobSource for NoBlobs {
    async fn read(&self, hash: BlobHash, _: Range<u64>) -> Result<BlobStream, BlobReadError> {
        Err(BlobReadError::Missing(hash))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use postrider_api::id::BodyId;

    use super::*;
    use crate::{IngestLimits, ingest};

    fn of(raw: &str) -> Searchable {
        let message =
            ingest(&Bytes::from(raw.replace('\n', "\r\n")), BodyId([1; 16]), &IngestLimits::default()).message;
        let record = pb::EmailRecord { parts: message.parts.clone(), ..Default::default() };
        let body = message.body.unwrap();
        let stored = pb::StoredBody {
            pieces: message.pieces,
            parts: message.parts,
            body: Some(pb::BodyRecord {
                compression: body.compression,
                text: body.text,
                text_length: body.text_length,
            }),
        };
        searchable(&record, &stored).unwrap()
    }

    #[test]
    fn bodies_alternatives_attachments_and_the_list() {
        let found = of(
            "From: a@b.example\nList-Id: Kernel <Linux-Kernel.vger.example>\nContent-Type: multipart/mixed; boundary=x\n\n\
            --x\nContent-Type: multipart/alternative; boundary=y\n\n--y\nContent-Type: text/plain\n\nplain words\n\
            --y\nContent-Type: text/html\n\n<p>rich <b>words</b></p>\n--y--\n\
            --x\nContent-Type: text/csv\nContent-Disposition: attachment; filename=t.csv\n\none,two\n\
            --x\nContent-Type: application/pdf\nContent-Disposition: attachment; filename=t.pdf\n\nnot text\n--x--\n",
        );
        assert_eq!(found.list_id, "linux-kernel.vger.example");
        assert_eq!(found.bodies.concat().trim(), "plain words");
        assert_eq!(found.alternatives.concat().trim(), "rich words");
        assert_eq!(found.attachments.concat().trim(), "one,two");
    }

    #[test]
    fn encoded_lines_are_no_text() {
        let line = "AbC1".repeat(19);
        let found = of(&format!("From: a@b.example\n\nbefore\n{line}\nafter {line}\n"));
        let kept = found.bodies.concat();
        assert!(kept.contains("before") && kept.contains("after"));
        assert_eq!(kept.matches("AbC1AbC1").count(), line.len() / 8);
    }

    #[test]
    fn what_lies_in_a_blob_is_left_out() {
        let long = format!("word {}", "long words ".repeat(20_000));
        let found = of(&format!(
            "From: a@b.example\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\nshort\n--x\nContent-Type: text/plain\n\n{long}\n--x--\n"
        ));
        assert_eq!(found.bodies.concat().trim(), "short");
    }
}
