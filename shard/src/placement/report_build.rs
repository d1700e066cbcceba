//! What a node's build knows, in the node's own words.

use postrider_api::id::NodeId;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Node, Refusal, Shard};
use postrider_api::version::or_initial;

use crate::key::{Key, KeyRange, Table};
use crate::placement::{done, node, set};
use crate::row;
use crate::store::{Direction, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};

/// The name of a build, bytes.
const BUILD_BYTES_MAX: usize = 64;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ReportBuild) -> Result<Made, Stop> {
    if command.version_max == 0 {
        return Err(malformed("version_max: is missing"));
    }
    if command.build.len() > BUILD_BYTES_MAX {
        return Err(malformed(format!("build: at most {BUILD_BYTES_MAX} bytes")));
    }
    let id = NodeId(command.node);
    let known = node(turn.rows, id)?;
    // No shard is at a newer version than the operator has asked for, so a build that knows that one needs no search.
    if command.version_max < or_initial(turn.state.target_version) {
        check_shards(turn, id, command.version_max)?;
    }
    set(turn, Key::Node(id), &Node { version_max: command.version_max, build: command.build.clone(), ..known })?;
    Ok(done())
}

/// A node that was rolled back behind what its shards are at must not pass for one that knows it.
fn check_shards(turn: &Turn<'_, impl Rows>, id: NodeId, version_max: u32) -> Result<(), Stop> {
    for found in turn.rows.scan(&KeyRange::table(Table::Shards), Direction::Forward) {
        let (key, value) = found?;
        let (_, shard) = row::decode_row::<Shard>(key, value)?;
        if shard.version > version_max && shard.replicas.contains(&id.0) {
            let detail = format!(
                "version_max: shard {} with a replica on node {id} is at version {}, the build knows up to {version_max}",
                shard.id, shard.version
            );
            return Err(refuse(Refusal::Conflict, detail));
        }
    }
    Ok(())
}
