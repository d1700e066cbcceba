//! A storage node, new or at another address.

use postrider_api::id::NodeId;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Node, Refusal, RemovedNode};

use crate::key::Key;
use crate::placement::{check_host_port, check_name, done, region, rules, set};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RegisterNode) -> Result<Made, Stop> {
    let node = command.node.as_ref().ok_or_else(|| malformed("node: is missing"))?;
    if node.id == 0 || node.address.is_empty() {
        return Err(malformed("node: an id above 0 and an address are wanted"));
    }
    check_host_port("node.address", &node.address)?;
    region(turn.rows, "node.region", &node.region)?;
    if !node.failure_domain.is_empty() {
        check_name("node.failure_domain", &node.failure_domain)?;
    }
    let id = NodeId(node.id);
    if row::get::<RemovedNode>(turn.rows, Key::RemovedNode(id))?.is_some() {
        let detail =
            format!("node {id} was removed: its id is never used again; give the node a new id and an empty directory");
        return Err(refuse(Refusal::NodeRemoved, detail));
    }
    rules::check_node(turn.rows, node)?;
    let known: Node = row::get(turn.rows, Key::Node(id))?.unwrap_or_default();
    // These it has from placement, or reports itself.
    let Node { state, operation, version_max, build, silent_since_ms, given_up_ms, .. } = known;
    let node = Node { state, operation, version_max, build, silent_since_ms, given_up_ms, ..node.clone() };
    set(turn, Key::Node(id), &node)?;
    Ok(done())
}
