//! The version that the operator wants the groups at.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Node, Refusal, Shard};
use postrider_api::version::or_initial;

use crate::key::{Key, KeyRange, Table};
use crate::placement::{changed, done};
use crate::row;
use crate::store::{Direction, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::SetVersion) -> Result<Made, Stop> {
    let version = command.version;
    if version == 0 {
        return Err(malformed("version: is missing"));
    }
    if version > or_initial(turn.state.target_version) {
        check_known(turn, version)?;
    } else {
        check_reached(turn, version)?;
    }
    if or_initial(turn.state.target_version) != version {
        turn.state.target_version = version;
        changed(turn, Key::Shard, "");
    }
    Ok(done())
}

/// A version that no node knows is a mistake in typing.
fn check_known(turn: &Turn<'_, impl Rows>, version: u32) -> Result<(), Stop> {
    let mut known = 0;
    for found in turn.rows.scan(&KeyRange::table(Table::Nodes), Direction::Forward) {
        let (key, value) = found?;
        known = known.max(or_initial(row::decode_row::<Node>(key, value)?.1.version_max));
    }
    if version > known {
        let detail = format!("version: no node has reported a build that knows {version}, the newest knows {known}");
        return Err(refuse(Refusal::VersionNotEnabled, detail));
    }
    Ok(())
}

/// A wish can be taken back as far as no group has followed it.
fn check_reached(turn: &Turn<'_, impl Rows>, version: u32) -> Result<(), Stop> {
    for found in turn.rows.scan(&KeyRange::table(Table::Shards), Direction::Forward) {
        let (key, value) = found?;
        let (_, shard) = row::decode_row::<Shard>(key, value)?;
        if shard.version > version {
            let detail = format!("version: shard {} is at {} already, and never goes back", shard.id, shard.version);
            return Err(refuse(Refusal::Conflict, detail));
        }
    }
    Ok(())
}
