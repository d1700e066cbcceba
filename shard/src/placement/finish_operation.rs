//! An operation has come to its end.
//!
//! The command says what was reached, and it must be what is wanted now: whoever carried the operation on and is late must not end
//! it in a state that has been taken back since.

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::operation::Kind;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, OperationState, Refusal};

use crate::key::Key;
use crate::placement::{done, node, operation, same_members, set, shard, shards, sweep};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::FinishOperation) -> Result<Made, Stop> {
    let running = operation::running(turn.rows, command.id)?;
    match &running.kind {
        Some(Kind::SetReplicas(wanted)) => {
            let mut placed = shard(turn.rows, wanted.shard)?;
            let is_cancelled = running.state() == OperationState::Cancelling;
            let members = if is_cancelled { placed.replicas.clone() } else { wanted.replicas.clone() };
            if !same_members(&members, &command.replicas) {
                let detail = format!("shard {} is wanted on {members:?}, and is on {:?}", placed.id, command.replicas);
                return Err(refuse(Refusal::Conflict, detail));
            }
            placed.epoch += u64::from(!is_cancelled);
            placed.replicas = members;
            placed.operation = 0;
            set(turn, Key::Shards(ShardId(placed.id)), &placed)?;
            if !is_cancelled && placed.kind() == pb::ShardKind::Mailbox {
                sweep::await_next(turn, &placed.zone)?;
            }
        }
        Some(Kind::SetHome(wanted)) => {
            let mut placed = shard(turn.rows, wanted.shard)?;
            placed.operation = 0;
            set(turn, Key::Shards(ShardId(placed.id)), &placed)?;
        }
        Some(Kind::MakeShard(made)) => {
            let mut placed = shard(turn.rows, made.shard)?;
            if !same_members(&placed.replicas, &command.replicas) {
                let detail =
                    format!("shard {} is placed on {:?}, not {:?}", placed.id, placed.replicas, command.replicas);
                return Err(refuse(Refusal::Conflict, detail));
            }
            (placed.operation, placed.making) = (0, false);
            set(turn, Key::Shards(ShardId(placed.id)), &placed)?;
        }
        Some(Kind::DrainNode(drain)) => {
            for placed in shards(turn.rows) {
                let placed = placed?;
                if placed.replicas.contains(&drain.node) {
                    let detail = format!("node {} has a replica of shard {} still", drain.node, placed.id);
                    return Err(refuse(Refusal::Conflict, detail));
                }
            }
            let mut emptied = node(turn.rows, NodeId(drain.node))?;
            emptied.operation = 0;
            set(turn, Key::Node(NodeId(drain.node)), &emptied)?;
        }
        Some(Kind::Balance(_)) => {
            if let Some(child) = operation::children(turn.rows, running.id)?.first() {
                let detail = format!("operation {} is a step of it, and has not ended", child.id);
                return Err(refuse(Refusal::Conflict, detail));
            }
        }
        None => return Err(malformed("id: the operation is of a kind that this build does not know")),
    }
    operation::end(turn, running)?;
    Ok(done())
}
