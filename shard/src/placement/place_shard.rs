//! A shard, new or with other replicas or another home. The epoch is set here: it rises when the replicas change.

use postrider_api::id::ShardId;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Move, Refusal, Shard, ShardKind};

use crate::key::{Key, KeyRange, Table};
use crate::placement::{done, region, rules, set};
use crate::row;
use crate::store::{Direction, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};

/// Slots of a directory.
const SLOTS: u32 = 65_536;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::PlaceShard) -> Result<Made, Stop> {
    let wanted = command.shard.as_ref().ok_or_else(|| malformed("shard: is missing"))?;
    let id = ShardId(wanted.id);
    if id.kind().is_none_or(|kind| kind != wanted.kind()) {
        return Err(malformed(format!("shard.kind: the number {id} is of another kind")));
    }
    let home = region(turn.rows, "shard.home_region", &wanted.home_region)?;
    if !wanted.zone.is_empty() && wanted.zone != home.zone {
        return Err(malformed(format!("shard.zone: the home region is in zone {:?}", home.zone)));
    }
    let mut placed = Shard { zone: home.zone, epoch: 1, ..wanted.clone() };
    rules::check_replicas(turn.rows, "shard.replicas", &placed)?;
    if placed.kind() == ShardKind::Directory {
        check_slots(turn, &placed)?;
    } else if placed.slot_first != 0 || placed.slot_last != 0 {
        return Err(malformed("shard: only a directory shard has slots"));
    }
    let key = Key::Shards(id);
    if let Some(was) = row::get::<Shard>(turn.rows, key)? {
        if was.zone != placed.zone {
            return Err(refuse(
                Refusal::Conflict,
                format!("shard.zone: shard {id} is in zone {:?}, for ever", was.zone),
            ));
        }
        let moved = !same_members(&was.replicas, &placed.replicas);
        if moved && row::get::<Move>(turn.rows, Key::Move(id))?.is_some() {
            return Err(refuse(Refusal::Conflict, format!("shard {id}: a replica of it is moving")));
        }
        placed.epoch = was.epoch + u64::from(moved);
    }
    set(turn, key, &placed)?;
    Ok(done())
}

/// Within a zone each slot belongs to one directory shard.
fn check_slots(turn: &Turn<'_, impl Rows>, placed: &Shard) -> Result<(), Stop> {
    if placed.slot_first > placed.slot_last || placed.slot_last >= SLOTS {
        return Err(malformed("shard: slot_first to slot_last is a range within 0 to 65535"));
    }
    for found in turn.rows.scan(&KeyRange::table(Table::Shards), Direction::Forward) {
        let (key, value) = found?;
        let (_, other) = row::decode_row::<Shard>(key, value)?;
        let is_rival = other.kind() == ShardKind::Directory && other.id != placed.id && other.zone == placed.zone;
        if is_rival && other.slot_first <= placed.slot_last && placed.slot_first <= other.slot_last {
            let detail =
                format!("shard: slots {} to {} belong to shard {}", other.slot_first, other.slot_last, other.id);
            return Err(refuse(Refusal::Conflict, detail));
        }
    }
    Ok(())
}

fn same_members(a: &[u64], b: &[u64]) -> bool {
    a.len() == b.len() && a.iter().all(|node| b.contains(node))
}
