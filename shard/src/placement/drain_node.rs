//! A node shall be emptied. From here on it gets no lead and no replica; what it has goes elsewhere, shard by shard.

use postrider_api::id::NodeId;
use postrider_api::pb::operation::Kind;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, NodeState};

use crate::key::Key;
use crate::placement::{node, operation, set};
use crate::store::Rows;
use crate::turn::{Stop, Turn};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::DrainNode) -> Result<Made, Stop> {
    let id = NodeId(command.node);
    let mut drained = node(turn.rows, id)?;
    if drained.operation != 0 {
        return Ok(operation::begun(drained.operation));
    }
    drained.operation = operation::begin(turn, Kind::DrainNode(*command), String::new())?;
    drained.state = NodeState::Draining.into();
    set(turn, Key::Node(id), &drained)?;
    Ok(operation::begun(drained.operation))
}
