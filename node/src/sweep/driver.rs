//! The steps of a sweep. Each is recorded before the next one begins.
//!
//! Invariant: nothing is deleted unless DELETING is recorded with it doomed, and it is doomed only when every mailbox shard of the
//! zone has condemned it. Invariant: only copies are deleted that were listed before the shards were asked: what somebody puts
//! again has another version. Invariant: nobody is pardoned before every store has said that the doomed copies are gone; where one
//! store is silent for long, its copies stay for the next sweep, and whoever needs the blob has put another copy elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use postrider_api::id::BlobHash;
use postrider_api::limit::SWEEP_BATCH_BLOBS_MAX;
use postrider_api::pb::{self, SweepPhase, SweepTally, SweptBlob};
use postrider_blob::{BlobError, COPIES_MIN, Zone};
use thiserror::Error;
use tokio::time::Instant;

use super::SweepOptions;
use super::compare::{self, Compared, Found, LAST, SHARDS_AT_ONCE};
use super::copies::{self, Condition};
use super::pace::Pace;
use super::world::{World, ZoneView};
use crate::calls::CallError;

/// Stores that may keep what is deleted elsewhere: whoever puts a blob again has a copy in another one.
const KEEPERS_MAX: usize = COPIES_MIN - 1;
/// Deletions on their way at once.
const DELETES_AT_ONCE: usize = 8;

/// Why a step was not made.
#[derive(Debug, Error)]
pub(crate) enum SweepError {
    /// Another driver recorded a step.
    #[error("another node goes on with the sweep")]
    Overtaken,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Store(#[from] BlobError),
    #[error("the placement group cannot be reached")]
    NoMap,
    #[error("no object store is configured for region {0}")]
    UnknownStore(String),
    #[error("too many stores do not answer")]
    StoresSilent,
    #[error("a shard's answer makes no sense")]
    Malformed,
}

/// Whether there is more to do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Stepped,
    Idle,
}

/// Drives one zone's sweep.
pub(crate) struct Driver<W> {
    world: W,
    zone: String,
    options: SweepOptions,
    pace: Pace,
    /// The last step that this driver recorded; any other is somebody else's.
    own_step: Option<u64>,
}

impl<W: World> Driver<W> {
    pub(crate) fn new(world: W, zone: String, options: SweepOptions) -> Self {
        let pace = Pace::new(options.bytes_per_s);
        Self { world, zone, options, pace, own_step: None }
    }

    pub(crate) fn zone(&self) -> &str {
        &self.zone
    }

    /// Makes the step that comes next.
    pub(crate) async fn step(&mut self, sweep: pb::Sweep) -> Result<Progress, SweepError> {
        match sweep.phase() {
            SweepPhase::Comparing if sweep.cursor[..] == LAST => {
                self.record(&sweep, SweepPhase::Ended, pb::AdvanceSweep::default()).await?;
                let tally = sweep.tally.unwrap_or_default();
                tracing::info!(zone = self.zone, number = sweep.number, ?tally, "a sweep has ended");
            }
            SweepPhase::Comparing => self.compare(&sweep).await?,
            SweepPhase::Condemning => self.condemn(&sweep).await?,
            SweepPhase::Deleting => self.delete(&sweep).await?,
            SweepPhase::Pardoning => self.pardon(&sweep).await?,
            SweepPhase::Ended | SweepPhase::Unspecified => return Ok(Progress::Idle),
        }
        Ok(Progress::Stepped)
    }

    async fn record(&mut self, was: &pb::Sweep, phase: SweepPhase, step: pb::AdvanceSweep) -> Result<(), SweepError> {
        let tally = step.tally.or(was.tally);
        let step = pb::AdvanceSweep { zone: self.zone.clone(), step: was.step, phase: phase.into(), tally, ..step };
        self.world.record(step).await?;
        self.own_step = Some(was.step + 1);
        Ok(())
    }

