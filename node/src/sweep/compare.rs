//! One range of the hashes: what the stores list beside what the shards refer to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use postrider_api::id::BlobHash;
use postrider_api::pb;
use postrider_blob::Zone;

use super::driver::SweepError;
use super::world::{World, ZoneView};

/// Blobs that are asked of one store at a time.
const ROWS: usize = 1000;
/// Stores that may be silent: the others are looked after meanwhile.
const SILENT_MAX: usize = 1;
/// Shards that are asked at once.
pub(crate) const SHARDS_AT_ONCE: usize = 8;
/// The last hash there can be.
pub(crate) const LAST: [u8; 32] = [0xff; 32];

/// A blob of the range.
#[derive(Debug, Default, Clone)]
pub(crate) struct Found {
    pub(crate) bytes: u64,
    /// Copies, by region.
    pub(crate) copies: BTreeMap<String, Copied>,
    /// Whether a shard refers to it, or has it pinned.
    pub(crate) is_needed: bool,
    /// Regions in which a shard that refers to it has replicas.
    pub(crate) wanted: BTreeSet<String>,
}

/// A copy as its store lists it.
#[derive(Debug, Clone)]
pub(crate) struct Copied {
    pub(crate) bytes: u64,
    pub(crate) version: String,
}

/// A range.
pub(crate) struct Compared {
    /// Up to this hash, with it.
    pub(crate) until: BlobHash,
    pub(crate) blobs: BTreeMap<BlobHash, Found>,
    /// Regions whose stores did not answer: nothing is known of their copies.
    pub(crate) silent: BTreeSet<String>,
}

/// Compares the range that begins behind `after`: as much of it as every store lists in one page and every shard in another.
pub(crate) async fn range(
    world: &impl World,
    view: &ZoneView,
    zone: &Zone,
    after: Option<BlobHash>,
) -> Result<Compared, SweepError> {
    let mut compared = Compared { until: BlobHash(LAST), blobs: BTreeMap::new(), silent: BTreeSet::new() };
    for store in &view.stores {
        let rows = match store.list(zone, after.as_ref(), ROWS).await {
            Ok(rows) => rows,
            Err(error) if error.is_retryable() && compared.silent.len() < SILENT_MAX => {
                tracing::info!(%error, "a sweep goes on without a store");
                compared.silent.insert(store.region().to_owned());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if let (ROWS, Some(last)) = (rows.len(), rows.last()) {
            compared.until = compared.until.min(last.hash);
        }
        for row in rows {
            let found = compared.blobs.entry(row.hash).or_default();
            found.bytes = row.bytes;
            let copied = Copied { bytes: row.bytes, version: row.version };
            found.copies.insert(store.region().to_owned(), copied);
        }
    }
    refer(world, view, after, &mut compared).await?;
    // Pages end in different places.
    let until = compared.until;
    compared.blobs.retain(|hash, _| *hash <= until);
    Ok(compared)
}

/// Asks every shard of the zone. One that does not answer ends it: nothing is known then.
async fn refer(
    world: &impl World,
    view: &ZoneView,
    after: Option<BlobHash>,
    compared: &mut Compared,
) -> Result<(), SweepError> {
    let after = after.map(|hash| Bytes::copy_from_slice(&hash.0)).unwrap_or_default();
    let until = Bytes::copy_from_slice(&compared.until.0);
    let mut asked = Vec::with_capacity(view.shards.len());
    for (shard, regions) in &view.shards {
        let page = world.blobs(*shard, after.clone(), until.clone());
        asked.push(async move { Ok::<_, SweepError>((page.await?, regions)) });
    }
    let mut pages = stream::iter(asked).buffer_unordered(SHARDS_AT_ONCE);
    while let Some((page, regions)) = pages.try_next().await? {
        let mut last = None;
        for row in page.blobs {
            let hash = BlobHash::try_from(&row.hash[..]).map_err(|_| SweepError::Malformed)?;
            let blob: pb::BlobRecord = row.blob.ok_or(SweepError::Malformed)?;
            let found = compared.blobs.entry(hash).or_default();
            found.bytes = blob.bytes;
            found.is_needed = true;
            if blob.references > 0 {
                found.wanted.extend(regions.iter().cloned());
            }
            last = Some(hash);
        }
        if let (true, Some(last)) = (page.more, last) {
            compared.until = compared.until.min(last);
        }
    }
    Ok(())
}
