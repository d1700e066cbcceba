//! A region goes.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Node, Policy, Refusal, Region};

use crate::key::{Key, KeyRange, Table, name_hash};
use crate::placement::{done, remove, shards, sweep};
use crate::row;
use crate::store::{Direction, Rows};
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RemoveRegion) -> Result<Made, Stop> {
    let (name, key) = (&command.region, Key::Region(name_hash(&command.region)));
    let Some(region) = row::get::<Region>(turn.rows, key)? else { return Ok(done()) };
    for found in turn.rows.scan(&KeyRange::table(Table::Nodes), Direction::Forward) {
        let (key, value) = found?;
        let (_, node) = row::decode_row::<Node>(key, value)?;
        if node.region == *name {
            return Err(refuse(Refusal::Conflict, format!("region {name:?} has node {}: remove that first", node.id)));
        }
    }
    for placed in shards(turn.rows) {
        let placed = placed?;
        if placed.home_region == *name {
            let detail = format!("region {name:?} is home to shard {}: give it another home first", placed.id);
            return Err(refuse(Refusal::Conflict, detail));
        }
    }
    for found in turn.rows.scan(&KeyRange::table(Table::Policies), Direction::Forward) {
        let (key, value) = found?;
        let (_, policy) = row::decode_row::<Policy>(key, value)?;
        if policy.home == *name || policy.regions.contains(name) {
            let detail = format!("region {name:?} is one of policy {:?}: take it out there first", policy.name);
            return Err(refuse(Refusal::Conflict, detail));
        }
    }
    sweep::check_swept(turn.rows, &region.zone)?;
    remove(turn, key, name)?;
    Ok(done())
}
