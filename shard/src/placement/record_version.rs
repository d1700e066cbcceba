//! A shard's group is about to be raised. It is recorded first: from here on no node with an older build becomes a member, so
//! that none is one when the group's own log raises the version.

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::operation::Kind;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Operation, Refusal, Shard};
use postrider_api::version::or_initial;

use crate::key::Key;
use crate::placement::{done, node, rules, set, shard};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RecordVersion) -> Result<Made, Stop> {
    let placed = shard(turn.rows, command.shard)?;
    let (id, version) = (ShardId(command.shard), command.version);
    if version < or_initial(placed.version) {
        let detail = format!("version: shard {id} is at {}, and never goes back", or_initial(placed.version));
        return Err(refuse(Refusal::Conflict, detail));
    }
    if version > or_initial(turn.state.target_version) {
        let detail = format!("version: the cluster's is {}", or_initial(turn.state.target_version));
        return Err(refuse(Refusal::VersionNotEnabled, detail));
    }
    let running = row::get::<Operation>(turn.rows, Key::Operation(placed.operation))?;
    let coming = match running.and_then(|running| running.kind) {
        Some(Kind::SetReplicas(wanted)) => wanted.replicas,
        _ => Vec::new(),
    };
    for member in placed.replicas.iter().copied().chain(coming) {
        rules::check_version(&node(turn.rows, NodeId(member))?, version)?;
    }
    set(turn, Key::Shards(id), &Shard { version, ..placed })?;
    Ok(done())
}
