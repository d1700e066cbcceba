//! The sweep of a zone's object stores (P-11): what nobody refers to goes, what somebody refers to is whole where it should be.
//!
//! Range by range of the hashes, what the stores list is compared with what every mailbox shard of the zone refers to. Copies
//! that are missing or damaged are restored from another region. What no shard refers to is condemned by every shard first, and
//! deleted only once all have ([`driver`]); why that is safe is in `docs/adr/055-blobs-are-pinned-and-condemned.md`.
//!
//! The leader of placement drives it, at a pace that disturbs nobody. Every step is recorded in placement before the next one
//! begins: killed anywhere, the sweep goes on under the next leader.

mod cluster;
mod compare;
mod copies;
mod driver;
pub(crate) mod durable;
mod pace;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use postrider_api::env::Clock;
use postrider_api::id::ShardId;
use postrider_api::pb::{self, answer::Answer, query::Query};
use postrider_blob::BlobStore;
use tokio_util::sync::CancellationToken;

use crate::calls::CallError;
use crate::replicas::Replicas;

pub(crate) use cluster::ClusterWorld;
use driver::{Driver, Progress, SweepError};

/// How sweeps are made.
#[derive(Clone)]
pub struct SweepOptions {
    /// The object stores of all regions that this node may have to look after; without any it sweeps nothing.
    pub stores: Vec<Arc<dyn BlobStore>>,
    /// From the end of a zone's sweep to the beginning of the next.
    pub every: Duration,
    /// Each sweep of this number reads every copy as a whole and compares it with its hash; the others read what they copy.
    pub reads_every: u64,
    /// What reading and copying may take of lines and disks, bytes per second.
    pub bytes_per_s: u64,
    /// The same where a move waits for it.
    pub move_bytes_per_s: u64,
    /// A sweep that another node began to delete under is carried on so much later: what that node has sent has arrived by then.
    pub takeover: Duration,
    /// A shard that does not answer for so long costs the batch its turn: nothing is deleted, and nobody waits for it any longer.
    pub condemn_patience: Duration,
    /// A store that does not answer for so long keeps its copies until the next sweep.
    pub delete_patience: Duration,
    /// Between two tries of one step.
    pub again: Duration,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self {
            stores: Vec::new(),
            every: Duration::from_secs(60 * 60),
            reads_every: 7 * 24,
            bytes_per_s: 8 * 1024 * 1024,
            move_bytes_per_s: 64 * 1024 * 1024,
            takeover: Duration::from_secs(30),
            condemn_patience: Duration::from_secs(30),
            delete_patience: Duration::from_secs(60),
            again: Duration::from_secs(1),
        }
    }
}

/// Between two looks at what there is to do.
const LOOK: Duration = Duration::from_millis(500);
/// After a step that failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// Between two steps that went well.
const PAUSE: Duration = Duration::from_millis(20);

/// Sweeps while this node leads placement.
pub(crate) struct Sweeper {
    pub(crate) replicas: Replicas,
    pub(crate) world: ClusterWorld,
    pub(crate) options: SweepOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: CancellationToken,
}

