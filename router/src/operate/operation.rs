//! Changes that take time, in the words of operators.

use postrider_api::pb::operation::Kind;
use postrider_api::pb::{Operation, OperationState, OperationStep};

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationSummary {
    /// Its number.
    pub id: u64,
    /// `replicas`, `home`, `drain`, `balance`, `make`.
    pub kind: &'static str,
    /// Of what.
    pub of: String,
    /// `running`, `cancelling`, `done`, `cancelled`.
    pub state: &'static str,
    /// What is being done.
    pub step: &'static str,
    /// Why it gets no further; empty: it gets on.
    pub waits_for: String,
    /// Where the balancer began it.
    pub why: String,
    /// The operation that it is a step of; 0: of none.
    pub parent: u64,
    /// When it began, milliseconds.
    pub started_ms: i64,
    /// When it ended; `None` while it runs.
    pub ended_ms: Option<i64>,
}

impl OperationSummary {
    /// Of an operation as placement has it.
    pub fn of(operation: &Operation) -> Self {
        let (kind, of) = match &operation.kind {
            Some(Kind::SetReplicas(set)) => ("replicas", format!("shard {} on {}", set.shard, joined(&set.replicas))),
            Some(Kind::SetHome(set)) => ("home", format!("shard {} in {}", set.shard, set.region)),
            Some(Kind::DrainNode(drain)) => ("drain", format!("node {}", drain.node)),
            Some(Kind::Balance(_)) => ("balance", "the cluster".to_owned()),
            Some(Kind::MakeShard(make)) => ("make", format!("shard {}", make.shard)),
            None => ("unknown", String::new()),
        };
        let why = match &operation.kind {
            Some(Kind::SetReplicas(set)) => set.reason.clone(),
            Some(Kind::SetHome(set)) => set.reason.clone(),
            Some(Kind::DrainNode(_) | Kind::Balance(_) | Kind::MakeShard(_)) | None => String::new(),
        };
        Self {
            id: operation.id,
            kind,
            of,
            state: state_name(operation.state()),
            step: step_name(operation.step()),
            waits_for: operation.waits_for.clone(),
            why,
            parent: parent_of(operation),
            started_ms: operation.started_ms,
            ended_ms: (operation.ended_ms > 0).then_some(operation.ended_ms),
        }
    }
}

/// The operation on whose behalf one runs; 0: of none.
pub fn parent_of(operation: &Operation) -> u64 {
    match &operation.kind {
        Some(Kind::SetReplicas(set)) => set.parent,
        Some(Kind::SetHome(set)) => set.parent,
        Some(Kind::DrainNode(_) | Kind::Balance(_) | Kind::MakeShard(_)) | None => 0,
    }
}

fn joined(nodes: &[u64]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn state_name(state: OperationState) -> &'static str {
    match state {
        OperationState::Running => "running",
        OperationState::Cancelling => "cancelling",
        OperationState::Done => "done",
        OperationState::Cancelled => "cancelled",
        OperationState::Unspecified => "unknown",
    }
}

fn step_name(step: OperationStep) -> &'static str {
    match step {
        OperationStep::Recorded => "recorded",
        OperationStep::Joining => "joining",
        OperationStep::CatchingUp => "catching up",
        OperationStep::Copying => "copying",
        OperationStep::HandingOver => "handing over",
        OperationStep::Voting => "voting",
        OperationStep::Removing => "removing",
        OperationStep::Draining => "draining",
        OperationStep::Balancing => "balancing",
        OperationStep::Making => "making",
    }
}
