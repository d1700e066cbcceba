//! What placement wants becomes so: the members of a shard's group, and where its lead is.
//!
//! Invariant: what is wanted is in placement before anything happens, and every step looks at what *is* and does what is missing, so
//! whoever leads carries on from wherever it stands, and any step may be done again.
//!
//! Invariant: who is a member is decided in the group's log, and the map follows it. Before each change of members the newest map is
//! asked whether it is still wanted: this node's own may be old.

mod lead;
mod members;
pub(crate) mod prepare;
mod wanted;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::operation::Kind;
use postrider_api::pb::{self, OperationState, OperationStep, command::Op};
use postrider_raft::{GroupStatus, MemberError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::fault;
use crate::map::Map;
use crate::options::NodeTimings;
use crate::peers::Peers;
use crate::placement::{Placement, PlacementError};
use crate::replicas::Replicas;
use prepare::Preparation;
pub(crate) use wanted::Wanted;

/// The pause before a shard is looked at again.
const PAUSE: Duration = Duration::from_millis(200);
/// The same after a step has failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// What telling placement where an operation stands may take: it is for people, and holds nothing up.
const REPORT: Duration = Duration::from_secs(2);
/// Shards whose members are put right at a time although no operation changes them: a node's new address concerns all of its groups.
const REPAIRS_MAX: usize = 16;

/// Carries on what is wanted of the shards that this node leads.
#[derive(Clone)]
pub(crate) struct Reconciler {
    pub(crate) node: NodeId,
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) peers: Peers,
    pub(crate) placement: Placement,
    pub(crate) preparation: Arc<dyn Preparation>,
    pub(crate) timings: NodeTimings,
    /// The slowest link that a snapshot may take, bytes per second.
    pub(crate) link_bytes_per_s_min: u64,
    pub(crate) stop: CancellationToken,
    pub(crate) running: Arc<Running>,
}

/// What is being carried on by this node now.
#[derive(Debug, Default)]
pub(crate) struct Running {
    shards: Mutex<HashSet<ShardId>>,
    repairs: Mutex<HashSet<ShardId>>,
}

#[derive(Debug, Error)]
enum StepError {
    #[error("another node leads now")]
    NotLeader,
    #[error("something else is wanted now")]
    Changed,
    #[error("the new membership is not agreed on")]
    NotAgreed,
    #[error("node {0} is not in the shard map")]
    UnknownNode(u64),
    #[error("node {node}: {what}: {}", status.message())]
    Peer { node: u64, what: &'static str, status: tonic::Status },
    #[error("{0}")]
    NotPrepared(String),
    #[error(transparent)]
    Member(#[from] MemberError),
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

/// How far a step has brought a shard.
#[derive(Debug)]
enum Progress {
    /// All is as it is wanted, and recorded so.
    Finished,
    /// A step was done, or more entries have arrived; the number tells one state from another.
    At(OperationStep, u64),
    /// A new replica answers and gets the state as a whole, of which nothing shows before it is all there.
    Receiving,
    /// Nothing can be done before something else happens.
    Waits(OperationStep, String),
}

/// What was told of an operation last.
#[derive(Debug, Default, PartialEq)]
struct Told {
    id: u64,
    step: OperationStep,
    waits_for: String,
}

impl Reconciler {
    /// Carries on what is wanted of every shard that this node leads, unless it is at it already.
    pub(crate) fn resume(&self, statuses: &[(ShardId, GroupStatus)]) {
        let Some(map) = self.map.get() else { return };
        for (shard, status) in statuses.iter().filter(|(_, status)| status.leads()) {
            let Some(wanted) = Wanted::of(&map, *shard) else { continue };
            match wanted.operation {
                Some(_) => self.spawn(*shard, &self.running.shards),
                None if wanted.differs(status, &map) && self.running.repairs.lock().len() < REPAIRS_MAX => {
                    self.spawn(*shard, &self.running.repairs);
                }
                None => {}
            }
        }
    }

    fn spawn(&self, shard: ShardId, among: &Mutex<HashSet<ShardId>>) {
        let is_carried = self.running.shards.lock().contains(&shard) || self.running.repairs.lock().contains(&shard);
        if is_carried || !among.lock().insert(shard) {
            return;
        }
        let reconciler = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = reconciler.carry(shard) => {}
                () = reconciler.stop.cancelled() => {}
            }
            reconciler.running.shards.lock().remove(&shard);
            reconciler.running.repairs.lock().remove(&shard);
        });
    }