impl Sweeper {
    pub(crate) async fn run(self) {
        if self.options.stores.is_empty() {
            return;
        }
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.rounds() => {}
        }
    }

    /// Each zone's sweeps go on by themselves: a store or a shard that does not answer holds up its own zone only.
    async fn rounds(&self) {
        let mut known = BTreeSet::new();
        let mut zones = FuturesUnordered::new();
        loop {
            for zone in self.world.zones() {
                if known.insert(zone.clone()) {
                    zones.push(self.sweep(zone));
                }
            }
            tokio::select! {
                Some(gone) = zones.next() => { known.remove(&gone); }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Sweeps a zone for as long as there is one, which is returned then.
    async fn sweep(&self, zone: String) -> String {
        let fresh = || Driver::new(&self.world, zone.clone(), self.options.clone());
        let mut driver = fresh();
        while self.world.zones().contains(&zone) {
            let pause = if self.replicas.leading(ShardId::PLACEMENT).is_err() {
                // Whoever leads next has steps of his own.
                driver = fresh();
                LOOK
            } else {
                match self.step(&mut driver).await {
                    Ok(Progress::Stepped) => PAUSE,
                    Ok(Progress::Idle) => LOOK,
                    Err(error) => {
                        tracing::warn!(zone, %error, "a sweep does not get on; trying again");
                        metrics::counter!("postrider_sweep_failures_total", "zone" => zone.clone()).increment(1);
                        PAUSE_AFTER_FAILURE
                    }
                }
            };
            tokio::time::sleep(pause).await;
        }
        zone
    }

    /// One step of a zone's sweep, or the beginning of one that is due.
    async fn step(&self, driver: &mut Driver<&ClusterWorld>) -> Result<Progress, SweepError> {
        let Some(sweep) = self.recorded(driver.zone())? else { return self.start(driver, 0, false).await };
        report(&sweep);
        if sweep.phase() != pb::SweepPhase::Ended {
            return driver.step(sweep).await;
        }
        let every_ms = i64::try_from(self.options.every.as_millis()).unwrap_or(i64::MAX);
        let is_due = self.clock.wall_ms().saturating_sub(sweep.ended_ms) >= every_ms;
        let reads = (sweep.number + 1).is_multiple_of(self.options.reads_every.max(1));
        match is_due {
            true => self.start(driver, sweep.number, reads).await,
            false => Ok(Progress::Idle),
        }
    }

    /// By this replica's own rows: a question to the group would keep it from ever falling silent. A step that follows an older one
    /// than the last is refused.
    fn recorded(&self, zone: &str) -> Result<Option<pb::Sweep>, SweepError> {
        let query = pb::Query { query: Some(Query::ListSweeps(pb::ListSweeps {})) };
        let now_ms = self.clock.wall_ms();
        let answered = self
            .replicas
            .read(ShardId::PLACEMENT, |reader| postrider_shard::query(ShardId::PLACEMENT, reader, now_ms, &query));
        match answered.map(|answer| answer.answer) {
            Ok(Some(Answer::Sweeps(sweeps))) => Ok(sweeps.sweeps.into_iter().find(|sweep| sweep.zone == zone)),
            _ => Err(SweepError::Malformed),
        }
    }

    async fn start(&self, driver: &Driver<&ClusterWorld>, number: u64, reads: bool) -> Result<Progress, SweepError> {
        match self.world.start(driver.zone(), reads).await {
            Ok(()) => {
                tracing::debug!(zone = driver.zone(), number = number + 1, reads, "a sweep begins");
                Ok(Progress::Stepped)
            }
            // An operator was faster.
            Err(SweepError::Call(CallError::Refused { refusal: pb::Refusal::Conflict, .. })) => Ok(Progress::Idle),
            Err(error) => Err(error),
        }
    }
}

/// What an operator watches.
fn report(sweep: &pb::Sweep) {
    let zone = || sweep.zone.clone();
    let is_running = sweep.phase() != pb::SweepPhase::Ended;
    // Numbers to look at: what a float cannot tell exactly does not matter.
    metrics::gauge!("postrider_sweep_number", "zone" => zone()).set(sweep.number as f64);
    metrics::gauge!("postrider_sweep_running", "zone" => zone()).set(f64::from(u8::from(is_running)));
    let Some(last) = &sweep.last else { return };
    metrics::gauge!("postrider_sweep_last_blobs", "zone" => zone()).set(last.blobs as f64);
    metrics::gauge!("postrider_sweep_last_bytes", "zone" => zone()).set(last.bytes as f64);
    metrics::gauge!("postrider_sweep_last_missing", "zone" => zone()).set(last.missing as f64);
    metrics::gauge!("postrider_sweep_last_damaged", "zone" => zone()).set(last.damaged as f64);
    metrics::gauge!("postrider_sweep_last_restored", "zone" => zone()).set(last.restored as f64);
    metrics::gauge!("postrider_sweep_last_lost", "zone" => zone()).set(last.lost as f64);
    metrics::gauge!("postrider_sweep_last_deleted", "zone" => zone()).set(last.deleted as f64);
    metrics::gauge!("postrider_sweep_last_deleted_bytes", "zone" => zone()).set(last.deleted_bytes as f64);
}
