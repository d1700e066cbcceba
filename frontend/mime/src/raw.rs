//! The bytes that arrived, from what is stored.
//!
//! Invariant: memory is bounded by the stored text (below the size of a command) and one chunk of a blob.
//! Invariant: a stream that ends without an error gave exactly the bytes that were asked for.

use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use postrider_api::id::BlobHash;
use postrider_api::pb;
use thiserror::Error;

use super::limit::STORED_TEXT_BYTES_MAX;
use super::recipe::{Piece, Recipe, RecipeError, Source};
use super::source::{BlobReadError, BlobSource, BlobStream};
use super::wrap::Wrapper;

/// Bytes of a message or of a part.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, RawError>> + Send>>;

/// Why a stored message cannot be given back.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RawError {
    /// A blob could not be read: see there whether asking again helps.
    #[error(transparent)]
    Blob(#[from] BlobReadError),
    /// The row makes no message.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The stored text does not have the length that the row says, or cannot be decompressed.
    #[error("the stored text of the message is damaged")]
    Text,
}

/// The raw message. The first blob is opened before this returns, so that a store which cannot answer is an error here rather
/// than a broken stream.
///
/// # Errors
/// When the row is damaged or the first blob cannot be read.
pub async fn raw<B>(stored: &pb::StoredBody, blobs: &B) -> Result<ByteStream, RawError>
where
    B: BlobSource + Clone + 'static,
{
    let message = StoredMessage::open(stored, blobs)?;
    let size = message.recipe.size();
    message.read(0..size).await
}

/// A stored message, ready to be read from.
pub(super) struct StoredMessage<B> {
    pub(super) recipe: Recipe,
    text: Bytes,
    blobs: B,
}

impl<B: BlobSource + Clone + 'static> StoredMessage<B> {
    pub(super) fn open(stored: &pb::StoredBody, blobs: &B) -> Result<Self, RawError> {
        let recipe = Recipe::parse(stored)?;
        Ok(Self { recipe, text: stored_text(stored)?, blobs: blobs.clone() })
    }

    /// Streams a range of the raw message; what lies behind its end is not there.
    pub(super) async fn read(&self, range: Range<u64>) -> Result<ByteStream, RawError> {
        let covers = |piece: &&Piece| piece.raw.start < range.end && piece.raw.end > range.start;
        let pieces: Vec<Piece> = self.recipe.pieces.iter().filter(covers).cloned().collect();
        let mut reader = Reader {
            pieces: pieces.into_iter(),
            range,
            text: self.text.clone(),
            blobs: self.blobs.clone(),
            chunks: None,
            first: None,
        };
        reader.open_first_blob().await?;
        let stream =
            stream::try_unfold(
                reader,
                |mut reader| async move { Ok(reader.next().await?.map(|chunk| (chunk, reader))) },
            );
        Ok(Box::pin(stream))
    }

    /// Streams a range of a blob.
    pub(super) async fn read_blob(&self, hash: BlobHash, range: Range<u64>) -> Result<ByteStream, RawError> {
        let chunks = Chunks::open(&self.blobs, hash, range).await?;
        let stream =
            stream::try_unfold(
                chunks,
                |mut chunks| async move { Ok(chunks.next().await?.map(|chunk| (chunk, chunks))) },
            );
        Ok(Box::pin(stream))
    }
}

fn stored_text(stored: &pb::StoredBody) -> Result<Bytes, RawError> {
    let Some(body) = &stored.body else { return Ok(Bytes::new()) };
    let text = match pb::Compression::try_from(body.compression) {
        Ok(pb::Compression::None) => body.text.clone(),
        // Recipe::parse has refused a longer text than any command carries.
        Ok(pb::Compression::Zstd) => {
            let length = body.text_length.min(STORED_TEXT_BYTES_MAX) as usize;
            Bytes::from(zstd::bulk::decompress(&body.text, length).map_err(|_| RawError::Text)?)
        }
        Err(_) => return Err(RawError::Text),
    };
    if text.len() as u64 == body.text_length { Ok(text) } else { Err(RawError::Text) }
}

struct Reader<B> {
    /// The pieces that are still to come.
    pieces: std::vec::IntoIter<Piece>,
    /// What is wanted of the raw message.
    range: Range<u64>,
    text: Bytes,
    blobs: B,
    /// The piece that is being read.
    chunks: Option<Chunks>,
    /// The first blob, opened ahead.
    first: Option<Chunks>,
}

