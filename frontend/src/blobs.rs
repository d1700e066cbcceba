//! The object stores, as the protocols see them: blobs of one residency zone, durable in two regions or not there.
//!
//! Invariant: a put that returned without an error is on disk in two regions (P-1); only then may a command refer to it.
//! Invariant: every call names its zone, and nothing is looked for in another (P-9).

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use postrider_api::id::BlobHash;
use postrider_blob::{BlobError, Replicated, Zone};

use crate::mime::{BlobReadError, BlobSource, BlobStream, CutBlob};
use crate::smtp::{BlobPutError, BlobSink};

/// Blobs of one message on their way to the stores at once. A message has some hundred at most, and hardly ever more than ten.
const PUTS_AT_ONCE_MAX: usize = 4;

/// The object stores of all regions. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    stores: Replicated,
}

impl Blobs {
    /// Over the stores that this process reaches.
    pub fn new(stores: Replicated) -> Self {
        Self { stores }
    }

    /// The blobs of one zone.
    ///
    /// # Errors
    /// When `zone` is no zone's name.
    pub fn of_zone(&self, zone: &str) -> Result<ZoneBlobs, BlobError> {
        Ok(ZoneBlobs { stores: self.stores.clone(), zone: Zone::new(zone)? })
    }
}

/// The blobs of one residency zone. Cheap to clone.
#[derive(Clone)]
pub struct ZoneBlobs {
    stores: Replicated,
    zone: Zone,
}

impl ZoneBlobs {
    /// Returns when two regions of the zone have the blob on disk.
    ///
    /// # Errors
    /// When fewer have it.
    pub async fn put(&self, hash: BlobHash, content: Bytes) -> Result<(), BlobError> {
        self.stores.put(&self.zone, &hash, content).await.map(drop)
    }

    /// Puts all blobs of a message, several at once; returns when each is on disk in two regions. After an error some may be
    /// there: nothing refers to them, and the sweep takes them (P-11).
    ///
    /// # Errors
    /// The first that occurs.
    pub async fn put_all(&self, blobs: Vec<CutBlob>) -> Result<(), BlobError> {
        stream::iter(blobs)
            .map(|blob| self.put(blob.hash, blob.content))
            .buffer_unordered(PUTS_AT_ONCE_MAX)
            .try_collect::<()>()
            .await
    }
}

impl BlobSource for ZoneBlobs {
    async fn read(&self, hash: BlobHash, range: Range<u64>) -> Result<BlobStream, BlobReadError> {
        let error = move |error| read_error(hash, error);
        // Only a whole blob can be compared with its hash, and another copy taken if it is not the one; and what begins at the
        // beginning is nearly always the whole.
        if range.start == 0 {
            let whole = self.stores.get(&self.zone, &hash, None).await.map_err(error)?;
            if whole.len() == range.end {
                return Ok(Box::pin(whole.map_err(error)));
            }
        }
        let part = self.stores.get(&self.zone, &hash, Some(range)).await.map_err(error)?;
        Ok(Box::pin(part.map_err(error)))
    }
}

fn read_error(hash: BlobHash, error: BlobError) -> BlobReadError {
    match error {
        BlobError::NotFound => BlobReadError::Missing(hash),
        // A range that the blob does not have: it is not the one that the row means.
        BlobError::Corrupt { .. } | BlobError::TooLarge { .. } | BlobError::Invalid { .. } => {
            BlobReadError::Damaged(hash)
        }
        BlobError::Unavailable { .. } | BlobError::TooFewCopies { .. } => BlobReadError::Unavailable(hash),
        BlobError::Denied { .. } => {
            // To the reader it is an outage; the operator has to know which.
            tracing::error!(%error, "object store refuses to give a blob");
            BlobReadError::Unavailable(hash)
        }
    }
}

