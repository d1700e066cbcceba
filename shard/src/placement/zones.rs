//! Residency zones and their numbers.
//!
//! Invariant: a number is given once. It stands in the ids of the zone's users, so a zone is never removed, also when its last
//! region is.

use postrider_api::id::ZoneId;
use postrider_api::pb::{Refusal, Zone};

use crate::key::{Key, KeyRange, Table, name_hash};
use crate::placement::set;
use crate::row;
use crate::store::{Direction, Reader, Rows};
use crate::turn::{Stop, Turn, refuse};

/// The zone of this name, with a number of its own when it is new.
pub(crate) fn register(turn: &mut Turn<'_, impl Rows>, name: &str) -> Result<(), Stop> {
    let key = Key::Zone(name_hash(name));
    if row::get::<Zone>(turn.rows, key)?.is_some() {
        return Ok(());
    }
    let mut last = 0;
    for found in turn.rows.scan(&KeyRange::table(Table::Zones), Direction::Forward) {
        let (key, value) = found?;
        last = last.max(row::decode_row::<Zone>(key, value)?.1.id);
    }
    let id = last + 1;
    if id > u32::from(ZoneId::LAST.0) {
        return Err(refuse(Refusal::Conflict, format!("region.zone: there are {last} zones, which is the most")));
    }
    set(turn, key, &Zone { name: name.to_owned(), id })?;
    Ok(())
}

/// Refused where there is no such zone.
pub(crate) fn check(reader: &impl Reader, field: &str, name: &str) -> Result<(), Stop> {
    match row::get::<Zone>(reader, Key::Zone(name_hash(name)))? {
        Some(_) => Ok(()),
        None => Err(refuse(Refusal::Conflict, format!("{field}: no region is in a zone {name:?}"))),
    }
}
