//! What begins, with its lines in the audit log: what cannot be written down does not begin.

use futures::stream::{self, StreamExt, TryStreamExt};
use postrider_api::audit;
use postrider_api::id::NodeId;
use postrider_api::pb::{self, AuditOutcome, command::Op, outcome::Result as Made};
use postrider_balance::step::Step;

use super::Balancer;
use crate::placement::PlacementError;

/// Steps that are being recorded at a time.
const STEPS_AT_A_TIME: usize = 16;
/// Names of one record of the audit log.
const AUDIT_TARGETS_MAX: usize = 8;

impl Balancer {
    pub(super) async fn give_up(&self, node: NodeId, silent_since_ms: i64) -> Result<(), PlacementError> {
        let after = self.options.dead_after.unwrap_or(std::time::Duration::MAX);
        let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let why = format!("it has been silent for {} s", after.as_secs());
        let give_up = Op::GiveUpNode(pb::GiveUpNode { node: node.0, silent_since_ms, after_ms });
        let of = self.write_down("node.give-up", vec![audit::node(node)], &why).await?;
        let ended = self.placement.propose(give_up).await;
        match &ended {
            Ok(()) => tracing::error!(node = node.0, %why, "a node is given up: its replicas are made elsewhere"),
            Err(error) => tracing::info!(node = node.0, %error, "a node is not given up"),
        }
        self.write_end(of, ended.map(|()| String::new()).map_err(|error| error.to_string())).await
    }

    /// Has steps recorded, each as an operation; says how many were.
    pub(super) async fn begin(&self, steps: &[(&Step, u64)]) -> Result<u32, PlacementError> {
        // What an operator has asked for stands in the audit log already.
        let own: Vec<&Step> = steps.iter().filter(|(_, parent)| *parent == 0).map(|(step, _)| *step).collect();
        let Some(first) = own.first() else { return self.begin_all(steps).await };
        let targets = own.iter().take(AUDIT_TARGETS_MAX).map(|step| audit::shard(step.shard)).collect();
        let why = format!("{} shards; the first: {first}, {}", own.len(), first.reason);
        let of = self.write_down("balance.steps", targets, &why).await?;
        let begun = self.begin_all(steps).await;
        let ended = match &begun {
            Ok(begun) => Ok(format!("{begun} steps have begun")),
            Err(error) => Err(error.to_string()),
        };
        self.write_end(of, ended).await?;
        begun
    }

    async fn begin_all(&self, steps: &[(&Step, u64)]) -> Result<u32, PlacementError> {
        let begun: Vec<_> = steps.iter().map(|(step, parent)| self.begin_one(step, *parent)).collect();
        let begun = stream::iter(begun).buffered(STEPS_AT_A_TIME);
        begun.try_fold(0, |sum, begun| std::future::ready(Ok(sum + u32::from(begun)))).await
    }

    async fn begin_one(&self, step: &Step, parent: u64) -> Result<bool, PlacementError> {
        match self.placement.propose(step.command(parent)).await {
            Ok(()) => {
                tracing::info!(%step, priority = %step.priority, reason = %step.reason, "a step begins");
                metrics::counter!("postrider_balance_steps_total", "for" => step.priority.to_string()).increment(1);
                Ok(true)
            }
            // Something has changed since the plan: the next one knows.
            Err(PlacementError::Refused { detail, .. }) => {
                tracing::info!(%step, %detail, "a step does not begin");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn write_down(&self, action: &str, targets: Vec<String>, why: &str) -> Result<u64, PlacementError> {
        let record = pb::AuditRecord {
            certificate: audit::node(self.node),
            operator: "balancer".to_owned(),
            action: action.to_owned(),
            targets,
            why: audit::without_addresses(why),
            ..Default::default()
        };
        match self.placement.carry_out(Op::RecordAudit(pb::RecordAudit { record: Some(record) })).await? {
            Made::Audited(audited) => Ok(audited.sequence),
            _ => Err(PlacementError::Unreachable), // it was not asked for
        }
    }

    async fn write_end(&self, of: u64, ended: Result<String, String>) -> Result<(), PlacementError> {
        let (outcome, detail) = match ended {
            Ok(detail) => (AuditOutcome::Done, detail),
            Err(error) => (AuditOutcome::Failed, audit::without_addresses(&error)),
        };
        let record = pb::AuditRecord { of, outcome: outcome.into(), detail, ..Default::default() };
        self.placement.propose(Op::RecordAudit(pb::RecordAudit { record: Some(record) })).await
    }
}