    /// Whether the last step was another driver's, of which something may still be under way.
    fn is_taken_over(&self, sweep: &pb::Sweep) -> bool {
        self.own_step != Some(sweep.step)
    }

    // --- COMPARING ---

    async fn compare(&mut self, sweep: &pb::Sweep) -> Result<(), SweepError> {
        let zone = Zone::new(self.zone.clone())?;
        let view = self.world.view(&self.zone).await?;
        let compared = compare::range(&self.world, &view, &zone, cursor(&sweep.cursor)?).await?;
        let mut tally = sweep.tally.unwrap_or_default();
        let mut until = compared.until;
        let mut garbage = Vec::new();
        for (hash, found) in &compared.blobs {
            if found.is_needed {
                self.look_after(&zone, &view, &compared, *hash, found, sweep.reads, &mut tally).await;
            } else {
                garbage.push(swept(*hash, found));
                if garbage.len() == SWEEP_BATCH_BLOBS_MAX {
                    // The range ends where the batch is full.
                    until = *hash;
                    tally_up(&mut tally, compared.blobs.range(..=*hash).map(|(_, found)| found));
                    return self.begin_batch(sweep, until, garbage, tally).await;
                }
            }
        }
        tally_up(&mut tally, compared.blobs.values());
        if garbage.is_empty() {
            let cursor = Bytes::copy_from_slice(&until.0);
            let step = pb::AdvanceSweep { cursor, tally: Some(tally), ..Default::default() };
            return self.record(sweep, SweepPhase::Comparing, step).await;
        }
        self.begin_batch(sweep, until, garbage, tally).await
    }

    async fn begin_batch(
        &mut self,
        sweep: &pb::Sweep,
        until: BlobHash,
        blobs: Vec<SweptBlob>,
        tally: SweepTally,
    ) -> Result<(), SweepError> {
        let cursor = Bytes::copy_from_slice(&until.0);
        let step = pb::AdvanceSweep { cursor, blobs, tally: Some(tally), ..Default::default() };
        self.record(sweep, SweepPhase::Condemning, step).await
    }

    /// Restores copies of a blob that somebody needs.
    #[allow(clippy::too_many_arguments)] // one step of the loop above, with what the loop knows
    async fn look_after(
        &self,
        zone: &Zone,
        view: &ZoneView,
        compared: &Compared,
        hash: BlobHash,
        found: &Found,
        reads: bool,
        tally: &mut SweepTally,
    ) {
        let mut content = None;
        let mut bad: Vec<(usize, bool)> = Vec::new();
        for (at, store) in view.stores.iter().enumerate() {
            let region = store.region();
            match found.copies.get(region) {
                Some(copied) if reads || copied.bytes != found.bytes => {
                    let (condition, whole) = copies::read(&**store, zone, &hash, &self.pace).await;
                    match condition {
                        Condition::Whole => {
                            tally.copies_read += 1;
                            tally.bytes_read += copied.bytes;
                            content = content.or(whole);
                        }
                        Condition::Damaged => {
                            tally.damaged += 1;
                            bad.push((at, true));
                        }
                        // It was pinned and let go of, or it comes with the next sweep.
                        Condition::Missing | Condition::Unknown => {}
                    }
                }
                Some(_) => {}
                None if found.wanted.contains(region) && !compared.silent.contains(region) => {
                    // Listed before the shards were asked: it may have come since.
                    if let Ok(None) = store.head(zone, &hash).await {
                        tally.missing += 1;
                        bad.push((at, false));
                    }
                }
                None => {}
            }
        }
        if bad.is_empty() {
            return;
        }
        let content = match content {
            Some(content) => Some(content),
            None => match copies::fetch(&view.stores, zone, &hash, &self.pace).await {
                Ok(content) => content,
                Err(error) => {
                    tracing::info!(zone = self.zone, %hash, %error, "a copy is restored by the next sweep");
                    return;
                }
            },
        };
        let Some(content) = content else { return self.mourn(view, hash, found, tally).await };
        for (at, is_damaged) in bad {
            let store = &*view.stores[at];
            match copies::restore(store, zone, &hash, content.clone(), is_damaged, &self.pace).await {
                Ok(()) => {
                    tally.restored += 1;
                    tally.restored_bytes += content.len() as u64;
                    metrics::counter!("postrider_sweep_restored_total", "region" => store.region().to_owned())
                        .increment(1);
                }
                Err(error) => tracing::warn!(%error, %hash, region = store.region(), "a copy could not be restored"),
            }
        }
    }

