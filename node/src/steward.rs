//! Looks after what nobody asks for: leads go home, what placement wants becomes so, leftovers go, a node whose clock is wrong or
//! that is being emptied leads nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider_api::env::{Entropy, random};
use postrider_api::id::{NodeId, ShardId};
use postrider_raft::GroupStatus;
use tokio_util::sync::CancellationToken;

use crate::clock::Trust;
use crate::map::{self, Map};
use crate::options::NodeTimings;
use crate::peers::Peers;
use crate::reconcile::Reconciler;
use crate::removal::Remover;
use crate::replicas::{Replicas, group};

/// Leads that are handed home in one round: each costs its shard a moment without writes.
const HANDOVERS_PER_ROUND: usize = 4;
/// After a failed handover a shard is left alone for this long.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// A member that lacks at most this many entries can take the lead.
const LAG_MAX: u64 = 64;

/// What the rest of the node knows of its own fitness to lead.
pub(crate) struct Fitness {
    /// The node is shutting down.
    pub(crate) leaving: AtomicBool,
    /// Placement has removed the node from the cluster.
    pub(crate) removed: AtomicBool,
    pub(crate) clock: Arc<Trust>,
}

impl Fitness {
    pub(crate) fn is_fit(&self) -> bool {
        !self.leaving.load(Ordering::Relaxed) && !self.removed.load(Ordering::Relaxed) && !self.clock.is_off()
    }
}

pub(crate) struct Steward {
    pub(crate) node: NodeId,
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) peers: Peers,
    pub(crate) reconciler: Reconciler,
    pub(crate) remover: Remover,
    pub(crate) timings: NodeTimings,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) fitness: Arc<Fitness>,
    pub(crate) stop: CancellationToken,
}

/// Since when something has been so, on the node's clock.
#[derive(Default)]
struct Since {
    homesick: HashMap<ShardId, Duration>,
    /// Not before.
    rest_until: HashMap<ShardId, Duration>,
    leftover: HashMap<ShardId, Duration>,
}

