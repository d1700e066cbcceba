//! The queue worker: leases what is due in every mailbox shard's queue, delivers it to the shards where the recipients live, and
//! settles it.
//!
//! Invariant: a worker holds nothing that is not in a shard. Killed at any moment it loses nothing (the lease lapses, another
//! takes over) and duplicates nothing (transfers are known by their request ids).
//!
//! In a healthy cluster only messages for several shards pass here: whoever lives in the shard that accepted a message has it
//! with the `250` already. When a shard has no primary, what others took for it waits in their queues (P-5), and a worker brings
//! it over when the primary is back.

pub mod limit;

mod backoff;
mod carrier;
mod delivery;
mod forget;
mod lease;
mod outside;
mod poller;
mod settlement;

use std::collections::BTreeMap;
use std::sync::Arc;

use postrider_api::env::{Clock, Entropy};
use postrider_api::id::ShardId;
use postrider_api::pb::{self, ShardKind};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::delivery::Deliveries;
use self::forget::Forgetter;
use self::limit::DELIVERIES_MAX;
use self::outside::Outside;
use self::poller::Poller;
use crate::cluster::Cluster;
use crate::trouble::Troubled;

pub use self::carrier::{BlobCarrier, CarryError};
pub use self::lease::{BootClock, SystemBootClock};
pub use self::limit::WorkerTimings;
pub use self::outside::{OutsideSettings, UnsubscribeLinks};

/// A queue worker.
pub struct Worker {
    deliveries: Arc<Deliveries>,
    places: Arc<Semaphore>,
    under_way: TaskTracker,
    pollers: BTreeMap<ShardId, CancellationToken>,
}

impl Worker {
    /// A worker for all mailbox shards of `cluster`, with the system's clock for its leases. Without `outside` it sends nothing there.
    pub fn new(
        cluster: Arc<dyn Cluster>,
        blobs: Arc<dyn BlobCarrier>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        timings: WorkerTimings,
        outside: Option<OutsideSettings>,
    ) -> Self {
        Self::with_boot_clock(cluster, blobs, clock, Arc::new(SystemBootClock), entropy, timings, outside)
    }

    /// The same with another clock for its leases.
    pub fn with_boot_clock(
        cluster: Arc<dyn Cluster>,
        blobs: Arc<dyn BlobCarrier>,
        clock: Arc<dyn Clock>,
        boot_clock: Arc<dyn BootClock>,
        entropy: Arc<dyn Entropy>,
        timings: WorkerTimings,
        outside: Option<OutsideSettings>,
    ) -> Self {
        let outside = outside.map(Outside::new);
        let troubled = Troubled::new(Arc::clone(&clock), timings.troubled);
        let forgetter = Forgetter::new(Arc::clone(&cluster), Arc::clone(&clock), timings.clone());
        Self {
            deliveries: Arc::new(Deliveries {
                cluster,
                blobs,
                boot_clock,
                clock,
                entropy,
                timings,
                troubled,
                forgetter,
                outside,
            }),
            places: Arc::new(Semaphore::new(DELIVERIES_MAX)),
            under_way: TaskTracker::new(),
            pollers: BTreeMap::new(),
        }
    }

    /// Works until `drain` is cancelled, then finishes what is under way.
    pub async fn run(mut self, drain: CancellationToken) {
        let mut maps = self.deliveries.cluster.map_changes();
        maps.mark_changed();
        self.forget(drain.clone());
        loop {
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                changed = maps.changed() => {
                    if changed.is_err() {
                        // Whoever followed the map is gone, and with it the way to the cluster.
                        tracing::error!("the shard map is not followed any more; the worker ends");
                        break;
                    }
                    let map = maps.borrow_and_update().clone();
                    self.follow(&map);
                }
            }
        }
        self.end().await;
    }

    /// One poller for each mailbox shard of the map.
    fn follow(&mut self, map: &pb::ShardMap) {
        let shards: Vec<ShardId> = map
            .shards
            .iter()
            .filter(|shard| shard.kind() == ShardKind::Mailbox)
            .map(|shard| ShardId(shard.id))
            .collect();
        self.pollers.retain(|shard, end| {
            let stays = shards.contains(shard);
            if !stays {
                end.cancel();
            }
            stays
        });
        for shard in shards {
            let Self { deliveries, places, under_way, pollers } = self;
            pollers.entry(shard).or_insert_with(|| {
                let end = CancellationToken::new();
                let poller = Poller {
                    shard,
                    deliveries: Arc::clone(deliveries),
                    places: Arc::clone(places),
                    under_way: under_way.clone(),
                    end: end.clone(),
                };
                under_way.spawn(poller.run());
                end
            });
        }
        metrics::gauge!("postrider_worker_polled_shards").set(self.pollers.len() as f64);
    }

    fn forget(&self, drain: CancellationToken) {
        let deliveries = Arc::clone(&self.deliveries);
        self.under_way.spawn(async move { drain.run_until_cancelled(deliveries.forgetter.run()).await });
    }

    async fn end(self) {
        for end in self.pollers.values() {
            end.cancel();
        }
        self.under_way.close();
        if timeout(self.deliveries.timings.drain, self.under_way.wait()).await.is_err() {
            tracing::warn!(left = self.under_way.len(), "deliveries were cut at the end of draining");
        }
    }
}

#[cfg(test)]
mod tests;
