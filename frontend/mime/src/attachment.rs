//! One part, decoded.

use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use postrider_api::id::BlobHash;
use postrider_api::pb;
use thiserror::Error;

use super::decode::Decoder;
use super::raw::{ByteStream, RawError, StoredMessage};
use super::recipe::{Recipe, RecipeError, Source};
use super::source::BlobSource;

/// A part on its way to a reader.
pub struct Attachment {
    /// Media type in lower case, without parameters.
    pub content_type: String,
    /// The charset that the part names; empty where it names none.
    pub charset: String,
    /// Decoded and without control characters; empty where there is none. A sender chose it: whoever makes a file or a header
    /// field of it has to quote it.
    pub filename: String,
    /// Bytes of the whole part, decoded.
    pub length: u64,
    /// Which of them the stream gives.
    pub range: Range<u64>,
    /// The bytes.
    pub stream: ByteStream,
}

/// Why a part cannot be given.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum AttachmentError {
    /// The message has no such part.
    #[error("the message has no such part")]
    NotFound,
    /// The range begins behind the end (RFC 9110 section 15.5.17).
    #[error("the part has {length} bytes")]
    OutOfRange {
        /// Bytes of the part.
        length: u64,
    },
    /// The stored message cannot be read.
    #[error(transparent)]
    Raw(#[from] RawError),
}

/// Which bytes of a part are wanted (RFC 9110 section 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first, up to and including the second; without it, up to the end.
    From(u64, Option<u64>),
    /// The last so many.
    Last(u64),
}

impl ByteRange {
    /// Reads the value of a Range field. `None`: it asks for something that is not served (other units, several ranges), and the
    /// whole is the right answer (RFC 9110 section 14.2).
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, range) = value.split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        // A sign or white space is no digit.
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        match (unit.trim().eq_ignore_ascii_case("bytes"), first, last) {
            (false, _, _) => None,
            (true, "", last) => number(last).map(Self::Last),
            (true, first, "") => number(first).map(|first| Self::From(first, None)),
            (true, first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// The bytes of something of `length`; `None` when there are none.
    pub fn resolve(self, length: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first, last) => first..last.map_or(length, |last| last.saturating_add(1).min(length)),
            Self::Last(count) => length.saturating_sub(count)..length,
        };
        (range.start < range.end).then_some(range)
    }
}

/// One part of a stored message, decoded, or a range of it.
///
/// # Errors
/// When there is no such part, the range is behind its end, or the stored message cannot be read.
pub async fn attachment<B>(
    stored: &pb::StoredBody,
    part_path: &str,
    blobs: &B,
    range: Option<ByteRange>,
) -> Result<Attachment, AttachmentError>
where
    B: BlobSource + Clone + 'static,
{
    let part = stored.parts.iter().find(|part| part.path == part_path).ok_or(AttachmentError::NotFound)?;
    let length = part.decoded_size;
    let range = match range {
        None => 0..length,
        Some(range) => range.resolve(length).ok_or(AttachmentError::OutOfRange { length })?,
    };
    let message = StoredMessage::open(stored, blobs)?;
    Ok(Attachment {
        content_type: part.content_type.clone(),
        charset: part.charset.clone(),
        filename: part.filename.clone(),
        length,
        stream: read_part(&message, part, range.clone()).await?,
        range,
    })
}

/// Streams a range of a part's decoded bytes.
pub(super) async fn read_part<B>(
    message: &StoredMessage<B>,
    part: &pb::Part,
    range: Range<u64>,
) -> Result<ByteStream, RawError>
where
    B: BlobSource + Clone + 'static,
{
    let (start, end) = bounds(&message.recipe, part)?;
    let short = short(&message.recipe);
    if part.encoding() == pb::TransferEncoding::Identity {
        return if range.end <= part.length {
            message.read(start + range.start..start + range.end).await
        } else {
            Err(short.into())
        };
    }
    if let Some(hash) = decoded_blob(&message.recipe, part) {
        return message.read_blob(hash, range).await;
    }
    let encoded = message.read(start..end).await?;
    Ok(decoded(encoded, part.encoding(), range, short))
}

/// The beginning of a part.
pub(super) struct Head {
    /// Decoded.
    pub(super) bytes: Vec<u8>,
    /// What was read for them, as it is stored.
    pub(super) input: u64,
}