    /// No store has it. Perhaps nobody needs it any more, and it was a pin or a message that has gone meanwhile.
    async fn mourn(&self, view: &ZoneView, hash: BlobHash, found: &Found, tally: &mut SweepTally) {
        if found.wanted.is_empty() {
            return;
        }
        let before = predecessor(hash).map(|hash| Bytes::copy_from_slice(&hash.0)).unwrap_or_default();
        for (shard, _) in &view.shards {
            let asked = self.world.blobs(*shard, before.clone(), Bytes::copy_from_slice(&hash.0)).await;
            let Ok(page) = asked else { continue };
            if page.blobs.iter().any(|row| row.blob.is_some_and(|blob| blob.references > 0)) {
                tally.lost += 1;
                metrics::counter!("postrider_sweep_lost_total", "zone" => self.zone.clone()).increment(1);
                tracing::error!(zone = self.zone, %hash, shard = shard.0, "an attachment is lost: no store has a whole copy");
                return;
            }
        }
    }

    // --- CONDEMNING ---

    async fn condemn(&mut self, sweep: &pb::Sweep) -> Result<(), SweepError> {
        let hashes: Vec<Bytes> = sweep.blobs.iter().map(|blob| blob.hash.clone()).collect();
        let until = Instant::now() + self.options.condemn_patience;
        let kept = loop {
            match self.condemn_everywhere(sweep.batch, &hashes).await {
                Ok(kept) => break Some(kept),
                Err(error) if Instant::now() < until => {
                    tracing::info!(zone = self.zone, %error, "a shard has not condemned yet");
                    tokio::time::sleep(self.options.again).await;
                }
                Err(error) => {
                    tracing::warn!(zone = self.zone, %error, "nothing is deleted while a shard does not answer");
                    break None;
                }
            }
        };
        let doomed: Vec<Bytes> = match kept {
            Some(kept) => hashes.into_iter().filter(|hash| !kept.contains(hash)).collect(),
            None => Vec::new(),
        };
        match doomed.is_empty() {
            true => self.record(sweep, SweepPhase::Pardoning, pb::AdvanceSweep::default()).await,
            false => {
                let step = pb::AdvanceSweep { doomed, ..Default::default() };
                self.record(sweep, SweepPhase::Deleting, step).await
            }
        }
    }

    /// What some shard keeps.
    async fn condemn_everywhere(&self, batch: u64, hashes: &[Bytes]) -> Result<BTreeSet<Bytes>, SweepError> {
        // As placement says now: it makes no shard of this zone until the batch is over.
        let view = self.world.view(&self.zone).await?;
        let mut asked = Vec::with_capacity(view.shards.len());
        for (shard, _) in view.shards {
            asked.push(self.world.condemn(shard, batch, hashes.to_vec()));
        }
        let kept: Vec<Vec<Bytes>> = stream::iter(asked).buffer_unordered(SHARDS_AT_ONCE).try_collect().await?;
        Ok(kept.into_iter().flatten().collect())
    }

    // --- DELETING ---

