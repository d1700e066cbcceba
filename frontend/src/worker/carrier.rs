//! The blobs of a message that goes from one shard to another, as the worker needs them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use postrider_api::id::{BlobHash, IdError, ShardId};
use postrider_api::pb;
use thiserror::Error;

/// Why the blobs are not durable for the target yet.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{0}")]
pub struct CarryError(pub String);

/// Makes blobs of one shard durable for another.
#[async_trait]
pub trait BlobCarrier: Send + Sync + 'static {
    /// Returns when the stores of two regions of `target` have each of the blobs on disk (P-1), which are durable for `source`:
    /// the shard of the queue entry that refers to them. Where the two are in different zones each has copies of its own.
    ///
    /// # Errors
    /// When it is not so; what has been carried by then need not be again.
    async fn carry(
        &self,
        map: &pb::ShardMap,
        source: ShardId,
        target: ShardId,
        blobs: &[BlobHash],
    ) -> Result<(), CarryError>;
}

/// Every blob that a message refers to, once.
pub(super) fn blobs_of(message: &pb::NewMessage) -> Result<Vec<BlobHash>, IdError> {
    let parts = message.parts.iter().map(|part| &part.blob);
    let pieces = message.pieces.iter().map(|piece| &piece.blob);
    let named = parts.chain(pieces).filter(|blob| !blob.is_empty());
    let blobs: BTreeSet<BlobHash> = named.map(|blob| BlobHash::try_from(&blob[..])).collect::<Result<_, _>>()?;
    Ok(blobs.into_iter().collect())
}