    async fn carry(&self, shard: ShardId) {
        let mut told = Told::default();
        let mut stood = None;
        let mut since = self.replicas.clock.monotonic();
        loop {
            let mut patience = self.timings.move_patience;
            let (step, waits_for, pause) = match self.step(shard).await {
                Ok(Progress::Finished) => return,
                Ok(Progress::At(step, state)) => {
                    if stood != Some((step, state)) {
                        stood = Some((step, state));
                        since = self.replicas.clock.monotonic();
                    }
                    (step, String::new(), PAUSE)
                }
                Ok(Progress::Receiving) => {
                    patience = patience.saturating_add(self.time_of_snapshot(shard));
                    (OperationStep::CatchingUp, String::new(), PAUSE)
                }
                Ok(Progress::Waits(step, reason)) => (step, reason, PAUSE),
                // Whoever leads now carries it on.
                Err(StepError::NotLeader | StepError::Member(MemberError::NotLeader { .. })) => return,
                Err(StepError::Changed) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(shard = shard.0, %error, "a shard is not yet as it is wanted; trying again");
                    (told.step, error.to_string(), PAUSE_AFTER_FAILURE)
                }
            };
            self.tell(shard, step, &waits_for, &mut told).await;
            if self.is_hopeless(shard) {
                patience = Duration::ZERO;
            }
            if self.replicas.clock.monotonic().saturating_sub(since) > patience {
                self.give_up(shard, &waits_for).await;
                since = self.replicas.clock.monotonic();
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether a node that shall get a replica is given up: nobody need wait for it.
    fn is_hopeless(&self, shard: ShardId) -> bool {
        let Some(map) = self.map.get() else { return false };
        let Some(Wanted { members, operation: Some(_) }) = Wanted::of(&map, shard) else { return false };
        let held = map.shard(shard).map(|placed| placed.replicas.as_slice()).unwrap_or_default();
        let mut new = members.iter().filter(|node| !held.contains(node));
        new.any(|node| map.node(NodeId(*node)).is_some_and(|node| node.given_up_ms != 0))
    }

    /// Tells placement where the shard's operation stands, if that is news.
    async fn tell(&self, shard: ShardId, step: OperationStep, waits_for: &str, told: &mut Told) {
        let operation = self.map.get().and_then(|map| Wanted::of(&map, shard)?.operation);
        let Some(pb::Operation { id, .. }) = operation else { return };
        let news = Told { id, step, waits_for: waits_for.to_owned() };
        if news != *told {
            self.report(id, step, waits_for).await;
            *told = news;
        }
    }

    async fn report(&self, id: u64, step: OperationStep, waits_for: &str) {
        let waits_for = waits_for.to_owned();
        let report = Op::RecordStep(pb::RecordStep { id, step: step.into(), waits_for });
        let reported = tokio::time::timeout(REPORT, self.placement.propose(report)).await;
        if !matches!(reported, Ok(Ok(()))) {
            tracing::debug!(operation = id, ?reported, "where an operation stands was not recorded");
        }
    }

    /// The operation gets no further. Until the voters change, giving it up costs nothing; from then on it goes on.
    async fn give_up(&self, shard: ShardId, waits_for: &str) {
        let Some(map) = self.map.get() else { return };
        let Some(wanted) = Wanted::of(&map, shard) else { return };
        let Some(operation) = wanted.operation.filter(|running| running.state() == OperationState::Running) else {
            return;
        };
        let Some(status) = self.replicas.status(shard).filter(GroupStatus::leads) else { return };
        let is_as_before = map.shard(shard).is_some_and(|placed| members::votes_exactly(&status, &placed.replicas));
        if !matches!(operation.kind, Some(Kind::SetReplicas(_))) || !is_as_before {
            tracing::error!(shard = shard.0, operation = operation.id, waits_for, "an operation does not end");
            return;
        }
        tracing::error!(shard = shard.0, operation = operation.id, waits_for, "an operation is given up");
        let reason = format!("given up by node {}: {waits_for}", self.node);
        let cancel = Op::CancelOperation(pb::CancelOperation { id: operation.id, reason });
        if let Err(error) = self.placement.propose(cancel).await {
            tracing::error!(shard = shard.0, %error, "that an operation is given up is not recorded");
        }
    }

    /// Does what comes next, whatever was done before and by whom.
    async fn step(&self, shard: ShardId) -> Result<Progress, StepError> {
        let map = self.map.get().ok_or(StepError::Changed)?;
        let Some(wanted) = Wanted::of(&map, shard) else { return Ok(Progress::Finished) };
        let status = self.replicas.status(shard).filter(GroupStatus::leads).ok_or(StepError::NotLeader)?;
        if let Some(progress) = self.step_members(shard, &wanted, &status, &map).await? {
            return Ok(progress);
        }
        let Some(operation) = &wanted.operation else { return Ok(Progress::Finished) };
        match &operation.kind {
            Some(Kind::SetReplicas(set)) => self.finish_members(shard, &wanted, operation, set, &map).await,
            Some(Kind::SetHome(home)) => self.step_home(shard, operation, home, &status).await,
            // That its group agrees on its members is all that was to come.
            Some(Kind::MakeShard(_)) => self.finish(operation.id, wanted.members.clone()).await,
            Some(Kind::DrainNode(_) | Kind::Balance(_)) | None => Ok(Progress::Finished),
        }
    }

    /// Whether placement still wants this.
    async fn confirm(&self, shard: ShardId, wanted: &Wanted) -> Result<(), StepError> {
        let map = self.placement.newest().await?;
        if Wanted::of(&map, shard).as_ref() == Some(wanted) { Ok(()) } else { Err(StepError::Changed) }
    }

    /// Records that an operation has come to its end.
    async fn finish(&self, id: u64, replicas: Vec<u64>) -> Result<Progress, StepError> {
        let finish = Op::FinishOperation(pb::FinishOperation { id, replicas });
        match self.placement.propose(finish).await {
            Ok(()) => tracing::info!(operation = id, "an operation has ended"),
            // It has ended before, or was cancelled in this moment: the map tells.
            Err(PlacementError::Refused { detail, .. }) => {
                tracing::info!(operation = id, %detail, "an operation does not end like this");
            }
            Err(error) => return Err(error.into()),
        }
        self.placement.newest().await?;
        Err(StepError::Changed)
    }

    /// What the shard's state may take on its way, on the slowest link that still counts as working.
    fn time_of_snapshot(&self, shard: ShardId) -> Duration {
        let bytes = self.replicas.counts(shard).bytes;
        Duration::from_secs(bytes / self.link_bytes_per_s_min.max(1))
    }
}

/// For the operator's reply.
pub(crate) fn admin_error(error: &MemberError, status: Option<&GroupStatus>) -> pb::AdminReply {
    pb::AdminReply { ok: false, error: error.to_string(), fault: fault::of_member(error, status), ..Default::default() }
}
