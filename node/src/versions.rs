//! Versions: this node says what its build knows, and the groups that it leads follow the version that the operator has
//! asked for.
//!
//! A group is raised in two steps. Placement records the version for the shard, which it does only when every node with a
//! replica has reported a build that knows it, and from then on takes no older one for the shard; then the group's own log
//! raises it. A leader that is lost in between is followed by one that does the same again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::env::{Entropy, random};
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, command::Op, outcome};
use postrider_api::version;
use postrider_raft::GroupStatus;
use postrider_shard::format::VERSION_MAX;
use tokio_util::sync::CancellationToken;

use crate::map::{Map, MapView};
use crate::placement::{Placement, PlacementError};
use crate::propose::Proposer;
use crate::received::Received;
use crate::replicas::Replicas;

/// Groups that one round raises: each is woken by it.
const RAISED_PER_ROUND: usize = 16;
/// The pause before what could not be done is tried again.
const PAUSE: Duration = Duration::from_secs(2);

pub(crate) struct Versions {
    pub(crate) node: NodeId,
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) placement: Placement,
    pub(crate) proposer: Proposer,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) stop: CancellationToken,
}

/// Whether something is left for the next round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Something,
}

impl Versions {
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut changes = self.map.changes();
        loop {
            let map = changes.borrow_and_update().clone();
            let left = match map {
                None => Left::Nothing,
                Some(map) => self.round(&map).await,
            };
            match left {
                // The map lives as long as this does.
                Left::Nothing => drop(changes.changed().await),
                Left::Something => drop(tokio::time::timeout(PAUSE, changes.changed()).await),
            }
        }
    }

    async fn round(&self, map: &MapView) -> Left {
        match self.report(map).await {
            Left::Nothing => self.raise(map).await,
            Left::Something => Left::Something,
        }
    }

    /// Tells placement what this build knows, unless it knows that already.
    async fn report(&self, map: &MapView) -> Left {
        let build = env!("CARGO_PKG_VERSION");
        // Not registered yet: the map will change.
        let Some(known) = map.node(self.node) else { return Left::Nothing };
        if known.version_max == VERSION_MAX && known.build == build {
            return Left::Nothing;
        }
        let report = pb::ReportBuild { node: self.node.0, version_max: VERSION_MAX, build: build.to_owned() };
        match self.placement.propose(Op::ReportBuild(report)).await {
            // The map that says so is on its way, and brings the next round.
            Ok(()) => Left::Nothing,
            Err(PlacementError::Refused { detail, .. }) => {
                tracing::error!(%detail, build, VERSION_MAX, "placement refuses this build: start a newer one on this node");
                Left::Something
            }
            Err(error) => {
                tracing::debug!(%error, "this build was not reported yet");
                Left::Something
            }
        }
    }

    /// Raises groups that this node leads and that are behind.
    async fn raise(&self, map: &MapView) -> Left {
        let target = version::or_initial(map.map.target_version).min(VERSION_MAX);
        if target == version::INITIAL {
            return Left::Nothing;
        }
        let mut left = Left::Nothing;
        let mut raised = 0;
        for group in self.replicas.host.groups() {
            let shard = ShardId(group.0);
            let Some(status) = self.replicas.host.status(group) else { continue };
            match self.replicas.version(shard) {
                Ok(at) if at >= target => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(shard = shard.0, %error, "the version of a shard cannot be read");
                    continue;
                }
            }
            // Whoever leads it now or later does it; it may be this node by then.
            left = Left::Something;
            if !status.leads() || raised >= RAISED_PER_ROUND || !all_know(map, shard, &status, target) {
                continue;
            }
            raised += 1;
            match self.raise_group(map, shard, target).await {
                Ok(()) => tracing::info!(shard = shard.0, version = target, "raised to a newer version"),
                Err(reason) => tracing::info!(shard = shard.0, version = target, %reason, "not raised yet"),
            }
        }
        left
    }

    async fn raise_group(&self, map: &MapView, shard: ShardId, target: u32) -> Result<(), String> {
        let recorded = map.shard(shard).is_some_and(|placed| version::or_initial(placed.version) >= target);
        if !recorded {
            let record = pb::RecordVersion { shard: shard.0, version: target };
            self.placement.propose(Op::RecordVersion(record)).await.map_err(|error| error.to_string())?;
        }
        let entropy = &*self.entropy;
        let command = pb::Command {
            request: Bytes::copy_from_slice(&random::<16>(entropy)),
            op: Some(Op::RaiseVersion(pb::RaiseVersion { version: target })),
            ..Default::default()
        };
        match self.proposer.submit(shard, Received::of(command)).await {
            Ok((_, pb::Outcome { result: Some(outcome::Result::Refused(refused)) })) => Err(refused.detail),
            Ok(_) => Ok(()),
            Err(fault) => Err(format!("{:?}", fault.fault)),
        }
    }
}

/// Whether every member of the group, as its own log has them, has reported a build that knows the version. Placement looks at
/// those that the map has.
fn all_know(map: &MapView, shard: ShardId, status: &GroupStatus, target: u32) -> bool {
    let members = status.voters.keys().chain(status.learners.keys()).map(|node| node.0);
    let placed = map.replicas(shard).map(|node| node.id);
    members
        .chain(placed)
        .all(|id| map.node(NodeId(id)).is_some_and(|node| version::or_initial(node.version_max) >= target))
}
