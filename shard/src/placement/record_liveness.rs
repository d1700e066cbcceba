//! Nodes that have fallen silent, and nodes that answer again, as the leader of placement has found with the others' help.
//!
//! Invariant: how long a node has been silent is counted in the time of commands, from the first that says so. A leader that takes over, or
//! that was itself cut off, counts from there and not from what its own clocks remember.

use postrider_api::id::NodeId;
use postrider_api::limit::LIVENESS_NODES_MAX;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Node};

use crate::key::Key;
use crate::placement::{done, set};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RecordLiveness) -> Result<Made, Stop> {
    if command.silent.len() + command.answering.len() > LIVENESS_NODES_MAX {
        return Err(malformed(format!("silent, answering: at most {LIVENESS_NODES_MAX} nodes")));
    }
    if let Some(both) = command.silent.iter().find(|id| command.answering.contains(id)) {
        return Err(malformed(format!("silent, answering: node {both} is in both")));
    }
    for id in &command.silent {
        let Some(known) = row::get::<Node>(turn.rows, Key::Node(NodeId(*id)))? else { continue };
        if known.silent_since_ms == 0 {
            set(turn, Key::Node(NodeId(*id)), &Node { silent_since_ms: turn.now, ..known })?;
        }
    }
    for id in &command.answering {
        let Some(known) = row::get::<Node>(turn.rows, Key::Node(NodeId(*id)))? else { continue };
        set(turn, Key::Node(NodeId(*id)), &Node { silent_since_ms: 0, given_up_ms: 0, ..known })?;
    }
    Ok(done())
}
