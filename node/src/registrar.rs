//! Addresses: this node's own gets into the shard map, and the map's reach consensus.
//!
//! Invariant: placement alone says who belongs to the cluster. A node that it has removed is told so when it registers, and takes part
//! in nothing any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postrider_api::id::NodeId;
use postrider_api::pb::{self, Refusal, command::Op};
use postrider_raft::Host;
use tokio_util::sync::CancellationToken;

use crate::map::{Map, MapView};
use crate::placement::{Placement, PlacementError};
use crate::steward::Fitness;

/// The pause before a registration that failed is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// Registers this node until it stops.
pub(crate) struct Registrar {
    pub(crate) node: NodeId,
    pub(crate) region: String,
    /// What fails at once with other nodes; empty: what placement has stays.
    pub(crate) failure_domain: String,
    /// host:port under which others reach it.
    pub(crate) advertise: String,
    pub(crate) host: Host,
    pub(crate) map: Map,
    pub(crate) placement: Placement,
    pub(crate) fitness: Arc<Fitness>,
    pub(crate) stop: CancellationToken,
}

impl Registrar {
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut changes = self.map.changes();
        let mut told_ms = 0;
        loop {
            let map = changes.borrow_and_update().clone();
            let mut is_registered = true;
            if let Some(map) = map {
                self.tell_given_up(&map, &mut told_ms);
                self.host.know_addresses(addresses(&map));
                if self.missing(&map).is_some() {
                    is_registered = self.register().await;
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PAUSE), if !is_registered => {}
            }
        }
    }

    /// A node that comes back learns here what was decided without it. What it holds that was made elsewhere goes with the leftovers.
    fn tell_given_up(&self, map: &MapView, told_ms: &mut i64) {
        let given_up_ms = map.node(self.node).map_or(0, |known| known.given_up_ms);
        if given_up_ms != 0 && given_up_ms != *told_ms {
            let node = self.node.0;
            tracing::warn!(node, given_up_ms, "this node was silent for so long that its replicas are made elsewhere");
        }
        *told_ms = given_up_ms;
    }

    /// What the map should say of this node, if it says something else.
    fn missing(&self, map: &MapView) -> Option<pb::Node> {
        let known = map.node(self.node).cloned();
        let new = || pb::Node { id: self.node.0, region: self.region.clone(), ..Default::default() };
        let mut wanted = pb::Node { address: self.advertise.clone(), ..known.clone().unwrap_or_else(new) };
        if !self.failure_domain.is_empty() {
            wanted.failure_domain.clone_from(&self.failure_domain);
        }
        (known.as_ref() != Some(&wanted)).then_some(wanted)
    }

    /// Whether nothing is left to be done.
    async fn register(&self) -> bool {
        if self.fitness.removed.load(Ordering::Relaxed) {
            return true;
        }
        // This node's map may be old, and what an operator has registered since is not to be overwritten.
        let Ok(map) = self.placement.newest().await else { return false };
        let Some(node) = self.missing(&map) else { return true };
        match self.placement.propose(Op::RegisterNode(pb::RegisterNode { node: Some(node) })).await {
            Ok(()) => {
                tracing::info!(node = self.node.0, address = %self.advertise, "this node is registered");
                true
            }
            Err(PlacementError::Refused { refusal: Refusal::NodeRemoved, detail }) => {
                tracing::error!(node = self.node.0, %detail, "this node was removed from the cluster and takes part no more");
                self.fitness.removed.store(true, Ordering::Relaxed);
                true
            }
            Err(error) => {
                tracing::warn!(node = self.node.0, %error, "this node is not registered yet");
                false
            }
        }
    }
}

fn addresses(map: &MapView) -> Vec<(postrider_raft::NodeId, String)> {
    map.map.nodes.iter().map(|node| (postrider_raft::NodeId(node.id), node.address.clone())).collect()
}
