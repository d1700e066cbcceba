//! The blobs of messages, as REST reads and writes them.
//!
//! Invariant: a blob is looked for in the residency zone of the caller's shard and nowhere else (P-9): a hash that somebody
//! knows opens nothing, because only a row of the caller's mailbox leads here.

use std::sync::Arc;

use postrider_api::id::ShardId;
use postrider_blob::BlobError;

use crate::blobs::{Blobs, ZoneBlobs};
use crate::cluster::Cluster;
use crate::mime::{BlobReadError, CutBlob, RawError};
use crate::rest::problem::{Kind, Problem};

/// The blobs of the cluster.
#[derive(Clone)]
pub(crate) struct Bodies {
    blobs: Blobs,
    cluster: Arc<dyn Cluster>,
}

impl Bodies {
    /// Over the object stores; the shard map of `cluster` tells each shard's zone.
    pub(crate) fn new(blobs: Blobs, cluster: Arc<dyn Cluster>) -> Self {
        Self { blobs, cluster }
    }

    /// The blobs of a shard's zone.
    pub(crate) fn of_shard(&self, shard: ShardId) -> Result<ZoneBlobs, Problem> {
        let map = self.cluster.map();
        let found = map.shards.iter().find(|candidate| candidate.id == shard.0);
        let found =
            found.ok_or_else(|| Problem::new(Kind::Unavailable).detail("the shard map does not name the shard yet"))?;
        self.blobs.of_zone(&found.zone).map_err(|error| Problem::internal(&error.to_string()))
    }

    /// Makes the blobs of a message durable; until then no command may refer to them (P-1).
    pub(crate) async fn put_all(&self, shard: ShardId, blobs: Vec<CutBlob>) -> Result<(), Problem> {
        if blobs.is_empty() {
            return Ok(());
        }
        self.of_shard(shard)?.put_all(blobs).await.map_err(|error| match error {
            BlobError::TooLarge { max } => Problem::new(Kind::MessageTooLarge).member("bytes_max", max),
            error if error.is_retryable() => {
                Problem::new(Kind::Unavailable).detail("fewer than two regions could store an attachment")
            }
            error => Problem::internal(&error.to_string()),
        })
    }
}

/// What a stored message that cannot be read is to the client.
pub(crate) fn unreadable(error: &RawError) -> Problem {
    match error {
        RawError::Blob(BlobReadError::Unavailable(_)) => {
            Problem::new(Kind::Unavailable).detail("no object store could give a part of the message")
        }
        RawError::Blob(BlobReadError::Missing(_) | BlobReadError::Damaged(_))
        | RawError::Recipe(_)
        | RawError::Text => Problem::internal(&error.to_string()),
    }
}
