//! A shard's replicas shall be on other nodes. The shard's leader makes it so, and says when it is.

use postrider_api::id::NodeId;
use postrider_api::pb::operation::Kind;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, NodeState, OperationState, Refusal, Shard};

use crate::key::Key;
use crate::placement::{REASON_BYTES_MAX, check_text, done, node, operation, rules, same_members, set, shard};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::SetReplicas) -> Result<Made, Stop> {
    check_text("reason", &command.reason, REASON_BYTES_MAX)?;
    let mut placed = shard(turn.rows, command.shard)?;
    let wanted = Shard { replicas: command.replicas.clone(), ..placed.clone() };
    rules::check_replicas(turn.rows, "replicas", &wanted, &placed.replicas)?;
    if command.replicas.len().is_multiple_of(2) {
        let detail = "replicas: an odd number is wanted; of an even one no more may fail than of the odd one below it";
        return Err(malformed(detail));
    }
    if placed.operation != 0 {
        let running = operation::running(turn.rows, placed.operation)?;
        return match &running.kind {
            Some(Kind::SetReplicas(set))
                if running.state() == OperationState::Running && same_members(&set.replicas, &command.replicas) =>
            {
                Ok(operation::begun(running.id))
            }
            _ => {
                let detail = format!("shard {}: operation {} is changing it", placed.id, running.id);
                Err(refuse(Refusal::Conflict, detail))
            }
        };
    }
    if command.epoch != 0 && command.epoch != placed.epoch {
        let detail = format!("shard {}: it has its replicas on {:?} now", placed.id, placed.replicas);
        return Err(refuse(Refusal::Conflict, detail));
    }
    if same_members(&placed.replicas, &command.replicas) {
        return Ok(done());
    }
    for added in command.replicas.iter().filter(|node| !placed.replicas.contains(node)) {
        let added = node(turn.rows, NodeId(*added))?;
        if added.state() == NodeState::Draining {
            return Err(refuse(Refusal::Conflict, format!("replicas: node {} is being emptied, or was", added.id)));
        }
        if added.given_up_ms != 0 {
            return Err(refuse(
                Refusal::Conflict,
                format!("replicas: node {} is given up, and does not answer", added.id),
            ));
        }
    }
    let key = Key::Shards(postrider_api::id::ShardId(placed.id));
    placed.operation = operation::begin(turn, Kind::SetReplicas(command.clone()), String::new())?;
    set(turn, key, &placed)?;
    Ok(operation::begun(placed.operation))
}
