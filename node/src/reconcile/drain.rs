//! A node is emptied: its replicas go elsewhere, some at a time. Carried on by the leader of placement.

use std::time::Duration;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::operation::Kind;
use postrider_api::pb::{self, OperationState, OperationStep, command::Op};

use super::{PAUSE_AFTER_FAILURE, Reconciler, StepError, Told, target};
use crate::map::MapView;
use crate::placement::PlacementError;

/// Replicas that leave a node at a time: each is read as a whole where it was and written where it will be.
const REPLICAS_AT_A_TIME: usize = 4;
/// Nodes that are asked whether they are there, of those that may take a replica.
const TARGETS_ASKED_MAX: usize = 8;
/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What one look has found and done.
enum Look {
    Emptied,
    /// What it waits for; empty when it gets on.
    Goes(String),
}

impl Reconciler {
    pub(super) fn resume_drains(&self, map: &MapView) {
        for operation in &map.map.operations {
            let Some(Kind::DrainNode(drain)) = operation.kind else { continue };
            if !self.running.drains.lock().insert(operation.id) {
                continue;
            }
            let (reconciler, id) = (self.clone(), operation.id);
            tokio::spawn(async move {
                tokio::select! {
                    () = reconciler.drain(id, NodeId(drain.node)) => {}
                    () = reconciler.stop.cancelled() => {}
                }
                reconciler.running.drains.lock().remove(&id);
            });
        }
    }

    async fn drain(&self, id: u64, node: NodeId) {
        let mut told = Told::default();
        tracing::info!(node = node.0, operation = id, "emptying a node");
        while self.replicas.leading(ShardId::PLACEMENT).is_ok() {
            let mut pause = LOOK_EVERY;
            match self.look(id, node).await {
                Ok(Look::Emptied) => return,
                Ok(Look::Goes(waits_for)) => {
                    let news = Told { id, step: OperationStep::Draining, waits_for };
                    if news != told {
                        self.report(id, news.step, &news.waits_for).await;
                        told = news;
                    }
                }
                Err(StepError::Changed) => return,
                Err(error) => {
                    tracing::warn!(node = node.0, %error, "a node is not emptied yet; trying again");
                    pause = PAUSE_AFTER_FAILURE;
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn look(&self, id: u64, node: NodeId) -> Result<Look, StepError> {
        let map = self.placement.newest().await?;
        if map.operation(id).is_none_or(|operation| operation.state() != OperationState::Running) {
            return Err(StepError::Changed);
        }
        let held: Vec<&pb::Shard> = map.map.shards.iter().filter(|placed| placed.replicas.contains(&node.0)).collect();
        if held.is_empty() {
            self.finish_drain(id).await?;
            return Ok(Look::Emptied);
        }
        let is_child =
            |operation: &&pb::Operation| matches!(&operation.kind, Some(Kind::SetReplicas(set)) if set.parent == id);
        let mut running = map.map.operations.iter().filter(is_child).count();
        let mut load = target::load(&map);
        let mut waits_for = String::new();
        for placed in held.into_iter().filter(|placed| placed.operation == 0) {
            if running >= REPLICAS_AT_A_TIME {
                break;
            }
            match self.replace(id, node, placed, &map, &mut load).await {
                Ok(()) => running += 1,
                Err(PlacementError::Refused { detail, .. }) if waits_for.is_empty() => waits_for = detail,
                Err(PlacementError::Refused { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // While others go, it gets on.
        Ok(Look::Goes(if running == 0 { waits_for } else { String::new() }))
    }

    /// Begins to move one replica to the node that suits it best.
    async fn replace(
        &self,
        parent: u64,
        node: NodeId,
        placed: &pb::Shard,
        map: &MapView,
        load: &mut target::Load,
    ) -> Result<(), PlacementError> {
        let Some(to) = self.first_that_answers(&target::instead_of(map, placed, node, load)).await else {
            let detail =
                format!("shard {}: no node of zone {:?} that is there can take its replica", placed.id, placed.zone);
            return Err(PlacementError::Refused { refusal: pb::Refusal::Conflict, detail });
        };
        let replicas = placed.replicas.iter().map(|id| if *id == node.0 { to } else { *id }).collect();
        let set = pb::SetReplicas { shard: placed.id, replicas, epoch: placed.epoch, parent };
        self.placement.propose(Op::SetReplicas(set)).await?;
        *load.entry(to).or_default() += 1;
        Ok(())
    }

    async fn first_that_answers(&self, targets: &[&pb::Node]) -> Option<u64> {
        for node in targets.iter().take(TARGETS_ASKED_MAX) {
            if self.peers.status(&node.address, true).await.is_ok_and(|peer| !peer.status.leaving) {
                return Some(node.id);
            }
        }
        None
    }

    async fn finish_drain(&self, id: u64) -> Result<(), StepError> {
        match self.placement.propose(Op::FinishOperation(pb::FinishOperation { id, replicas: Vec::new() })).await {
            Ok(()) => tracing::info!(operation = id, "a node is empty"),
            Err(PlacementError::Refused { detail, .. }) => {
                tracing::info!(operation = id, %detail, "the emptying of a node has ended otherwise");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