/// The first `wanted` decoded bytes of a part, out of at most `input_max` bytes as they are stored: fewer where those give no more.
pub(super) async fn read_head<B>(
    message: &StoredMessage<B>,
    part: &pb::Part,
    wanted: u64,
    input_max: u64,
) -> Result<Head, RawError>
where
    B: BlobSource + Clone + 'static,
{
    let is_as_stored =
        part.encoding() == pb::TransferEncoding::Identity || decoded_blob(&message.recipe, part).is_some();
    if is_as_stored {
        let bytes = collect(read_part(message, part, 0..wanted.min(input_max)).await?).await?;
        return Ok(Head { input: bytes.len() as u64, bytes });
    }
    let (start, end) = bounds(&message.recipe, part)?;
    let mut encoded = message.read(start..end.min(start.saturating_add(input_max))).await?;
    let mut decoder = Decoder::new(part.encoding());
    let mut head = Head { bytes: Vec::new(), input: 0 };
    // At most RENDERED_BYTES_MAX are wanted.
    let wanted = wanted as usize;
    while head.bytes.len() < wanted {
        let Some(chunk) = encoded.next().await.transpose()? else {
            decoder.finish(&mut head.bytes);
            break;
        };
        head.input += chunk.len() as u64;
        decoder.push(&chunk, &mut head.bytes);
    }
    if head.bytes.len() < wanted && head.input == end - start {
        return Err(short(&message.recipe).into());
    }
    head.bytes.truncate(wanted);
    Ok(head)
}

/// The caller has asked for a bounded range.
pub(super) async fn collect(mut stream: ByteStream) -> Result<Vec<u8>, RawError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await.transpose()? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Where a part's encoded bytes are in the raw message.
fn bounds(recipe: &Recipe, part: &pb::Part) -> Result<(u64, u64), RecipeError> {
    let end = part.offset.checked_add(part.length).filter(|end| *end <= recipe.size());
    let reason = "a part lies behind the end of the message";
    end.map(|end| (part.offset, end)).ok_or(RecipeError { piece: recipe.pieces.len(), reason })
}

fn short(recipe: &Recipe) -> RecipeError {
    RecipeError { piece: recipe.pieces.len(), reason: "a part is shorter than its row says" }
}

/// The blob that holds just the part's decoded bytes, if there is one.
fn decoded_blob(recipe: &Recipe, part: &pb::Part) -> Option<BlobHash> {
    let end = part.offset.saturating_add(part.length);
    recipe.pieces.iter().find_map(|piece| match piece.source {
        Source::Blob { hash, length, wrapping: Some(_) } => {
            let is_within = piece.raw.start >= part.offset && piece.raw.end <= end;
            (is_within && length == part.decoded_size && hash.0[..] == part.blob[..]).then_some(hash)
        }
        _ => None,
    })
}

/// Decodes, and gives a range of what comes; `short` if the range is not there.
fn decoded(encoded: ByteStream, encoding: pb::TransferEncoding, range: Range<u64>, short: RecipeError) -> ByteStream {
    struct State {
        encoded: ByteStream,
        decoder: Option<Decoder>,
        at: u64,
        range: Range<u64>,
        short: RecipeError,
    }
    let state = State { encoded, decoder: Some(Decoder::new(encoding)), at: 0, range, short };
    Box::pin(stream::try_unfold(state, |mut state| async move {
        while state.at < state.range.end {
            let Some(decoder) = &mut state.decoder else { return Err(state.short.into()) };
            let mut out = Vec::new();
            match state.encoded.next().await.transpose()? {
                Some(chunk) => decoder.push(&chunk, &mut out),
                None => {
                    decoder.finish(&mut out);
                    state.decoder = None;
                }
            }
            let here = state.at..state.at + out.len() as u64;
            state.at = here.end;
            let start = state.range.start.clamp(here.start, here.end) - here.start;
            let end = state.range.end.clamp(here.start, here.end) - here.start;
            if start < end {
                // Both are within `out`, which is in memory.
                return Ok(Some((Bytes::from(out).slice(start as usize..end as usize), state)));
            }
        }
        Ok(None)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        let bytes = |value: &str, length| ByteRange::parse(value).map(|range| range.resolve(length));
        assert_eq!(bytes("bytes=0-4", 10), Some(Some(0..5)));
        assert_eq!(bytes("bytes=5-", 10), Some(Some(5..10)));
        assert_eq!(bytes("Bytes=-3", 10), Some(Some(7..10)));
        assert_eq!(bytes("bytes=-30", 10), Some(Some(0..10)));
        assert_eq!(bytes("bytes=0-99", 10), Some(Some(0..10)));
        assert_eq!(bytes("bytes=10-", 10), Some(None));
        assert_eq!(bytes("bytes=-0", 10), Some(None));
        assert_eq!(bytes("bytes=0-18446744073709551615", 10), Some(Some(0..10)));
        for value in ["bytes=5-4", "bytes=0-1,3-4", "lines=0-1", "bytes=+1-2", "bytes=a-", "bytes", "bytes=-", ""] {
            assert_eq!(bytes(value, 10), None, "{value}");
        }
    }
}
