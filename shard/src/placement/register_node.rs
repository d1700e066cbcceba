//! A storage node, new or at another address.

use postrider_api::id::NodeId;
use postrider_api::pb;
use postrider_api::pb::outcome::Result as Made;

use crate::key::Key;
use crate::placement::{check_host_port, check_name, done, region, rules, set};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed};

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
    rules::check_node(turn.rows, node)?;
    set(turn, Key::Node(NodeId(node.id)), node)?;
    Ok(done())
}
