//! An operation shall not go on. What it has done is taken back: by whoever carries it on, or here where that is all.

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::operation::Kind;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, NodeState, Operation, OperationState, Refusal};

use crate::key::Key;
use crate::placement::{REASON_BYTES_MAX, check_text, done, node, operation, set, shard};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::CancelOperation) -> Result<Made, Stop> {
    check_text("reason", &command.reason, REASON_BYTES_MAX)?;
    let running = operation::running(turn.rows, command.id)?;
    if running.state() == OperationState::Cancelling {
        return Ok(done());
    }
    match &running.kind {
        Some(Kind::SetReplicas(_)) => cancelling(turn, running, &command.reason)?,
        Some(Kind::SetHome(home)) => {
            let mut placed = shard(turn.rows, home.shard)?;
            placed.home_region.clone_from(&running.home_before);
            placed.operation = 0;
            set(turn, Key::Shards(ShardId(placed.id)), &placed)?;
            cancelled(turn, running, &command.reason)?;
        }
        Some(Kind::DrainNode(drain)) => {
            let mut active = node(turn.rows, NodeId(drain.node))?;
            active.state = NodeState::Active.into();
            active.operation = 0;
            set(turn, Key::Node(NodeId(drain.node)), &active)?;
            for child in operation::children(turn.rows, running.id)? {
                if child.state() == OperationState::Running {
                    cancelling(turn, child, &command.reason)?;
                }
            }
            cancelled(turn, running, &command.reason)?;
        }
        Some(Kind::MakeShard(made)) => {
            let detail = format!("shard {} is placed, and its group may be there: that is not taken back", made.shard);
            return Err(refuse(Refusal::Conflict, detail));
        }
        // What has begun comes to its end by itself: it is none the worse for it.
        Some(Kind::Balance(_)) => cancelled(turn, running, &command.reason)?,
        None => return Err(malformed("id: the operation is of a kind that this build does not know")),
    }
    Ok(done())
}

fn cancelling(turn: &mut Turn<'_, impl Rows>, mut operation: Operation, reason: &str) -> Result<(), Stop> {
    operation.state = OperationState::Cancelling.into();
    reason.clone_into(&mut operation.waits_for);
    Ok(set(turn, Key::Operation(operation.id), &operation)?)
}

fn cancelled(turn: &mut Turn<'_, impl Rows>, mut operation: Operation, reason: &str) -> Result<(), Stop> {
    operation.state = OperationState::Cancelling.into();
    reason.clone_into(&mut operation.waits_for);
    Ok(operation::end(turn, operation)?)
}
