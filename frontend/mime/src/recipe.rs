//! How a stored message turns back into its bytes: the pieces of its row, checked.
//!
//! Invariant: the pieces of a [`Recipe`] follow each other without a gap, its literals use up the stored text exactly, and each
//! encoded blob gives as many bytes as its place takes.

use std::ops::Range;

use postrider_api::id::BlobHash;
use postrider_api::pb;
use thiserror::Error;

use super::limit::{LINE_LENGTH_MAX, LINE_LENGTH_MIN, STORED_TEXT_BYTES_MAX};
use super::wrap::Wrapping;

/// A stored recipe that makes no message: the row is damaged, or was written by something newer.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("piece {piece} of the stored message: {reason}")]
pub struct RecipeError {
    /// Which piece, from 0; the number of pieces where they are wrong together.
    pub piece: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// The checked pieces of one stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    pub(super) pieces: Vec<Piece>,
    size: u64,
}

/// One stretch of the raw message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it lies in the raw message.
    pub(super) raw: Range<u64>,
    pub(super) source: Source,
}

/// Where the bytes of a piece come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Bytes of the stored text.
    Literal(Range<u64>),
    Blob {
        hash: BlobHash,
        length: u64,
        /// How the blob is encoded; `None`: it is as it arrived.
        wrapping: Option<Wrapping>,
    },
}

impl Recipe {
    /// Checks the pieces of a stored message.
    ///
    /// # Errors
    /// When they make no message.
    pub fn parse(stored: &pb::StoredBody) -> Result<Self, RecipeError> {
        let text_length = stored.body.as_ref().map_or(0, |body| body.text_length);
        let mut pieces = Vec::with_capacity(stored.pieces.len());
        let (mut size, mut literal) = (0u64, 0u64);
        for (at, piece) in stored.pieces.iter().enumerate() {
            let error = |reason| RecipeError { piece: at, reason };
            let end = size.checked_add(piece.raw_length).ok_or_else(|| error("the message is too long"))?;
            let source = if piece.literal_length > 0 {
                let literal_end = literal.checked_add(piece.literal_length).filter(|end| *end <= text_length);
                let literal_end = literal_end.ok_or_else(|| error("it is longer than the text that is stored"))?;
                if piece.raw_length != piece.literal_length || !piece.blob.is_empty() {
                    return Err(error("it is text and something else"));
                }
                let range = literal..literal_end;
                literal = literal_end;
                Source::Literal(range)
            } else {
                blob_source(piece).map_err(error)?
            };
            pieces.push(Piece { raw: size..end, source });
            size = end;
        }
        let whole = |reason| RecipeError { piece: stored.pieces.len(), reason };
        if literal != text_length {
            return Err(whole("text is left over"));
        }
        if text_length > STORED_TEXT_BYTES_MAX {
            return Err(whole("the text is longer than any command"));
        }
        Ok(Self { pieces, size })
    }

    /// Bytes of the raw message.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The blobs, in order; one that is used twice comes twice.
    pub fn blobs(&self) -> impl Iterator<Item = BlobHash> + '_ {
        self.pieces.iter().filter_map(|piece| match piece.source {
            Source::Blob { hash, .. } => Some(hash),
            Source::Literal(_) => None,
        })
    }
}

fn blob_source(piece: &pb::Piece) -> Result<Source, &'static str> {
    let hash = BlobHash::try_from(piece.blob.as_ref()).map_err(|_| "it is neither text nor a blob")?;
    let encoding = pb::PieceEncoding::try_from(piece.encoding).map_err(|_| "its encoding is not known")?;
    let (wrapping, raw_length) = match encoding {
        pb::PieceEncoding::Identity => (None, Some(piece.blob_length)),
        pb::PieceEncoding::Base64 => {
            if !(LINE_LENGTH_MIN..=LINE_LENGTH_MAX).contains(&piece.line_length) {
                return Err("its lines have a length that none has");
            }
            let wrapping = Wrapping { line_length: piece.line_length, final_newline: piece.final_newline };
            (Some(wrapping), wrapping.encoded_length(piece.blob_length))
        }
    };
    if raw_length != Some(piece.raw_length) {
        return Err("its blob does not fill its place");
    }
    Ok(Source::Blob { hash, length: piece.blob_length, wrapping })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn stored(pieces: Vec<pb::Piece>, text_length: u64) -> pb::StoredBody {
        let body = pb::BodyRecord { text_length, ..pb::BodyRecord::default() };
        pb::StoredBody { pieces, body: Some(body), parts: Vec::new() }
    }

    fn text(length: u64) -> pb::Piece {
        pb::Piece { literal_length: length, raw_length: length, ..pb::Piece::default() }
    }

    fn blob() -> pb::Piece {
        pb::Piece {
            blob: Bytes::from(vec![7; 32]),
            blob_length: 6,
            encoding: pb::PieceEncoding::Base64.into(),
            line_length: 4,
            final_newline: true,
            raw_length: 12,
            ..pb::Piece::default()
        }
    }

    #[test]
    fn pieces_follow_each_other() {
        let recipe = Recipe::parse(&stored(vec![text(5), blob(), text(3)], 8)).unwrap();
        assert_eq!(recipe.size(), 20);
        let raw: Vec<_> = recipe.pieces.iter().map(|piece| piece.raw.clone()).collect();
        assert_eq!(raw, [0..5, 5..17, 17..20]);
        assert_eq!(recipe.pieces[2].source, Source::Literal(5..8));
        assert_eq!(recipe.blobs().count(), 1);
    }

    #[test]
    fn what_makes_no_message_is_refused() {
        let reason = |pieces, text_length| Recipe::parse(&stored(pieces, text_length)).unwrap_err().reason;
        assert_eq!(reason(vec![text(5)], 4), "it is longer than the text that is stored");
        assert_eq!(reason(vec![text(5)], 6), "text is left over");
        assert_eq!(reason(vec![pb::Piece::default()], 0), "it is neither text nor a blob");
        assert_eq!(reason(vec![pb::Piece { raw_length: 11, ..blob() }], 0), "its blob does not fill its place");
        assert_eq!(reason(vec![pb::Piece { line_length: 0, ..blob() }], 0), "its lines have a length that none has");
        assert_eq!(reason(vec![pb::Piece { encoding: 9, ..blob() }], 0), "its encoding is not known");
        assert_eq!(reason(vec![pb::Piece { literal_length: 12, ..blob() }], 12), "it is text and something else");
        let huge = pb::Piece { encoding: 0, blob_length: u64::MAX, raw_length: u64::MAX, ..blob() };
        assert_eq!(reason(vec![huge.clone(), huge], 0), "the message is too long");
        assert_eq!(reason(vec![text(1 << 21)], 1 << 21), "the text is longer than any command");
    }

    proptest! {
        #[test]
        fn any_row_is_refused_or_makes_a_message(numbers in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), 0i32..3, any::<u32>(), 0usize..34), 0..4), text_length: u64) {
            let pieces = numbers.into_iter().map(|(literal_length, blob_length, raw_length, encoding, line_length, hash)| pb::Piece {
                literal_length, blob_length, raw_length, encoding, line_length, final_newline: false, blob: Bytes::from(vec![0; hash]),
            }).collect();
            if let Ok(recipe) = Recipe::parse(&stored(pieces, text_length)) {
                prop_assert!(text_length <= STORED_TEXT_BYTES_MAX && recipe.size() >= text_length);
            }
        }
    }
}
