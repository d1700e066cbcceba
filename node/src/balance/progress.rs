//! The operations that placement's leader carries on: an operator's balancing, the emptying of nodes, new shards.

use postrider_api::id::NodeId;
use postrider_api::pb::operation::Kind;
use postrider_api::pb::{self, OperationStep, command::Op};
use postrider_balance::Plan;
use postrider_balance::observed::Reports;

use super::mandate::Mandate;
use super::{Balancer, REPORTS_FRESH, Tenure};
use crate::map::MapView;
use crate::placement::PlacementError;

impl Balancer {
    /// Tells what they wait for, and ends those that have come to their end.
    pub(super) async fn go_on(
        &self,
        mandate: &Mandate,
        map: &MapView,
        planned: &Plan,
        nothing_begins: bool,
        tenure: &mut Tenure,
    ) -> Result<(), PlacementError> {
        tenure.told.retain(|id, _| map.operation(*id).is_some());
        for (shard, operation) in &mandate.making {
            self.make(*shard, *operation, map, tenure).await?;
        }
        for (node, operation) in &mandate.drains {
            self.drain(*node, *operation, map, planned, tenure).await?;
        }
        let Some(operation) = mandate.balancing else { return Ok(()) };
        if !nothing_begins || map.map.operations.iter().any(changes_shard) {
            return self.tell(operation, OperationStep::Balancing, waiting(planned), tenure).await;
        }
        let unheard = unheard(&map.map.nodes, &tenure.reports);
        if unheard > 0 {
            // To plan without them is to find that nothing can move.
            let waits_for = format!("{unheard} nodes have not said yet what they bear");
            return self.tell(operation, OperationStep::Balancing, waits_for, tenure).await;
        }
        if self.is_older(tenure.reported, REPORTS_FRESH) {
            // By what nodes say now.
            tenure.reported = None;
            return Ok(());
        }
        self.finish(operation).await
    }

    async fn drain(
        &self,
        node: NodeId,
        operation: u64,
        map: &MapView,
        planned: &Plan,
        tenure: &mut Tenure,
    ) -> Result<(), PlacementError> {
        let holds = |shard: &pb::Shard| shard.replicas.contains(&node.0);
        if !map.map.shards.iter().any(holds) {
            return match self.finish(operation).await {
                // It has ended otherwise, or a replica has come since.
                Err(PlacementError::Refused { detail, .. }) => {
                    tracing::info!(node = node.0, %detail, "the emptying of a node does not end like this");
                    Ok(())
                }
                ended => ended,
            };
        }
        // While others go, it gets on.
        let is_child =
            |running: &pb::Operation| matches!(&running.kind, Some(Kind::SetReplicas(set)) if set.parent == operation);
        let mut waits_for = String::new();
        if !map.map.operations.iter().any(is_child)
            && planned.steps.iter().all(|step| !map.shard(step.shard).is_some_and(holds))
        {
            let stuck = planned.blocked.iter().find(|blocked| map.shard(blocked.shard).is_some_and(holds));
            waits_for = match stuck {
                Some(stuck) => format!("shard {}: {}", stuck.shard, stuck.reason),
                None => waiting(planned),
            };
        }
        self.tell(operation, OperationStep::Draining, waits_for, tenure).await
    }

    pub(super) async fn tell(
        &self,
        id: u64,
        step: OperationStep,
        waits_for: String,
        tenure: &mut Tenure,
    ) -> Result<(), PlacementError> {
        if tenure.told.get(&id) == Some(&waits_for) {
            return Ok(());
        }
        let record = pb::RecordStep { id, step: step.into(), waits_for: waits_for.clone() };
        self.placement.propose(Op::RecordStep(record)).await?;
        tenure.told.insert(id, waits_for);
        Ok(())
    }

    async fn finish(&self, id: u64) -> Result<(), PlacementError> {
        self.placement.propose(Op::FinishOperation(pb::FinishOperation { id, replicas: Vec::new() })).await?;
        tracing::info!(operation = id, "an operation has ended");
        Ok(())
    }
}

fn changes_shard(running: &pb::Operation) -> bool {
    matches!(running.kind, Some(Kind::SetReplicas(_) | Kind::SetHome(_) | Kind::MakeShard(_)))
}

/// Nodes that nobody has found silent, and that have said nothing of what they hold.
fn unheard(nodes: &[pb::Node], reports: &Reports) -> usize {
    let expected = nodes.iter().filter(|node| node.silent_since_ms == 0 && node.given_up_ms == 0);
    expected.filter(|node| !reports.has(NodeId(node.id))).count()
}

fn waiting(planned: &Plan) -> String {
    match planned.waiting_shards {
        0 => String::new(),
        1 => "1 shard waits for nodes that do not answer".to_owned(),
        shards => format!("{shards} shards wait for nodes that do not answer"),
    }
}
