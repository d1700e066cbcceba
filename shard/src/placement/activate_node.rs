//! A node that was emptied takes part again.

use postrider_api::id::NodeId;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, NodeState, Refusal};

use crate::key::Key;
use crate::placement::{done, node, set};
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ActivateNode) -> Result<Made, Stop> {
    let id = NodeId(command.node);
    let mut active = node(turn.rows, id)?;
    if active.operation != 0 {
        let detail = format!("node {id} is being emptied: cancel operation {} instead", active.operation);
        return Err(refuse(Refusal::Conflict, detail));
    }
    active.state = NodeState::Active.into();
    set(turn, Key::Node(id), &active)?;
    Ok(done())
}
