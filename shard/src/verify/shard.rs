//! What belongs to no single user: the queue, dedup, the tail of changes, the directory, the map.

use postrider_api::id::{NodeId, ShardId, UserId};
use postrider_api::pb::{AddressRecord, DedupRecord, Move, Node, QueueRecord, Region, Shard, ShardRecord};
use prost::Message;

use crate::key::{Key, KeyRange, Table, name_hash};
use crate::queue::settle::body_of;
use crate::store::{Direction, Reader};
use crate::verify::bodies::References;
use crate::verify::ledger::Ledger;
use crate::{Broken, row};

pub(crate) fn verify(
    reader: &impl Reader,
    state: &ShardRecord,
    users: u64,
    references: &mut References,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    if reader.get(&Key::Shard.bytes())?.is_some() {
        ledger.expect(Table::Shard, 1);
    }
    ledger.compare(Key::Shard, "users", state.users, users);
    queue(reader, state, references, ledger)?;
    dedup(reader, ledger)?;
    tail(reader, state, ledger)?;
    directory(reader, ledger)?;
    map(reader, ledger)
}

/// Every record of a table, with its key.
fn each<M: Message + Default>(
    reader: &impl Reader,
    table: Table,
    mut visit: impl FnMut(Key, M) -> Result<(), Broken>,
) -> Result<(), Broken> {
    for found in reader.scan(&KeyRange::table(table), Direction::Forward) {
        let (key, value) = found?;
        let (key, record) = row::decode_row::<M>(key, value)?;
        visit(key, record)?;
    }
    Ok(())
}

/// A row whose key says everything must be there.
fn expect_index(reader: &impl Reader, key: Key, ledger: &mut Ledger) -> Result<(), Broken> {
    ledger.expect(key.table(), 1);
    if reader.get(&key.bytes())?.is_none() {
        ledger.at(key, "is missing");
    }
    Ok(())
}

fn queue(
    reader: &impl Reader,
    state: &ShardRecord,
    references: &mut References,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    each::<QueueRecord>(reader, Table::Queue, |key, record| {
        let Key::Queue(entry) = key else { return Ok(()) };
        ledger.expect(Table::Queue, 1);
        ledger.compare(key, "entry", record.entry, entry.0);
        if entry.0 > state.entry_last {
            ledger.at(key, format!("is later than entry_last, {}", state.entry_last));
        }
        if record.pending.is_empty() {
            ledger.at(key, "nobody waits in it");
        }
        references.add(body_of(key, &record)?);
        expect_index(reader, Key::QueueDue(record.due_ms, entry), ledger)
    })
}

fn dedup(reader: &impl Reader, ledger: &mut Ledger) -> Result<(), Broken> {
    each::<DedupRecord>(reader, Table::Dedup, |key, record| {
        let Key::Dedup(request) = key else { return Ok(()) };
        ledger.expect(Table::Dedup, 1);
        expect_index(reader, Key::DedupExpiry(record.expires_at_ms, request), ledger)
    })?;
    each::<DedupRecord>(reader, Table::Transfers, |key, record| {
        ledger.expect(Table::Transfers, 1);
        ledger.compare(key, "expires_at_ms", record.expires_at_ms, 0);
        Ok(())
    })
}

fn tail(reader: &impl Reader, state: &ShardRecord, ledger: &mut Ledger) -> Result<(), Broken> {
    for found in reader.scan(&KeyRange::table(Table::Tail), Direction::Forward) {
        let key @ Key::Tail(index, _) = Key::decode(found?.0.as_ref())? else { continue };
        ledger.expect(Table::Tail, 1);
        if index < state.tail_floor {
            ledger.at(key, format!("stands below the floor, {}", state.tail_floor));
        }
    }
    Ok(())
}

fn directory(reader: &impl Reader, ledger: &mut Ledger) -> Result<(), Broken> {
    each::<AddressRecord>(reader, Table::Addresses, |key, record| {
        let Key::Address(hash) = key else { return Ok(()) };
        ledger.expect(Table::Addresses, 1);
        if name_hash(&record.address) != hash {
            ledger.at(key, "is not the hash of the address in it");
        }
        expect_index(reader, Key::UserAddress(row::id::<UserId>(key, &record.user_id)?, hash), ledger)
    })
}

fn map(reader: &impl Reader, ledger: &mut Ledger) -> Result<(), Broken> {
    each::<Region>(reader, Table::Regions, |key, region| {
        ledger.expect(Table::Regions, 1);
        ledger.compare(key, "name", Key::Region(name_hash(&region.name)), key);
        Ok(())
    })?;
    each::<Node>(reader, Table::Nodes, |key, node| {
        ledger.expect(Table::Nodes, 1);
        ledger.compare(key, "id", Key::Node(NodeId(node.id)), key);
        need_region(reader, key, &node.region, ledger)
    })?;
    each::<Shard>(reader, Table::Shards, |key, shard| {
        ledger.expect(Table::Shards, 1);
        ledger.compare(key, "id", Key::Shards(ShardId(shard.id)), key);
        for node in &shard.replicas {
            if reader.get(&Key::Node(NodeId(*node)).bytes())?.is_none() {
                ledger.at(key, format!("replica {node} is no registered node"));
            }
        }
        need_region(reader, key, &shard.home_region, ledger)
    })?;
    each::<Move>(reader, Table::Moves, |key, running| {
        ledger.expect(Table::Moves, 1);
        let shard: Option<Shard> = row::get(reader, Key::Shards(ShardId(running.shard)))?;
        if !shard.is_some_and(|shard| shard.replicas.contains(&running.from)) {
            ledger.at(key, "moves a replica that the shard does not have");
        }
        Ok(())
    })?;
    each::<postrider_api::pb::DomainRecord>(reader, Table::Domains, |key, record| {
        ledger.expect(Table::Domains, 1);
        ledger.compare(key, "domain", Key::Domain(name_hash(&record.domain)), key);
        Ok(())
    })
}

fn need_region(reader: &impl Reader, key: Key, name: &str, ledger: &mut Ledger) -> Result<(), Broken> {
    if reader.get(&Key::Region(name_hash(name)).bytes())?.is_none() {
        ledger.at(key, "its region is not registered");
    }
    Ok(())
}
