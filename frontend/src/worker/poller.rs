//! Takes due entries out of one shard's queue, as fast as the worker as a whole has room.
//!
//! Invariant: while it waits for an entry a poller holds no place, so idle shards cost busy ones nothing; it takes more than one
//! entry only for places that it holds. Places are given in the order in which they are asked for: no shard starves another.

use std::sync::Arc;
use std::time::Duration;

use postrider_api::id::ShardId;
use postrider_api::pb;
use postrider_router::RouteError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::delivery::Deliveries;
use super::lease::Lease;
use super::limit::LEASE_ENTRIES_MAX;

/// One shard's poller.
pub(super) struct Poller {
    pub(super) shard: ShardId,
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) places: Arc<Semaphore>,
    pub(super) under_way: TaskTracker,
    pub(super) end: CancellationToken,
}

impl Poller {
    /// Polls until the end is called for. What is under way then goes on in its tasks.
    pub(super) async fn run(self) {
        let end = self.end.clone();
        // Dropped where it waits: a lease that is answered to nobody lapses.
        let _ended = end.run_until_cancelled(self.poll()).await;
    }

    async fn poll(&self) {
        let timings = &self.deliveries.timings;
        let mut pause = timings.poll_pause_min;
        loop {
            match self.lease(1, timings.lease_wait).await {
                Ok((lease, entries)) => {
                    pause = timings.poll_pause_min;
                    let any = !entries.is_empty();
                    for entry in entries {
                        self.start(self.place().await, lease.clone(), entry);
                    }
                    if any {
                        self.drain().await;
                    }
                }
                Err(error) => {
                    tracing::debug!(shard = self.shard.0, %error, "the queue cannot be asked");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(timings.poll_pause_max);
                }
            }
        }
    }

    /// Where one entry was due, others may be: takes what is there without waiting.
    async fn drain(&self) {
        loop {
            let mut places = vec![self.place().await];
            while places.len() < LEASE_ENTRIES_MAX as usize
                && let Ok(place) = Arc::clone(&self.places).try_acquire_owned()
            {
                places.push(place);
            }
            // At most LEASE_ENTRIES_MAX.
            let wanted = u32::try_from(places.len()).unwrap_or(LEASE_ENTRIES_MAX);
            let (lease, entries) = match self.lease(wanted, Duration::ZERO).await {
                Ok((_, entries)) if entries.is_empty() => return,
                Ok(leased) => leased,
                Err(error) => {
                    tracing::debug!(shard = self.shard.0, %error, "the queue cannot be asked");
                    return;
                }
            };
            for entry in entries {
                let place = match places.pop() {
                    Some(place) => place,
                    None => self.place().await,
                };
                self.start(place, lease.clone(), entry);
            }
        }
    }

    /// Entries, with the one lease that they are all under.
    async fn lease(&self, max: u32, wait: Duration) -> Result<(Lease, Vec<pb::LeasedEntry>), RouteError> {
        let Deliveries { cluster, boot_clock, timings, .. } = &*self.deliveries;
        let lease = Lease::asked(Arc::clone(boot_clock), timings.lease);
        let entries = cluster.lease_queue(self.shard, max, milliseconds(timings.lease), milliseconds(wait)).await?;
        Ok((lease, entries))
    }

    async fn place(&self) -> OwnedSemaphorePermit {
        loop {
            match Arc::clone(&self.places).acquire_owned().await {
                Ok(place) => return place,
                // The semaphore is never closed; if it were, nothing could be delivered, and the end must be waited for.
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    fn start(&self, place: OwnedSemaphorePermit, lease: Lease, entry: pb::LeasedEntry) {
        let deliveries = Arc::clone(&self.deliveries);
        let shard = self.shard;
        self.under_way.spawn(async move {
            deliveries.deliver(shard, &lease, entry, place).await;
        });
    }
}

/// Timings are far below 2^32 ms, which are 49 days.
pub(super) fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
