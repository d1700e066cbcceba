//! One region's store, as the rest of the crate sees it.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use postrider_api::id::BlobHash;

use crate::{BlobError, BlobReader, Zone};

/// What a put found. Either way the blob is durable in that region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was not there and is now.
    Stored,
    /// It was there already.
    Existed,
}

/// One row of [`BlobStore::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which blob.
    pub hash: BlobHash,
    /// Its length, bytes.
    pub bytes: u64,
    /// Which put wrote it. In the embedded store no two puts have the same; a foreign S3 store may give the same to the same
    /// content.
    pub version: String,
}

/// The object store of one region.
///
/// Every answer about a blob's presence is about durable presence: what `put`, `head`, `get` and `list` have reported
/// survives a power cut, unless somebody deletes it.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// The region whose store this is.
    fn region(&self) -> &str;

    /// Stores `content` under its hash unless it is there already. Of concurrent puts exactly one answers
    /// [`Put::Stored`].
    async fn put(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<Put, BlobError>;

    /// Stores `content` under its hash whatever is there now: the cure for a copy that [`BlobError::Corrupt`] named.
    async fn replace(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<(), BlobError>;

    /// Opens a blob, or a part of it: bytes `range.start..range.end`, where an end beyond the blob means its end. A read
    /// of the whole blob is verified: the reader ends with [`BlobError::Corrupt`] instead of giving the last bytes of
    /// wrong content. A range cannot be.
    async fn get(&self, zone: &Zone, hash: &BlobHash, range: Option<Range<u64>>) -> Result<BlobReader, BlobError>;

    /// The length of a blob in bytes, `None` if it is not there.
    async fn head(&self, zone: &Zone, hash: &BlobHash) -> Result<Option<u64>, BlobError>;

    /// Removes a blob. One that is not there counts as removed.
    async fn delete(&self, zone: &Zone, hash: &BlobHash) -> Result<(), BlobError>;

    /// Removes a blob if it is still the one that [`BlobStore::list`] named: a deletion that was decided on before somebody
    /// put the blob again does nothing. Whether it is gone, or was.
    async fn delete_version(&self, zone: &Zone, hash: &BlobHash, version: &str) -> Result<bool, BlobError>;

    /// Up to `max` (and at most 1,000) blobs of a zone in the order of their hashes, from the first one after `after` on.
    /// An empty answer is the end.
    async fn list(&self, zone: &Zone, after: Option<&BlobHash>, max: usize) -> Result<Vec<Listed>, BlobError>;
}

/// Rows of one [`BlobStore::list`] answer; S3's own limit for one page.
pub(crate) const LIST_ROWS_MAX: usize = 1000;

/// The one check of a range against a blob's length: clamps the end, refuses what gives no byte.
pub(crate) fn clamp(range: Option<Range<u64>>, len: u64) -> Result<Range<u64>, BlobError> {
    match range {
        None => Ok(0..len),
        Some(range) if range.start < range.end.min(len) => Ok(range.start..range.end.min(len)),
        Some(_) => Err(BlobError::Invalid { what: "the range lies outside of the blob" }),
    }
}