impl<B: BlobSource> Reader<B> {
    async fn open_first_blob(&mut self) -> Result<(), RawError> {
        let first = self.pieces.as_slice().iter().find_map(|piece| Chunks::of(piece, &self.range));
        if let Some(wanted) = first {
            self.first = Some(wanted.open(&self.blobs).await?);
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, RawError> {
        loop {
            if let Some(chunks) = &mut self.chunks {
                match chunks.next().await? {
                    Some(chunk) => return Ok(Some(chunk)),
                    None => self.chunks = None,
                }
            }
            let Some(piece) = self.pieces.next() else { return Ok(None) };
            let wanted = within(&piece.raw, &self.range);
            if let Source::Literal(text) = &piece.source {
                let (start, end) = (text.start + wanted.start, text.start + wanted.end);
                // The recipe's literals lie within the text, and the text is below the size of a command.
                return Ok(Some(self.text.slice(start as usize..end as usize)));
            }
            self.chunks = match (self.first.take(), Chunks::of(&piece, &self.range)) {
                (Some(first), _) => Some(first),
                (None, Some(wanted)) => Some(wanted.open(&self.blobs).await?),
                (None, None) => None,
            };
        }
    }
}

/// The part of `piece` that `range` wants, counted from the piece's own beginning.
fn within(piece: &Range<u64>, range: &Range<u64>) -> Range<u64> {
    let start = range.start.clamp(piece.start, piece.end);
    let end = range.end.clamp(start, piece.end);
    start - piece.start..end - piece.start
}

/// What is wanted of one blob.
struct Wanted {
    hash: BlobHash,
    range: Range<u64>,
    /// Encodes what comes, and which of the encoded bytes are wanted.
    wrapper: Option<(Wrapper, Range<u64>)>,
}

impl Wanted {
    async fn open<B: BlobSource>(self, blobs: &B) -> Result<Chunks, RawError> {
        let chunks = Chunks::open(blobs, self.hash, self.range).await?;
        Ok(Chunks { wrapper: self.wrapper.map(|(wrapper, range)| Wrapped { wrapper, at: 0, range }), ..chunks })
    }
}

/// The bytes of one blob, checked for their number, and encoded where that is wanted.
struct Chunks {
    hash: BlobHash,
    stream: BlobStream,
    /// Bytes that the blob still owes.
    owed: u64,
    wrapper: Option<Wrapped>,
}

struct Wrapped {
    wrapper: Wrapper,
    /// Encoded bytes so far.
    at: u64,
    range: Range<u64>,
}

impl Chunks {
    /// What `range` wants of `piece`; `None` if it is text.
    fn of(piece: &Piece, range: &Range<u64>) -> Option<Wanted> {
        let Source::Blob { hash, length, wrapping } = &piece.source else { return None };
        let wanted = within(&piece.raw, range);
        Some(match wrapping {
            None => Wanted { hash: *hash, range: wanted, wrapper: None },
            // Lines are encoded from their beginning: only somebody who reads from the middle of a message within a message
            // pays for it.
            Some(wrapping) => {
                Wanted { hash: *hash, range: 0..*length, wrapper: Some((Wrapper::new(*wrapping), wanted)) }
            }
        })
    }

    async fn open<B: BlobSource>(blobs: &B, hash: BlobHash, range: Range<u64>) -> Result<Self, RawError> {
        let owed = range.end - range.start;
        let stream = if owed == 0 { stream::empty().boxed() } else { blobs.read(hash, range).await? };
        Ok(Self { hash, stream, owed, wrapper: None })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, RawError> {
        loop {
            let Some(chunk) = self.stream.next().await.transpose()? else {
                if self.owed > 0 {
                    return Err(BlobReadError::Damaged(self.hash).into());
                }
                let Some(wrapped) = self.wrapper.take() else { return Ok(None) };
                let last = wrapped.finish();
                return Ok((!last.is_empty()).then_some(last));
            };
            let length = chunk.len() as u64;
            self.owed = self.owed.checked_sub(length).ok_or(BlobReadError::Damaged(self.hash))?;
            let chunk = match &mut self.wrapper {
                None => chunk,
                Some(wrapped) => wrapped.push(&chunk),
            };
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }
}

impl Wrapped {
    fn push(&mut self, content: &[u8]) -> Bytes {
        let mut lines = Vec::with_capacity(content.len() / 2 * 3);
        self.wrapper.push(content, &mut lines);
        self.select(lines)
    }

    fn finish(mut self) -> Bytes {
        let mut lines = Vec::new();
        self.wrapper.finish(&mut lines);
        self.select(lines)
    }

    fn select(&mut self, lines: Vec<u8>) -> Bytes {
        let here = self.at..self.at + lines.len() as u64;
        self.at = here.end;
        let wanted = within(&here, &self.range);
        // Both are within `lines`, which is in memory.
        Bytes::from(lines).slice(wanted.start as usize..wanted.end as usize)
    }
}
