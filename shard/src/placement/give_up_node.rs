//! A node has been silent for so long that its replicas are made elsewhere. It stays registered: should it answer again, it is told, gives up
//! what was made elsewhere, and takes part again.

use postrider_api::id::NodeId;
use postrider_api::limit::NODE_SILENT_MS_MIN;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Node, Refusal};

use crate::key::Key;
use crate::placement::{done, node, set};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::GiveUpNode) -> Result<Made, Stop> {
    if command.after_ms < NODE_SILENT_MS_MIN {
        return Err(malformed(format!("after_ms: at least {NODE_SILENT_MS_MIN}")));
    }
    let id = NodeId(command.node);
    let silent = node(turn.rows, id)?;
    if silent.silent_since_ms == 0 || silent.silent_since_ms != command.silent_since_ms {
        let since = match silent.silent_since_ms {
            0 => "answers".to_owned(),
            since => format!("is silent since {since} ms"),
        };
        return Err(refuse(Refusal::Conflict, format!("node {id} {since}")));
    }
    if turn.now.saturating_sub(silent.silent_since_ms) < command.after_ms {
        let detail = format!("node {id} is not silent for {} ms yet", command.after_ms);
        return Err(refuse(Refusal::Conflict, detail));
    }
    if silent.given_up_ms == 0 {
        set(turn, Key::Node(id), &Node { given_up_ms: turn.now, ..silent })?;
    }
    Ok(done())
}
