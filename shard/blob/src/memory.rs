//! A store in memory, for simulations and for tests that are not about storage.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use parking_lot::Mutex;
use postrider_api::id::BlobHash;

use crate::store::{LIST_ROWS_MAX, clamp};
use crate::{BLOB_BYTES_MAX, BlobError, BlobReader, BlobStore, Listed, Put, Zone};

/// What a reader gets at a time, bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// One region's blobs in memory. Bounded by whoever fills it.
pub struct MemoryStore {
    region: String,
    blobs: Mutex<BTreeMap<(Zone, BlobHash), Kept>>,
    puts: AtomicU64,
}

/// A blob, and which put wrote it.
#[derive(Clone)]
struct Kept {
    content: Bytes,
    version: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(region: impl Into<String>) -> Self {
        Self { region: region.into(), blobs: Mutex::default(), puts: AtomicU64::new(0) }
    }

    /// Puts bytes under a hash that may not be theirs: how tests make a corrupt copy.
    pub fn put_unchecked(&self, zone: &Zone, hash: &BlobHash, content: Bytes) {
        let kept = self.kept(content);
        self.blobs.lock().insert((zone.clone(), *hash), kept);
    }

    /// Forgets everything: a disk that was lost.
    pub fn wipe(&self) {
        self.blobs.lock().clear();
    }

    fn kept(&self, content: Bytes) -> Kept {
        Kept { content, version: self.puts.fetch_add(1, Ordering::Relaxed) }
    }

    fn find(&self, zone: &Zone, hash: &BlobHash) -> Option<Bytes> {
        self.blobs.lock().get(&(zone.clone(), *hash)).map(|kept| kept.content.clone())
    }
}

#[async_trait]
impl BlobStore for MemoryStore {
    fn region(&self) -> &str {
        &self.region
    }

    async fn put(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<Put, BlobError> {
        if content.len() as u64 > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { max: BLOB_BYTES_MAX });
        }
        let mut blobs = self.blobs.lock();
        let key = (zone.clone(), *hash);
        if blobs.contains_key(&key) {
            return Ok(Put::Existed);
        }
        blobs.insert(key, self.kept(content));
        Ok(Put::Stored)
    }

    async fn replace(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<(), BlobError> {
        self.put_unchecked(zone, hash, content);
        Ok(())
    }

    async fn get(&self, zone: &Zone, hash: &BlobHash, range: Option<Range<u64>>) -> Result<BlobReader, BlobError> {
        let content = self.find(zone, hash).ok_or(BlobError::NotFound)?;
        let whole = range.is_none();
        let blob_len = content.len() as u64;
        let range = clamp(range, blob_len)?;
        // In memory, so both ends fit.
        let part = content.slice(range.start as usize..range.end as usize);
        let len = part.len() as u64;
        // In pieces, as from a network.
        let pieces =
            (0..part.len()).step_by(PIECE_BYTES).map(move |at| Ok(part.slice(at..part.len().min(at + PIECE_BYTES))));
        let reader = BlobReader::new(&self.region, len, blob_len, stream::iter(pieces));
        Ok(if whole { reader.verified(&self.region, *hash) } else { reader })
    }

    async fn head(&self, zone: &Zone, hash: &BlobHash) -> Result<Option<u64>, BlobError> {
        Ok(self.find(zone, hash).map(|content| content.len() as u64))
    }

    async fn delete(&self, zone: &Zone, hash: &BlobHash) -> Result<(), BlobError> {
        self.blobs.lock().remove(&(zone.clone(), *hash));
        Ok(())
    }

    async fn delete_version(&self, zone: &Zone, hash: &BlobHash, version: &str) -> Result<bool, BlobError> {
        let mut blobs = self.blobs.lock();
        let key = (zone.clone(), *hash);
        let is_other = blobs.get(&key).is_some_and(|kept| kept.version.to_string() != version);
        if !is_other {
            blobs.remove(&key);
        }
        Ok(!is_other)
    }

    async fn list(&self, zone: &Zone, after: Option<&BlobHash>, max: usize) -> Result<Vec<Listed>, BlobError> {
        let start = match after {
            Some(hash) => Bound::Excluded((zone.clone(), *hash)),
            None => Bound::Included((zone.clone(), BlobHash([0; 32]))),
        };
        let blobs = self.blobs.lock();
        let ours = blobs.range((start, Bound::Unbounded)).take_while(|((of, _), _)| of == zone);
        let rows = ours.map(|((_, hash), kept)| Listed {
            hash: *hash,
            bytes: kept.content.len() as u64,
            version: kept.version.to_string(),
        });
        Ok(rows.take(max.min(LIST_ROWS_MAX)).collect())
    }
}
