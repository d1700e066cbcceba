//! Tells targets that transfers are over, so that they drop the rows which kept them from being carried out twice.
//!
//! Invariant (P-6): a transfer is forgotten only [`WorkerTimings::forget_after`] its settlement was committed, when no `Deliver` of
//! an earlier attempt can still be on its way. The target does not rely on it: it holds the time of the lease against its own.
//!
//! What waits here is in memory only. A worker that dies, or a `Forget` that fails, leaves rows behind, some hundred bytes a
//! transfer, that say "delivered" of a message that will never come again: wasted space, never a wrong answer. They go when they
//! expire; `postrider_worker_unforgotten_total` counts those that a live worker gave up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use postrider_api::env::Clock;
use postrider_api::id::{RequestId, ShardId};
use postrider_api::pb::{self, command::Op, outcome};

use super::limit::{FORGET_REQUESTS_MAX, FORGETS_MAX, WorkerTimings};
use crate::cluster::Cluster;

/// Transfers that wait to be forgotten, in the order of their settlement.
pub(super) struct Forgetter {
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn Clock>,
    timings: WorkerTimings,
    waiting: Mutex<VecDeque<Settled>>,
}

struct Settled {
    at: Duration,
    target: ShardId,
    request: RequestId,
    /// The lease that it was settled under.
    leased_ms: i64,
}

impl Forgetter {
    pub(super) fn new(cluster: Arc<dyn Cluster>, clock: Arc<dyn Clock>, timings: WorkerTimings) -> Self {
        Self { cluster, clock, timings, waiting: Mutex::default() }
    }

    /// The source has committed, under a lease of that time, that these transfers are over.
    pub(super) fn settled(&self, leased_ms: i64, transfers: impl IntoIterator<Item = (ShardId, RequestId)>) {
        let at = self.clock.monotonic();
        let mut waiting = self.waiting.lock();
        for (target, request) in transfers {
            if waiting.len() >= FORGETS_MAX {
                waiting.pop_front();
                given_up(1);
            }
            waiting.push_back(Settled { at, target, request, leased_ms });
        }
    }

    /// Forgets what is old enough, again and again.
    pub(super) async fn run(&self) {
        loop {
            tokio::time::sleep(self.timings.forget_every).await;
            self.forget_ripe().await;
        }
    }

    async fn forget_ripe(&self) {
        for (target, transfers) in self.ripe() {
            for transfers in transfers.chunks(FORGET_REQUESTS_MAX) {
                self.forget(target, transfers).await;
            }
        }
    }

    fn ripe(&self) -> BTreeMap<ShardId, Vec<Settled>> {
        let now = self.clock.monotonic();
        let mut ripe = BTreeMap::<_, Vec<_>>::new();
        let mut waiting = self.waiting.lock();
        while let Some(settled) =
            waiting.pop_front_if(|settled| now.saturating_sub(settled.at) >= self.timings.forget_after)
        {
            ripe.entry(settled.target).or_default().push(settled);
        }
        ripe
    }

    async fn forget(&self, target: ShardId, transfers: &[Settled]) {
        let requests: Vec<Bytes> = transfers.iter().map(|settled| settled.request.to_bytes()).collect();
        let leased_ms = transfers.iter().map(|settled| settled.leased_ms).max().unwrap_or_default();
        let count = requests.len() as u64;
        let command =
            pb::Command { op: Some(Op::Forget(pb::Forget { requests, leased_ms })), ..pb::Command::default() };
        match self.cluster.propose(target, None, command, self.timings.forget).await {
            Ok(pb::Outcome { result: Some(outcome::Result::Done(_)) }) => {
                metrics::counter!("postrider_worker_forgotten_total").increment(count);
            }
            Ok(other) => {
                tracing::error!(target = target.0, ?other, "a shard refused to forget transfers");
                given_up(count);
            }
            Err(error) => {
                tracing::debug!(target = target.0, %error, "transfers were not forgotten");
                given_up(count);
            }
        }
    }
}

fn given_up(count: u64) {
    metrics::counter!("postrider_worker_unforgotten_total").increment(count);
}
