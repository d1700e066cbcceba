//! A new shard, whose group is there already or is to be made. What changes one that is there takes steps, and is an operation: see [`crate::placement::operation`].

use postrider_api::id::ShardId;
use postrider_api::pb::operation::Kind;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal, Shard, ShardKind};

use crate::key::Key;
use crate::placement::{done, operation, policy, region, rules, same_members, set, shards, sweep};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

/// Slots of a directory.
const SLOTS: u32 = 65_536;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::PlaceShard) -> Result<Made, Stop> {
    let wanted = command.shard.as_ref().ok_or_else(|| malformed("shard: is missing"))?;
    let id = ShardId(wanted.id);
    if id.kind().is_none_or(|kind| kind != wanted.kind()) {
        return Err(malformed(format!("shard.kind: the number {id} is of another kind")));
    }
    let key = Key::Shards(id);
    let was = row::get::<Shard>(turn.rows, key)?;
    let home = region(turn.rows, "shard.home_region", &wanted.home_region)?;
    if !wanted.zone.is_empty() && wanted.zone != home.zone {
        return Err(malformed(format!("shard.zone: the home region is in zone {:?}", home.zone)));
    }
    let version = was.as_ref().map_or(0, |was| was.version);
    let mut placed = Shard { zone: home.zone, epoch: 1, operation: 0, making: false, version, ..wanted.clone() };
    policy::check_of_zone(turn.rows, &placed.policy, &placed.zone)?;
    rules::check_replicas(turn.rows, "shard.replicas", &placed, &[])?;
    if placed.kind() == ShardKind::Directory {
        check_slots(turn, &placed)?;
    } else if placed.slot_first != 0 || placed.slot_last != 0 {
        return Err(malformed("shard: only a directory shard has slots"));
    }
    if let Some(was) = was {
        let known = Shard { epoch: 1, operation: 0, making: false, replicas: placed.replicas.clone(), ..was.clone() };
        if known != placed || !same_members(&was.replicas, &placed.replicas) {
            let detail =
                format!("shard {id} is placed, in another form: give it other replicas or another home instead");
            return Err(refuse(Refusal::Conflict, detail));
        }
        return Ok(if was.making { operation::begun(was.operation) } else { done() });
    }
    if placed.kind() == ShardKind::Mailbox {
        sweep::check_new_shard(turn.rows, &placed.zone)?;
    }
    if command.make {
        if placed.incarnation == 0 {
            return Err(malformed("shard.incarnation: one that is drawn by chance, where the group is to be made"));
        }
        placed.operation = operation::begin(turn, Kind::MakeShard(pb::MakeShard { shard: placed.id }), String::new())?;
        placed.making = true;
    }
    set(turn, key, &placed)?;
    Ok(if placed.making { operation::begun(placed.operation) } else { done() })
}

/// Within a zone each slot belongs to one directory shard.
fn check_slots(turn: &Turn<'_, impl Rows>, placed: &Shard) -> Result<(), Stop> {
    if placed.slot_first > placed.slot_last || placed.slot_last >= SLOTS {
        return Err(malformed("shard: slot_first to slot_last is a range within 0 to 65535"));
    }
    for other in shards(turn.rows) {
        let other = other?;
        let is_rival = other.kind() == ShardKind::Directory && other.id != placed.id && other.zone == placed.zone;
        if is_rival && other.slot_first <= placed.slot_last && placed.slot_first <= other.slot_last {
            let detail =
                format!("shard: slots {} to {} belong to shard {}", other.slot_first, other.slot_last, other.id);
            return Err(refuse(Refusal::Conflict, detail));
        }
    }
    Ok(())
}