impl Steward {
    pub(crate) async fn run(self) {
        let mut since = Since::default();
        let mut changes = self.map.changes();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = changes.changed() => {} // the map lives as long as the steward
                () = self.fitness.clock.judged() => {}
                () = tokio::time::sleep(self.timings.steward) => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.round(&mut since) => {}
            }
        }
    }

    async fn round(&self, since: &mut Since) {
        if self.fitness.leaving.load(Ordering::Relaxed) {
            return;
        }
        self.reconciler.resume(&self.statuses());
        if self.fitness.is_fit() && !self.takes_nothing(self.node) {
            self.bring_leads_home(since).await;
        } else {
            self.give_up_leads().await;
        }
        self.remove_leftovers(since).await;
    }

    fn now(&self) -> Duration {
        self.replicas.clock.monotonic()
    }

    /// The shards with a replica here, and how it stands.
    fn statuses(&self) -> Vec<(ShardId, GroupStatus)> {
        let groups = self.replicas.host.groups().into_iter();
        groups.filter_map(|group| Some((ShardId(group.0), self.replicas.host.status(group)?))).collect()
    }

    // --- leads ---

    /// The primary of a shard should be in its home region, where most of its readers are.
    async fn bring_leads_home(&self, since: &mut Since) {
        let now = self.now();
        let mut due = Vec::new();
        let mut homesick = HashMap::new();
        for (shard, status) in self.statuses() {
            let Some(target) = self.home_of(shard, &status) else { continue };
            // Up to half as long again, so that shards which lost their home together do not return together.
            let began = *since.homesick.get(&shard).unwrap_or(&(now + self.jitter()));
            homesick.insert(shard, began);
            let rests = since.rest_until.get(&shard).is_some_and(|until| now < *until);
            if now.saturating_sub(began) >= self.timings.homesick && !rests {
                due.push((shard, target));
            }
        }
        since.homesick = homesick;
        since.rest_until.retain(|_, until| now < *until);
        for (shard, target) in due.into_iter().take(HANDOVERS_PER_ROUND) {
            if let Err(reason) = self.hand_home(shard, target).await {
                tracing::info!(shard = shard.0, to = target.0, %reason, "the lead stays away from home");
                since.rest_until.insert(shard, now + AFTER_FAILURE);
            }
        }
    }

    fn jitter(&self) -> Duration {
        let share = f64::from(u16::from_be_bytes(random(&*self.entropy))) / f64::from(u16::MAX);
        self.timings.homesick.mul_f64(share / 2.0)
    }

    /// The member at home that should lead instead of this node and is near enough to do so; `None`: all is well, or
    /// nothing can be done.
    fn home_of(&self, shard: ShardId, status: &GroupStatus) -> Option<postrider_raft::NodeId> {
        if !status.leads() {
            return None;
        }
        let map = self.map.get()?;
        let placed = map.shard(shard)?;
        // An operation hands the lead over by itself where it must.
        if map.changes(shard) {
            return None;
        }
        let is_home = |id: u64| map.node(NodeId(id)).is_some_and(|node| node.region == placed.home_region);
        if is_home(self.node.0) {
            return None;
        }
        let last = status.last_log.unwrap_or(0);
        status
            .voters
            .keys()
            .copied()
            .filter(|voter| is_home(voter.0) && placed.replicas.contains(&voter.0))
            .filter(|voter| !self.takes_nothing(NodeId(voter.0)))
            .find(|voter| status.matched.get(voter).copied().flatten().is_some_and(|at| at + LAG_MAX >= last))
    }

    async fn hand_home(&self, shard: ShardId, target: postrider_raft::NodeId) -> Result<(), String> {
        let node = self.map.node(NodeId(target.0)).ok_or("it is not in the shard map")?;
        let peer = self.peers.status(&node.address, true).await.map_err(|status| status.to_string())?;
        if peer.status.leaving {
            return Err("it is shutting down".to_owned());
        }
        if peer.clock_ahead_ms.unsigned_abs() > self.skew_ms() {
            return Err("its clock differs from this node's".to_owned());
        }
        self.replicas.host.transfer(group(shard), target).await.map_err(|error| error.to_string())?;
        metrics::counter!("postrider_node_leads_sent_home_total").increment(1);
        Ok(())
    }

    async fn give_up_leads(&self) {
        for (shard, status) in self.statuses() {
            // Where nobody else votes, the shard's members have to change first.
            if status.leads()
                && status.voters.len() > 1
                && let Err(error) = self.reconciler.hand_over(shard, &status).await
            {
                tracing::warn!(shard = shard.0, %error, "nobody takes the lead");
            }
        }
    }

    fn takes_nothing(&self, node: NodeId) -> bool {
        self.map.node(node).is_some_and(|node| map::takes_nothing(&node))
    }

    fn skew_ms(&self) -> u64 {
        u64::try_from(self.timings.clock_skew.as_millis()).unwrap_or(u64::MAX)
    }

    // --- leftovers ---

    /// Removes replicas that were moved away while this node was down, on their leaders' word.
    async fn remove_leftovers(&self, since: &mut Since) {
        let Some(map) = self.map.get() else { return };
        let now = self.now();
        let mut leftover = HashMap::new();
        for (shard, status) in self.statuses() {
            let Some(placed) = map.shard(shard) else { continue };
            if placed.replicas.contains(&self.node.0) || map.changes(shard) || status.leads() {
                continue;
            }
            let began = *since.leftover.get(&shard).unwrap_or(&now);
            leftover.insert(shard, began);
            if now.saturating_sub(began) < self.timings.leftover {
                continue;
            }
            if !self.remover.may_go(shard).await {
                continue;
            }
            tracing::info!(shard = shard.0, "removing a replica that was moved away");
            match self.remover.remove(shard).await {
                Ok(()) => drop(leftover.remove(&shard)),
                Err(error) => tracing::error!(shard = shard.0, %error, "a leftover replica cannot be removed"),
            }
        }
        since.leftover = leftover;
    }
}
