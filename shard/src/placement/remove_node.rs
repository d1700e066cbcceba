//! A node goes for good. Its id stays taken: a node with another data directory under it could vote twice in one term.

use postrider_api::id::NodeId;
use postrider_api::pb::operation::Kind;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal, RemovedNode};

use crate::key::Key;
use crate::placement::{done, node, operation, remove, shards};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

/// Shards that a refusal names.
const NAMED_MAX: usize = 8;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RemoveNode) -> Result<Made, Stop> {
    let id = NodeId(command.node);
    if row::get::<RemovedNode>(turn.rows, Key::RemovedNode(id))?.is_some() {
        return Ok(done());
    }
    let removed = node(turn.rows, id)?;
    let mut held = Vec::new();
    for placed in shards(turn.rows) {
        let placed = placed?;
        if placed.replicas.contains(&id.0) {
            held.push(placed.id);
        }
    }
    if !held.is_empty() {
        let named = held.iter().take(NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let more = if held.len() > NAMED_MAX { ", …" } else { "" };
        let detail = format!("node {id} has {} replicas (of {named}{more}): drain it first", held.len());
        return Err(refuse(Refusal::Conflict, detail));
    }
    for running in operation::all(turn.rows)?.iter().filter(|operation| !operation::has_ended(operation)) {
        let wants = matches!(&running.kind, Some(Kind::SetReplicas(set)) if set.replicas.contains(&id.0));
        if wants || running.id == removed.operation {
            let detail = format!("node {id}: operation {} needs it; wait for it, or cancel it", running.id);
            return Err(refuse(Refusal::Conflict, detail));
        }
    }
    row::put(turn.rows, Key::RemovedNode(id), &RemovedNode { id: id.0, removed_ms: turn.now });
    remove(turn, Key::Node(id), "")?;
    Ok(done())
}
