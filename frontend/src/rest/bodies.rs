//! The blobs of messages, as REST reads and writes them.
//!
//! Invariant: a blob is looked for in the residency zone of the caller's shard and nowhere else (P-9): a hash that somebody
//! knows opens nothing, because only a row of the caller's mailbox leads here.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use postrider_api::id::{BlobHash, ShardId};

use crate::cluster::Cluster;
use crate::mime::{BlobReadError, BlobSource, BlobStream, CutBlob, RawError};
use crate::rest::problem::{Kind, Problem};

/// Reads and writes blobs by zone.
#[async_trait]
pub trait BlobAccess: Send + Sync + 'static {
    /// Streams `range` of a blob, which the caller knows to lie within it.
    async fn read(&self, zone: &str, hash: BlobHash, range: Range<u64>) -> Result<BlobStream, BlobReadError>;

    /// Returns when the stores of two regions of the zone have the blob on disk.
    async fn put(&self, zone: &str, hash: BlobHash, content: Bytes) -> Result<(), BlobNotStored>;
}

/// A blob that is not durable in two regions: nothing may refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("fewer than two regions stored the blob")]
pub struct BlobNotStored;

/// Blobs that one message puts at once.
const PUTS_AT_ONCE: usize = 4;

/// The blobs of the cluster.
#[derive(Clone)]
pub struct Bodies {
    blobs: Arc<dyn BlobAccess>,
    cluster: Arc<dyn Cluster>,
}

impl Bodies {
    /// Over the object stores; the shard map of `cluster` tells each shard's zone.
    pub fn new(blobs: Arc<dyn BlobAccess>, cluster: Arc<dyn Cluster>) -> Self {
        Self { blobs, cluster }
    }

    /// The blobs of a shard's zone.
    pub fn of_shard(&self, shard: ShardId) -> Result<ZoneBlobs, Problem> {
        let map = self.cluster.map();
        let zone = map.shards.iter().find(|candidate| candidate.id == shard.0).map(|shard| shard.zone.as_str());
        let zone = zone.ok_or_else(|| Problem::new(Kind::Unavailable).detail("the shard map does not name the shard yet"))?;
        Ok(ZoneBlobs { blobs: Arc::clone(&self.blobs), zone: zone.into() })
    }
}

/// The blobs of one residency zone.
#[derive(Clone)]
pub struct ZoneBlobs {
    blobs: Arc<dyn BlobAccess>,
    zone: Arc<str>,
}

impl ZoneBlobs {
    /// Makes the blobs of a message durable; until then no command may refer to them (P-1).
    pub async fn put_all(&self, blobs: Vec<CutBlob>) -> Result<(), Problem> {
        stream::iter(blobs)
            .map(|blob| self.blobs.put(&self.zone, blob.hash, blob.content))
            .buffer_unordered(PUTS_AT_ONCE)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
            .map_err(|error| Problem::new(Kind::Unavailable).detail(error.to_string()))
    }
}

impl BlobSource for ZoneBlobs {
    async fn read(&self, hash: BlobHash, range: Range<u64>) -> Result<BlobStream, BlobReadError> {
        self.blobs.read(&self.zone, hash, range).await
    }
}

/// What a stored message that cannot be read is to the client.
pub fn unreadable(error: &RawError) -> Problem {
    match error {
        RawError::Blob(BlobReadError::Unavailable(_)) => {
            Problem::new(Kind::Unavailable).detail("no object store could give a part of the message")
        }
        RawError::Blob(BlobReadError::Missing(_) | BlobReadError::Damaged(_)) | RawError::Recipe(_) | RawError::Text => {
            Problem::internal(&error.to_string())
        }
    }
}