    async fn delete(&mut self, sweep: &pb::Sweep) -> Result<(), SweepError> {
        let taken_over = self.is_taken_over(sweep);
        let zone = Zone::new(self.zone.clone())?;
        let view = self.world.view(&self.zone).await?;
        let mut left: BTreeMap<&str, Vec<(BlobHash, &str)>> = BTreeMap::new();
        let mut tally = sweep.tally.unwrap_or_default();
        for blob in sweep.blobs.iter().filter(|blob| blob.doomed) {
            tally.deleted += 1;
            tally.deleted_bytes += blob.bytes;
            let hash = BlobHash::try_from(&blob.hash[..]).map_err(|_| SweepError::Malformed)?;
            for copy in &blob.copies {
                left.entry(&copy.region).or_default().push((hash, &copy.version));
            }
        }
        let until = Instant::now() + self.options.delete_patience;
        loop {
            for store in &view.stores {
                let Some(copies) = left.remove(store.region()) else { continue };
                let mut deletes = Vec::with_capacity(copies.len());
                for (hash, version) in &copies {
                    deletes.push(store.delete_version(&zone, hash, version));
                }
                let deleted: Result<Vec<bool>, BlobError> =
                    stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).try_collect().await;
                if let Err(error) = deleted {
                    tracing::info!(%error, "a store has not deleted yet");
                    left.insert(store.region(), copies);
                }
            }
            // A region that is none of the zone's any more has no store here.
            left.retain(|region, _| view.stores.iter().any(|store| store.region() == *region));
            match (left.len(), Instant::now() < until) {
                (0, _) => break,
                (1..=KEEPERS_MAX, false) => {
                    let regions: Vec<&&str> = left.keys().collect();
                    tracing::warn!(?regions, "a store keeps what is deleted elsewhere until the next sweep");
                    break;
                }
                (_, true) => tokio::time::sleep(self.options.again).await,
                (_, false) => return Err(SweepError::StoresSilent),
            }
        }
        if taken_over {
            tokio::time::sleep(self.options.takeover).await;
        }
        let step = pb::AdvanceSweep { tally: Some(tally), ..Default::default() };
        self.record(sweep, SweepPhase::Pardoning, step).await
    }

    // --- PARDONING ---

    async fn pardon(&mut self, sweep: &pb::Sweep) -> Result<(), SweepError> {
        let hashes: Vec<Bytes> = sweep.blobs.iter().map(|blob| blob.hash.clone()).collect();
        let view = self.world.view(&self.zone).await?;
        let mut asked = Vec::with_capacity(view.shards.len());
        for (shard, _) in view.shards {
            asked.push(self.world.pardon(shard, sweep.batch, hashes.clone()));
        }
        stream::iter(asked).buffer_unordered(SHARDS_AT_ONCE).try_collect::<Vec<()>>().await?;
        self.record(sweep, SweepPhase::Comparing, pb::AdvanceSweep::default()).await
    }
}

fn tally_up<'a>(tally: &mut SweepTally, found: impl Iterator<Item = &'a Found>) {
    for found in found {
        tally.blobs += 1;
        tally.bytes += found.bytes;
    }
}

fn swept(hash: BlobHash, found: &Found) -> SweptBlob {
    let copies = found.copies.iter();
    let copies =
        copies.map(|(region, copied)| pb::BlobCopy { region: region.clone(), version: copied.version.clone() });
    SweptBlob { hash: Bytes::copy_from_slice(&hash.0), bytes: found.bytes, copies: copies.collect(), doomed: false }
}

fn cursor(bytes: &Bytes) -> Result<Option<BlobHash>, SweepError> {
    match bytes.is_empty() {
        true => Ok(None),
        false => BlobHash::try_from(&bytes[..]).map(Some).map_err(|_| SweepError::Malformed),
    }
}

/// The hash before this one; `None` of the first.
fn predecessor(hash: BlobHash) -> Option<BlobHash> {
    let mut before = hash.0;
    for byte in before.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            return Some(BlobHash(before));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_one_before_it() {
        let mut hash = [7; 32];
        (hash[30], hash[31]) = (1, 0);
        let mut before = [7; 32];
        (before[30], before[31]) = (0, 0xff);
        assert_eq!(predecessor(BlobHash(hash)), Some(BlobHash(before)));
        assert_eq!(predecessor(BlobHash([0; 32])), None);
    }
}
