//! The object stores, as the protocols see them: blobs of one residency zone, durable in two regions or not there.
//!
//! Invariant: a put that returned without an error is on disk in two regions (P-1), of those that have a replica of the shard
//! where one was named; only then may a command refer to it.
//! Invariant: every call names its zone, and nothing is looked for in another (P-9).

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use postrider_api::id::{BlobHash, ShardId};
use postrider_api::pb;
use postrider_blob::{BLOB_BYTES_MAX, BlobError, COPIES_MIN, Replicated, Zone};
use tokio::sync::Semaphore;

use crate::place::Place;
use crate::smtp::{BlobPutError, BlobSink};
use crate::worker::{BlobCarrier, CarryError};
use postrider_mime::{BlobReadError, BlobSource, BlobStream, CutBlob};

/// Blobs that are carried from one shard's stores to another's at once, in this process: each is in memory as a whole.
const CARRIED_AT_ONCE_MAX: usize = 2;
/// Blobs of one message on their way to the stores at once. A message has some hundred at most, and hardly ever more than ten.
const PUTS_AT_ONCE_MAX: usize = 4;

/// The object stores of all regions. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    stores: Replicated,
    carries: Arc<Semaphore>,
}

impl Blobs {
    /// Over the stores that this process reaches.
    pub fn new(stores: Replicated) -> Self {
        Self { stores, carries: Arc::new(Semaphore::new(CARRIED_AT_ONCE_MAX)) }
    }

    /// The blobs of a shard; `None` while the map does not name it.
    ///
    /// # Errors
    /// When the map names a zone that is none.
    pub fn of_shard(&self, map: &pb::ShardMap, shard: ShardId) -> Option<Result<ZoneBlobs, BlobError>> {
        let place = Place::of(map, shard)?;
        Some(self.of_zone(&place.zone).map(|blobs| blobs.within(map, &place)))
    }

    /// The blobs of one zone.
    ///
    /// # Errors
    /// When `zone` is no zone's name.
    fn of_zone(&self, zone: &str) -> Result<ZoneBlobs, BlobError> {
        Ok(ZoneBlobs { puts: self.stores.clone(), gets: self.stores.clone(), zone: Zone::new(zone)? })
    }
}

/// The blobs of one residency zone. Cheap to clone.
#[derive(Clone)]
pub struct ZoneBlobs {
    /// Stores that get what is put.
    puts: Replicated,
    /// Stores that are read from.
    gets: Replicated,
    zone: Zone,
}

impl ZoneBlobs {
    /// Puts only where the shard has replicas (P-1), reads nowhere but in the zone (P-9): a read repairs what it misses.
    fn within(self, map: &pb::ShardMap, place: &Place) -> Self {
        Self {
            puts: self.puts.in_regions(place.regions.iter().map(String::as_str)),
            gets: self.gets.in_regions(place.zone_regions(map)),
            zone: self.zone,
        }
    }

    /// Returns when two regions have the blob on disk.
    ///
    /// # Errors
    /// When fewer have it.
    pub async fn put(&self, hash: BlobHash, content: Bytes) -> Result<(), BlobError> {
        let durable = self.puts.put(&self.zone, &hash, content).await?;
        if durable.existed {
            // Nothing deletes blobs yet. What does (P-11) has to be told of this one before a command refers to it.
            metrics::counter!("postrider_blob_puts_existed_total").increment(1);
        }
        Ok(())
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
            let whole = self.gets.get(&self.zone, &hash, None).await.map_err(error)?;
            if whole.len() == range.end {
                return Ok(Box::pin(whole.map_err(error)));
            }
        }
        let part = self.gets.get(&self.zone, &hash, Some(range)).await.map_err(error)?;
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
    async fn put_all(&self, map: &pb::ShardMap, shard: ShardId, blobs: Vec<CutBlob>) -> Result<(), BlobPutError> {
        let of_shard = self.of_shard(map, shard).ok_or_else(|| BlobPutError::Unavailable(unknown(shard)))?;
        let put = async { of_shard?.put_all(blobs).await };
        put.await.map_err(put_error)
    }
}

