//! The blobs of a shard where it is about to be: before a move ends, the regions that the shard comes to have every blob that it
//! refers to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use postrider_api::id::{BlobHash, ShardId};
use postrider_api::pb::ShardKind;
use postrider_blob::Zone;

use super::SweepOptions;
use super::cluster::ClusterWorld;
use super::compare::LAST;
use super::copies;
use super::driver::SweepError;
use super::pace::Pace;
use super::world::{World, ZoneView};
use crate::reconcile::prepare::Preparation;

/// Blobs that are asked of a store at a time.
const ROWS: usize = 1000;

/// Makes blobs durable in regions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BlobMover {
    pub(crate) world: ClusterWorld,
    pub(crate) options: SweepOptions,
}

impl BlobMover {
    /// Returns when every blob that the shard refers to or has pinned is in the stores of these regions, and says how many had
    /// to be copied. May be called again at any time, and goes through what is there already without reading it. Does nothing
    /// on a node that knows no stores.
    ///
    /// # Errors
    /// When a shard or a store does not answer, or a blob is nowhere: to be called again.
    pub(crate) async fn ensure(&self, shard: ShardId, regions: &BTreeSet<String>) -> Result<u64, SweepError> {
        if self.options.stores.is_empty() {
            return Ok(0);
        }
        let map = self.world.map.get().ok_or(SweepError::NoMap)?;
        let zone = map.shard(shard).map(|placed| placed.zone.clone()).ok_or(SweepError::NoMap)?;
        let view = self.world.view_of(&map, &zone)?;
        let pace = Pace::new(self.options.move_bytes_per_s);
        ensure(&self.world, &view, &Zone::new(zone)?, shard, regions, &pace).await
    }
}

impl Preparation for BlobMover {
    fn prepare(&self, shard: ShardId, regions: Vec<String>) -> BoxFuture<'_, Result<(), String>> {
        async move {
            if shard.kind() != Some(ShardKind::Mailbox) {
                // Directories and placement have no blobs, and do not know the question.
                return Ok(());
            }
            let regions = regions.into_iter().collect();
            self.ensure(shard, &regions).await.map(|_| ()).map_err(|error| error.to_string())
        }
        .boxed()
    }
}

/// See [`BlobMover::ensure`].
pub(crate) async fn ensure(
    world: &impl World,
    view: &ZoneView,
    zone: &Zone,
    shard: ShardId,
    regions: &BTreeSet<String>,
    pace: &Pace,
) -> Result<u64, SweepError> {
    let mut copied = 0;
    let mut after = Bytes::new();
    loop {
        let page = world.blobs(shard, after, Bytes::new()).await?;
        let mut wanted = BTreeMap::new();
        for row in &page.blobs {
            let hash = BlobHash::try_from(&row.hash[..]).map_err(|_| SweepError::Malformed)?;
            wanted.insert(hash, row.blob.ok_or(SweepError::Malformed)?);
        }
        let Some((first, _)) = wanted.first_key_value() else { return Ok(copied) };
        let (first, last) = (*first, wanted.last_key_value().map_or(BlobHash(LAST), |(hash, _)| *hash));
        for store in view.stores.iter().filter(|store| regions.contains(store.region())) {
            let held = held(&**store, zone, first, last).await?;
            for (hash, blob) in &wanted {
                if held.get(hash) == Some(&blob.bytes) || store.head(zone, hash).await? == Some(blob.bytes) {
                    continue;
                }
                let Some(content) = copies::fetch(&view.stores, zone, hash, pace).await? else {
                    if blob.references == 0 {
                        continue; // a pin whose blob is still to come; its writer puts it where the shard is
                    }
                    return Err(SweepError::Store(postrider_blob::BlobError::NotFound));
                };
                copies::restore(&**store, zone, hash, content, held.contains_key(hash), pace).await?;
                metrics::counter!("postrider_move_blobs_copied_total").increment(1);
                copied += 1;
            }
        }
        if !page.more {
            return Ok(copied);
        }
        after = Bytes::copy_from_slice(&last.0);
    }
}

/// What a store has from `first` to `last`, with its lengths.
async fn held(
    store: &dyn postrider_blob::BlobStore,
    zone: &Zone,
    first: BlobHash,
    last: BlobHash,
) -> Result<BTreeMap<BlobHash, u64>, SweepError> {
    let mut held = BTreeMap::new();
    let mut after = None;
    // Lists begin behind a hash: the first is asked for by itself.
    if let Some(bytes) = store.head(zone, &first).await? {
        held.insert(first, bytes);
    }
    loop {
        let rows = store.list(zone, Some(after.as_ref().unwrap_or(&first)), ROWS).await?;
        let is_last_page = rows.len() < ROWS;
        let mut is_beyond = false;
        for row in rows {
            is_beyond |= row.hash > last;
            after = Some(row.hash);
            if !is_beyond {
                held.insert(row.hash, row.bytes);
            }
        }
        if is_last_page || is_beyond {
            return Ok(held);
        }
    }
}
