//! Placement: the shard map and what changes it.
//!
//! A command that finds everything as it wants it changes nothing, and the map keeps its version: whoever carries on a
//! half-done step may give it again.

pub(crate) mod activate_node;
pub(crate) mod add_domain;
pub(crate) mod balance;
pub(crate) mod cancel_operation;
pub(crate) mod certificates;
pub(crate) mod dkim_keys;
pub(crate) mod drain_node;
pub(crate) mod finish_operation;
pub(crate) mod give_up_node;
pub(crate) mod map;
pub(crate) mod operation;
pub(crate) mod place_shard;
pub(crate) mod policy;
pub(crate) mod record_audit;
pub(crate) mod record_liveness;
pub(crate) mod record_step;
pub(crate) mod record_version;
pub(crate) mod register_node;
pub(crate) mod register_region;
pub(crate) mod remove_domain;
pub(crate) mod remove_node;
pub(crate) mod remove_region;
pub(crate) mod report_build;
mod rules;
pub(crate) mod set_home;
pub(crate) mod set_replicas;
pub(crate) mod set_version;
pub(crate) mod sweep;
pub(crate) mod update_region;
mod zones;

use bytes::Bytes;
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, MapChange, Node, Refusal, Region, RemovedNode, Shard};
use prost::Message;

use crate::key::{Key, KeyRange, Table, name_hash};
use crate::store::{Direction, Reader, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// A region's name and a zone's, bytes.
const NAME_BYTES_MAX: usize = 64;
/// host:port, bytes.
const HOST_PORT_BYTES_MAX: usize = 280;
/// Why an operation waits or was cancelled, bytes.
const REASON_BYTES_MAX: usize = 1024;
/// Versions of the map of which it is remembered what they changed: whoever knows an older one gets the whole map.
pub(crate) const MAP_CHANGES_MAX: u64 = 4096;

/// Sets a row of the map; its version rises when the row was another.
fn set<M: Message + Default + PartialEq>(turn: &mut Turn<'_, impl Rows>, key: Key, record: &M) -> Result<(), Broken> {
    if row::get::<M>(turn.rows, key)?.as_ref() != Some(record) {
        row::put(turn.rows, key, record);
        changed(turn, key, "");
    }
    Ok(())
}

/// Removes a row of the map; its version rises when there was one. `name`: of a region, a domain, a policy or a certificate.
fn remove(turn: &mut Turn<'_, impl Rows>, key: Key, name: &str) -> Result<(), Broken> {
    if turn.rows.get(&key.bytes())?.is_some() {
        row::delete(turn.rows, key);
        changed(turn, key, name);
    }
    Ok(())
}

/// The map has changed. What has is remembered for those who know a version that is not much older.
fn changed(turn: &mut Turn<'_, impl Rows>, key: Key, name: &str) {
    turn.state.map_version += 1;
    turn.map_changed = true;
    let change = MapChange { key: Bytes::copy_from_slice(key.bytes().as_ref()), name: name.to_owned() };
    row::put(turn.rows, Key::MapChange(turn.state.map_version), &change);
    if let Some(too_old) = turn.state.map_version.checked_sub(MAP_CHANGES_MAX) {
        row::delete(turn.rows, Key::MapChange(too_old));
    }
}

fn check_name(field: &str, name: &str) -> Result<(), Stop> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_plain {
        return Err(malformed(format!("{field}: 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'")));
    }
    Ok(())
}

fn check_host_port(field: &str, address: &str) -> Result<(), Stop> {
    if address.len() > HOST_PORT_BYTES_MAX || address.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(malformed(format!("{field}: at most {HOST_PORT_BYTES_MAX} bytes without spaces")));
    }
    Ok(())
}

/// The region of this name, which a command wants to be there.
fn region(reader: &impl Reader, field: &str, name: &str) -> Result<Region, Stop> {
    row::get(reader, Key::Region(name_hash(name)))?
        .ok_or_else(|| malformed(format!("{field}: region {name:?} is not registered")))
}

fn check_text(field: &str, text: &str, bytes_max: usize) -> Result<(), Stop> {
    if text.len() > bytes_max {
        return Err(malformed(format!("{field}: at most {bytes_max} bytes")));
    }
    Ok(())
}

/// The node that a command names.
fn node(reader: &impl Reader, id: NodeId) -> Result<Node, Stop> {
    if let Some(node) = row::get(reader, Key::Node(id))? {
        return Ok(node);
    }
    match row::get::<RemovedNode>(reader, Key::RemovedNode(id))? {
        Some(_) => Err(refuse(Refusal::NodeRemoved, format!("node {id} was removed"))),
        None => Err(refuse(Refusal::UnknownNode, format!("node {id} is not registered"))),
    }
}

fn same_members(a: &[u64], b: &[u64]) -> bool {
    a.len() == b.len() && a.iter().all(|node| b.contains(node))
}

/// All shards, by their numbers.
fn shards(reader: &impl Reader) -> impl Iterator<Item = Result<Shard, Broken>> {
    reader.scan(&KeyRange::table(Table::Shards), Direction::Forward).map(|found| {
        let (key, value) = found?;
        Ok(row::decode_row::<Shard>(key, value)?.1)
    })
}

/// The shard that a command names.
fn shard(reader: &impl Reader, id: u32) -> Result<Shard, Stop> {
    row::get(reader, Key::Shards(ShardId(id)))?
        .ok_or_else(|| refuse(Refusal::UnknownShard, format!("shard {id} is not placed")))
}

fn done() -> pb::outcome::Result {
    pb::outcome::Result::Done(pb::Done {})
}
