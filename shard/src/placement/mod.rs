//! Placement: the shard map and what changes it.
//!
//! A command that finds everything as it wants it changes nothing, and the map keeps its version: whoever carries on a
//! half-done step may give it again.

pub(crate) mod add_domain;
pub(crate) mod finish_move;
pub(crate) mod map;
pub(crate) mod place_shard;
pub(crate) mod record_audit;
pub(crate) mod record_move;
pub(crate) mod register_node;
pub(crate) mod register_region;
mod rules;
mod zones;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, Node, Refusal, Region, Shard};
use prost::Message;

use crate::key::{Key, name_hash};
use crate::store::{Reader, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// A region's name and a zone's, bytes.
const NAME_BYTES_MAX: usize = 64;
/// host:port, bytes.
const HOST_PORT_BYTES_MAX: usize = 280;

/// Sets a row of the map; its version rises when the row was another.
fn set<M: Message + Default + PartialEq>(turn: &mut Turn<'_, impl Rows>, key: Key, record: &M) -> Result<(), Broken> {
    if row::get::<M>(turn.rows, key)?.as_ref() != Some(record) {
        row::put(turn.rows, key, record);
        changed(turn);
    }
    Ok(())
}

/// The map has changed.
fn changed(turn: &mut Turn<'_, impl Rows>) {
    turn.state.map_version += 1;
    turn.map_changed = true;
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

fn check_node(reader: &impl Reader, node: NodeId) -> Result<(), Stop> {
    match row::get::<Node>(reader, Key::Node(node))? {
        Some(_) => Ok(()),
        None => Err(refuse(Refusal::UnknownNode, format!("node {node} is not registered"))),
    }
}

/// The shard that a command names.
fn shard(reader: &impl Reader, id: u32) -> Result<Shard, Stop> {
    row::get(reader, Key::Shards(ShardId(id)))?
        .ok_or_else(|| refuse(Refusal::UnknownShard, format!("shard {id} is not placed")))
}

fn done() -> pb::outcome::Result {
    pb::outcome::Result::Done(pb::Done {})
}
