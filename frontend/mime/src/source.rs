//! Where blobs are read from.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use postrider_api::id::BlobHash;
use thiserror::Error;

/// The bytes of one blob, or of a range of it.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, BlobReadError>> + Send>>;

/// Reads blobs. Tests have them in memory; the service reads them from the object stores of the user's residency zone.
pub trait BlobSource: Send + Sync {
    /// Streams `range` of the blob, which the caller knows to lie within it.
    fn read(&self, hash: BlobHash, range: Range<u64>)
    -> impl Future<Output = Result<BlobStream, BlobReadError>> + Send;
}

/// Why a blob could not be read.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum BlobReadError {
    /// No store has it: a broken promise (P-11), not a passing trouble.
    #[error("blob {0} is in no store")]
    Missing(BlobHash),
    /// No store answered: asking again may help.
    #[error("no store could give blob {0}")]
    Unavailable(BlobHash),
    /// What came is not what the hash names.
    #[error("blob {0} is damaged")]
    Damaged(BlobHash),
}