#[async_trait]
impl BlobCarrier for Blobs {
    async fn carry(
        &self,
        map: &pb::ShardMap,
        source: ShardId,
        target: ShardId,
        blobs: &[BlobHash],
    ) -> Result<(), CarryError> {
        let places = (Place::of(map, source), Place::of(map, target));
        if let (Some(source), Some(target)) = places
            && source.is_within(&target)
        {
            return Ok(());
        }
        let of_shard = |shard| {
            let blobs = self.of_shard(map, shard).ok_or_else(|| CarryError(unknown(shard)))?;
            blobs.map_err(not_carried)
        };
        let (from, to) = (of_shard(source)?, of_shard(target)?);
        for hash in blobs {
            self.carry_one(&from, &to, hash).await.map_err(not_carried)?;
        }
        Ok(())
    }
}

impl Blobs {
    async fn carry_one(&self, from: &ZoneBlobs, to: &ZoneBlobs, hash: &BlobHash) -> Result<(), BlobError> {
        if to.puts.copies(&to.zone, hash).await >= COPIES_MIN {
            return Ok(());
        }
        // The semaphore is never closed.
        let _turn = self.carries.acquire().await;
        let content = from.gets.get(&from.zone, hash, None).await?.collect(BLOB_BYTES_MAX).await?;
        to.put(*hash, content).await?;
        metrics::counter!("postrider_blob_carried_total").increment(1);
        Ok(())
    }
}

fn not_carried(error: BlobError) -> CarryError {
    if !error.is_retryable() {
        tracing::error!(%error, "an attachment cannot be carried to another shard");
    }
    CarryError(error.to_string())
}

fn unknown(shard: ShardId) -> String {
    format!("the map does not name shard {shard}")
}