#[async_trait]
impl BlobSink for Blobs {
    async fn put(&self, zone: &str, hash: BlobHash, content: Bytes) -> Result<(), BlobPutError> {
        let put = async { self.of_zone(zone)?.put(hash, content).await };
        put.await.map_err(|error| match error {
            error if error.is_retryable() => BlobPutError::Unavailable(error.to_string()),
            error => BlobPutError::Refused(error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use postrider_api::env::SystemClock;
    use postrider_blob::{BlobStore, Fault, Faulty, MemoryStore, Op, Outage, Rule};

    use super::*;

    /// Three regions, and what went wrong with them.
    fn regions() -> (Blobs, Vec<Arc<Faulty<MemoryStore>>>) {
        let stores: Vec<_> = ["seoul", "frankfurt", "virginia"]
            .map(|region| Arc::new(Faulty::new(MemoryStore::new(region))))
            .into_iter()
            .collect();
        let dynamic = stores.iter().map(|store| Arc::clone(store) as Arc<dyn BlobStore>).collect();
        (Blobs::new(Replicated::new(dynamic, "seoul", SystemClock::shared())), stores)
    }

    fn cut(content: &'static [u8]) -> CutBlob {
        CutBlob { hash: BlobHash::of(content), content: Bytes::from_static(content) }
    }

    async fn read(blobs: &ZoneBlobs, hash: BlobHash, range: Range<u64>) -> Result<Vec<u8>, BlobReadError> {
        let chunks: Vec<Bytes> = blobs.read(hash, range).await?.try_collect().await?;
        Ok(chunks.concat())
    }

    #[tokio::test]
    async fn all_blobs_of_a_message_are_put_and_read_again() {
        let (blobs, stores) = regions();
        let eu = blobs.of_zone("eu").unwrap();
        eu.put_all(vec![cut(b"one"), cut(b"two")]).await.unwrap();
        for blob in [cut(b"one"), cut(b"two")] {
            assert_eq!(read(&eu, blob.hash, 0..3).await.unwrap(), blob.content);
            assert_eq!(read(&eu, blob.hash, 0..2).await.unwrap(), blob.content[..2]);
            assert_eq!(read(&eu, blob.hash, 1..3).await.unwrap(), blob.content[1..]);
            let mut durable = 0;
            for store in &stores {
                durable += usize::from(store.head(&Zone::new("eu").unwrap(), &blob.hash).await.unwrap().is_some());
            }
            assert!(durable >= 2, "{durable} regions");
        }
    }

    #[tokio::test]
    async fn one_region_is_not_enough() {
        let (blobs, stores) = regions();
        for store in &stores[1..] {
            store.add(Rule::always(Op::Put, Fault::Fail(Outage::Failing)));
        }
        let eu = blobs.of_zone("eu").unwrap();
        assert!(eu.put_all(vec![cut(b"one")]).await.unwrap_err().is_retryable());
        let error = BlobSink::put(&blobs, "eu", cut(b"one").hash, cut(b"one").content).await.unwrap_err();
        assert!(matches!(error, BlobPutError::Unavailable(_)), "{error}");
    }

    #[tokio::test]
    async fn zones_are_apart() {
        let (blobs, _) = regions();
        let (eu, us) = (blobs.of_zone("eu").unwrap(), blobs.of_zone("us").unwrap());
        eu.put_all(vec![cut(b"one")]).await.unwrap();
        let hash = cut(b"one").hash;
        assert_eq!(read(&us, hash, 0..3).await, Err(BlobReadError::Missing(hash)));
        let error = BlobSink::put(&blobs, "no zone", hash, cut(b"one").content).await.unwrap_err();
        assert!(matches!(error, BlobPutError::Refused(_)), "{error}");
    }

    #[tokio::test]
    async fn a_damaged_copy_is_not_given_out() {
        let (blobs, stores) = regions();
        let eu = blobs.of_zone("eu").unwrap();
        eu.put_all(vec![cut(b"one")]).await.unwrap();
        // In one region: another copy is read instead.
        stores[0].add(Rule::always(Op::Get, Fault::FlipBit { at: 1 }));
        assert_eq!(read(&eu, cut(b"one").hash, 0..3).await.unwrap(), b"one");
        for store in &stores[1..] {
            store.add(Rule::always(Op::Get, Fault::FlipBit { at: 1 }));
        }
        assert!(read(&eu, cut(b"one").hash, 0..3).await.is_err());
    }
}