fn put_error(error: BlobError) -> BlobPutError {
    match error {
        error if error.is_retryable() => BlobPutError::Unavailable(error.to_string()),
        error => BlobPutError::Refused(error.to_string()),
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
    async fn a_shards_blobs_lie_where_it_has_replicas_and_are_read_in_its_zone() {
        let names = ["seoul", "frankfurt", "virginia", "sydney"];
        let stores = names.map(|region| Arc::new(MemoryStore::new(region)));
        let dynamic = stores.iter().map(|store| Arc::clone(store) as Arc<dyn BlobStore>).collect();
        let replicated = Replicated::new(dynamic, "sydney", SystemClock::shared());
        let blobs = Blobs::new(replicated.clone());
        let region =
            |(name, zone): (&str, &str)| pb::Region { name: name.into(), zone: zone.into(), ..Default::default() };
        let node = |(id, region): (u64, &str)| pb::Node { id, region: region.into(), ..Default::default() };
        let shard =
            |id, replicas: &[u64]| pb::Shard { id, replicas: replicas.into(), zone: "eu".into(), ..Default::default() };
        let map = pb::ShardMap {
            regions: names.into_iter().zip(["eu", "eu", "eu", "us"]).map(region).collect(),
            nodes: (1..).zip(names).map(node).collect(),
            shards: vec![
                shard(1000, &[1, 2]),
                shard(1001, &[1]),
                pb::Shard { zone: "no zone".into(), ..shard(1003, &[1, 2]) },
            ],
            ..Default::default()
        };
        let of_shard = |id| blobs.of_shard(&map, ShardId(id)).unwrap().unwrap();
        of_shard(1000).put_all(vec![cut(b"one")]).await.unwrap();
        // Two regions are needed, and they have to be its own.
        let error = of_shard(1001).put_all(vec![cut(b"two")]).await.unwrap_err();
        assert!(matches!(error, BlobError::TooFewCopies { durable: 1, needed: 2 }), "{error}");
        assert!(blobs.of_shard(&map, ShardId(1002)).is_none());
        // The same for mail from outside, in the words of SMTP.
        let sink = async |shard| BlobSink::put_all(&blobs, &map, ShardId(shard), vec![cut(b"five")]).await;
        assert_eq!(sink(1000).await, Ok(()));
        assert!(matches!(sink(1001).await, Err(BlobPutError::Unavailable(_))));
        assert!(matches!(sink(1002).await, Err(BlobPutError::Unavailable(_))));
        assert!(matches!(sink(1003).await, Err(BlobPutError::Refused(_))));
        // A copy in another region of the zone serves as well, one in another zone is not looked for.
        let zone = Zone::new("eu").unwrap();
        stores[2].put(&zone, &cut(b"three").hash, cut(b"three").content).await.unwrap();
        stores[3].put(&zone, &cut(b"four").hash, cut(b"four").content).await.unwrap();
        assert_eq!(read(&of_shard(1000), cut(b"three").hash, 0..5).await.unwrap(), b"three");
        let elsewhere = cut(b"four").hash;
        assert_eq!(read(&of_shard(1000), elsewhere, 0..4).await, Err(BlobReadError::Missing(elsewhere)));
        // Once everything that goes on in the background has ended, no other store has anything of it.
        replicated.close().await;
        for (store, expected) in stores.iter().zip([true, true, false, false]) {
            let found = store.head(&zone, &cut(b"one").hash).await.unwrap().is_some();
            assert_eq!(found, expected, "{}", store.region());
        }
    }

    /// A delivery to a shard with other regions, and to one of another zone: each has two copies of its own before it hears of the
    /// message.
    #[tokio::test]
    async fn blobs_are_carried_to_where_another_shard_is() {
        let names = ["seoul", "frankfurt", "virginia", "sydney", "osaka", "paris"];
        let stores = names.map(|region| Arc::new(MemoryStore::new(region)));
        let dynamic = stores.iter().map(|store| Arc::clone(store) as Arc<dyn BlobStore>).collect();
        let replicated = Replicated::new(dynamic, "seoul", SystemClock::shared());
        let blobs = Blobs::new(replicated.clone());
        let zones = ["world", "world", "world", "world", "mars", "mars"];
        let region =
            |(name, zone): (&str, &str)| pb::Region { name: name.into(), zone: zone.into(), ..Default::default() };
        let node = |(id, region): (u64, &str)| pb::Node { id, region: region.into(), ..Default::default() };
        let shard = |id, replicas: &[u64], zone: &str| pb::Shard {
            id,
            replicas: replicas.into(),
            zone: zone.into(),
            ..Default::default()
        };
        let map = pb::ShardMap {
            regions: names.into_iter().zip(zones).map(region).collect(),
            nodes: (1..).zip(names).map(node).collect(),
            shards: vec![
                shard(1000, &[1, 2], "world"),
                shard(1001, &[1, 2, 3], "world"),
                shard(1002, &[3, 4], "world"),
                shard(1100, &[5, 6], "mars"),
            ],
            ..Default::default()
        };
        let (source, hash) = (ShardId(1000), cut(b"one").hash);
        blobs.of_shard(&map, source).unwrap().unwrap().put_all(vec![cut(b"one")]).await.unwrap();
        let copies = async |zone: &str| {
            let mut found = Vec::new();
            for store in &stores {
                if store.head(&Zone::new(zone).unwrap(), &hash).await.unwrap().is_some() {
                    found.push(store.region().to_owned());
                }
            }
            found
        };
        // Both of its regions are the target's as well.
        blobs.carry(&map, source, ShardId(1001), &[hash]).await.unwrap();
        assert_eq!(copies("world").await, ["seoul", "frankfurt"]);
        blobs.carry(&map, source, ShardId(1002), &[hash]).await.unwrap();
        blobs.carry(&map, source, ShardId(1100), &[hash]).await.unwrap();
        assert!(blobs.carry(&map, source, ShardId(1003), &[hash]).await.is_err());
        let missing = cut(b"two").hash;
        assert!(blobs.carry(&map, source, ShardId(1100), &[missing]).await.is_err());
        replicated.close().await;
        assert_eq!(copies("world").await, ["seoul", "frankfurt", "virginia", "sydney"]);
        assert_eq!(copies("mars").await, ["osaka", "paris"]);
    }

    #[tokio::test]
    async fn one_region_is_not_enough() {
        let (blobs, stores) = regions();
        for store in &stores[1..] {
            store.add(Rule::always(Op::Put, Fault::Fail(Outage::Failing)));
        }
        let eu = blobs.of_zone("eu").unwrap();
        assert!(eu.put_all(vec![cut(b"one")]).await.unwrap_err().is_retryable());
    }

    #[tokio::test]
    async fn zones_are_apart() {
        let (blobs, _) = regions();
        let (eu, us) = (blobs.of_zone("eu").unwrap(), blobs.of_zone("us").unwrap());
        eu.put_all(vec![cut(b"one")]).await.unwrap();
        let hash = cut(b"one").hash;
        assert_eq!(read(&us, hash, 0..3).await, Err(BlobReadError::Missing(hash)));
        assert!(matches!(blobs.of_zone("no zone"), Err(BlobError::Invalid { .. })));
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
