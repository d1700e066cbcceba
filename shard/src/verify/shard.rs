//! What belongs to no single user: dedup, the tail of changes, the directory, the map.

use std::collections::BTreeMap;

use postrider_api::id::{EmailId, NodeId, ShardId, UserId};
use postrider_api::limit::ADDRESS_QUARANTINE_MS;
use postrider_api::pb::operation::Kind;
use postrider_api::pb::{
    self, AccountRecord, AcmeRecord, AddressRecord, AddressStatus, AuditRecord, DedupRecord, DomainRecord, MapChange,
    Node, Operation, Outcome, Policy, PublicCertificate, Region, RemovedNode, SentRecord, Shard, ShardRecord,
    SuppressionCount, SuppressionRecord, Sweep, TailRecord, TransferRecord, Zone,
};
use postrider_api::version::or_initial;
use prost::Message;

use crate::key::{DomainHash, Key, KeyRange, Table, name_hash};
use crate::placement::{MAP_CHANGES_MAX, operation};
use crate::store::{Direction, Reader};
use crate::tail::{Object, Verb};
use crate::verify::bodies::References;
use crate::verify::ledger::Ledger;
use crate::verify::queue;
use crate::{Broken, row, tail};

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
    queue::verify(reader, state, references, ledger)?;
    dedup(reader, state, ledger)?;
    sent(reader, state, ledger)?;
    tail(reader, state, ledger)?;
    directory(reader, ledger)?;
    audit(reader, state, ledger)?;
    map(reader, state, ledger)
}

/// Every record of a table, with its key; each is accounted for.
pub(crate) fn each<M: Message + Default>(
    reader: &impl Reader,
    table: Table,
    ledger: &mut Ledger,
    mut visit: impl FnMut(Key, M, &mut Ledger) -> Result<(), Broken>,
) -> Result<(), Broken> {
    for found in reader.scan(&KeyRange::table(table), Direction::Forward) {
        let (key, value) = found?;
        ledger.expect(table, 1);
        let visited = row::decode_row::<M>(key, value).and_then(|(key, record)| visit(key, record, ledger));
        ledger.note(visited)?;
    }
    Ok(())
}

/// A row whose key says everything must be there.
pub(crate) fn expect_index(reader: &impl Reader, key: Key, ledger: &mut Ledger) -> Result<(), Broken> {
    ledger.expect(key.table(), 1);
    if reader.get(&key.bytes())?.is_none() {
        ledger.at(key, "is missing");
    }
    Ok(())
}

fn dedup(reader: &impl Reader, state: &ShardRecord, ledger: &mut Ledger) -> Result<(), Broken> {
    // What stands at or before the time that was trimmed is never looked at again.
    let stays = |key: Key, expires_at_ms: i64, trimmed_ms: i64, ledger: &mut Ledger| {
        if expires_at_ms <= trimmed_ms {
            ledger.at(key, format!("expires at {expires_at_ms}, and was not trimmed by {trimmed_ms}"));
        }
    };
    each::<DedupRecord>(reader, Table::Dedup, ledger, |key, record, ledger| {
        let Key::Dedup(request) = key else { return Ok(()) };
        stays(key, record.expires_at_ms, state.dedup_trimmed_ms, ledger);
        expect_index(reader, Key::DedupExpiry(record.expires_at_ms, request), ledger)?;
        let outcome: Outcome = row::decode(key, record.outcome)?;
        match outcome.result {
            Some(_) => Ok(()),
            None => Err(Broken::corrupt(key, "its outcome says nothing")),
        }
    })?;
    each::<TransferRecord>(reader, Table::Transfers, ledger, |key, record, ledger| {
        let Key::Transfer(request) = key else { return Ok(()) };
        stays(key, record.expires_at_ms, state.transfers_trimmed_ms, ledger);
        expect_index(reader, Key::TransferExpiry(record.expires_at_ms, request), ledger)?;
        let delivery = record.delivery.ok_or_else(|| Broken::corrupt(key, "holds no delivery"))?;
        row::id::<UserId>(key, &delivery.user_id)?;
        row::id::<EmailId>(key, &delivery.email_id)?;
        Ok(())
    })
}

fn sent(reader: &impl Reader, state: &ShardRecord, ledger: &mut Ledger) -> Result<(), Broken> {
    each::<SentRecord>(reader, Table::SentMessages, ledger, |key, record, ledger| {
        let Key::SentMessage(user, entry) = key else { return Ok(()) };
        if record.expires_at_ms <= state.sent_trimmed_ms {
            let (expires, trimmed) = (record.expires_at_ms, state.sent_trimmed_ms);
            ledger.at(key, format!("expires at {expires}, and was not trimmed by {trimmed}"));
        }
        if reader.get(&Key::Sending(user).bytes())?.is_none() {
            ledger.at(key, "is not counted: its sender has no row in sending");
        }
        expect_index(reader, Key::SentExpiry(record.expires_at_ms, user, entry), ledger)
    })
}

fn tail(reader: &impl Reader, state: &ShardRecord, ledger: &mut Ledger) -> Result<(), Broken> {
    let mut bytes = 0;
    // Changes of one command, and often of many, are one user's.
    let mut last: Option<(UserId, Option<u64>)> = None;
    for found in reader.scan(&KeyRange::table(Table::Tail), Direction::Forward) {
        let (key, value) = found?;
        ledger.expect(Table::Tail, 1);
        bytes += tail::row_bytes(key.as_ref(), &value);
        let read = row::decode_row::<TailRecord>(key, value).and_then(|(key, record)| {
            let change = tail::change(key, &record)?;
            Ok((key, change))
        });
        let Some((key, change)) = ledger.note(read)? else { continue };
        if change.index < state.tail_floor {
            ledger.at(key, format!("stands below the floor, {}", state.tail_floor));
        }
        let (user, has_modseq) = match change.object {
            // What goes with its account is in no change feed any more.
            Object::Message(user, _) | Object::Folder(user, _) | Object::Label(user, _) => {
                (user, change.verb != Verb::Deleted)
            }
            Object::Account(user) | Object::Session(user, _) => (user, false),
            Object::QueueEntry(_) | Object::FailedEntry(_) | Object::Blob(_) | Object::Address(..) => continue,
        };
        let newest = match last {
            Some((known, newest)) if known == user => newest,
            _ => {
                let account = row::get::<AccountRecord>(reader, Key::Account(user));
                ledger.note(account)?.flatten().map(|account| account.modseq)
            }
        };
        last = Some((user, newest));
        match newest {
            // What followers have not seen yet of an account that was deleted.
            None if reader.get(&Key::DeletedUser(user).bytes())?.is_some() => {}
            None => ledger.at(key, format!("is a change of user {user}, who has no mailbox here")),
            Some(newest) if (has_modseq && change.modseq.0 == 0) || change.modseq.0 > newest => {
                ledger.at(key, format!("is change {} of a user whose newest is {newest}", change.modseq));
            }
            Some(_) => {}
        }
    }
    ledger.compare(Key::Shard, "tail_bytes", state.tail_bytes, bytes);
    Ok(())
}

fn directory(reader: &impl Reader, ledger: &mut Ledger) -> Result<(), Broken> {
    let mut counted = BTreeMap::<DomainHash, u64>::new();
    each::<SuppressionRecord>(reader, Table::DomainSuppressions, ledger, |key, record, ledger| {
        let Key::DomainSuppression(domain, address) = key else { return Ok(()) };
        ledger.compare(key, "address", name_hash(&record.address.to_lowercase()), address);
        *counted.entry(domain).or_default() += 1;
        Ok(())
    })?;
    each::<SuppressionCount>(reader, Table::DomainSuppressionCounts, ledger, |key, record, ledger| {
        let Key::DomainSuppressionCount(domain) = key else { return Ok(()) };
        ledger.compare(key, "addresses", record.addresses, counted.remove(&domain).unwrap_or_default());
        Ok(())
    })?;
    for domain in counted.into_keys() {
        ledger.at(Key::DomainSuppressionCount(domain), "is missing");
    }
    each::<AddressRecord>(reader, Table::Addresses, ledger, |key, record, ledger| {
        let Key::Address(hash) = key else { return Ok(()) };
        if record.status() == AddressStatus::Quarantined {
            let expires_at_ms = record.reserved_ms.saturating_add(ADDRESS_QUARANTINE_MS);
            expect_index(reader, Key::QuarantineExpiry(expires_at_ms, hash), ledger)?;
            if !record.address.is_empty() {
                ledger.at(key, "is the address of a deleted account, and still says which");
            }
        } else if name_hash(&record.address) != hash {
            ledger.at(key, "is not the hash of the address in it");
        }
        expect_index(reader, Key::UserAddress(row::id::<UserId>(key, &record.user_id)?, hash), ledger)
    })
}

/// The log has no gap: what was written stands there until it is too old or one too many.
fn audit(reader: &impl Reader, state: &ShardRecord, ledger: &mut Ledger) -> Result<(), Broken> {
    let mut records = 0;
    each::<AuditRecord>(reader, Table::Audit, ledger, |key, record, ledger| {
        let Key::Audit(sequence) = key else { return Ok(()) };
        records += 1;
        ledger.compare(key, "sequence", record.sequence, sequence);
        if sequence <= state.audit_floor || sequence > state.audit_last {
            ledger.at(
                key,
                format!("is not between audit_floor {} and audit_last {}", state.audit_floor, state.audit_last),
            );
        }
        Ok(())
    })?;
    ledger.compare(Key::Shard, "audit records", state.audit_last.saturating_sub(state.audit_floor), records);
    Ok(())
}

fn map(reader: &impl Reader, state: &ShardRecord, ledger: &mut Ledger) -> Result<(), Broken> {
    each::<Region>(reader, Table::Regions, ledger, |key, region, ledger| {
        ledger.compare(key, "name", Key::Region(name_hash(&region.name)), key);
        need_zone(reader, key, &region.zone, ledger)
    })?;
    each::<Zone>(reader, Table::Zones, ledger, |key, zone, ledger| {
        ledger.compare(key, "name", Key::Zone(name_hash(&zone.name)), key);
        Ok(())
    })?;
    each::<Node>(reader, Table::Nodes, ledger, |key, node, ledger| {
        ledger.compare(key, "id", Key::Node(NodeId(node.id)), key);
        need_operation(reader, key, node.operation, ledger)?;
        need_region(reader, key, &node.region, ledger)
    })?;
    each::<Shard>(reader, Table::Shards, ledger, |key, shard, ledger| {
        ledger.compare(key, "id", Key::Shards(ShardId(shard.id)), key);
        for node in &shard.replicas {
            let known: Option<Node> = row::get(reader, Key::Node(NodeId(*node)))?;
            match known {
                None => ledger.at(key, format!("replica {node} is no registered node")),
                Some(known) if or_initial(known.version_max) < shard.version => {
                    ledger.at(key, format!("is at version {}, which node {node} does not know", shard.version));
                }
                Some(_) => {}
            }
        }
        need_operation(reader, key, shard.operation, ledger)?;
        if shard.version > or_initial(state.target_version) {
            ledger.at(key, format!("is at version {}, which nobody has asked for", shard.version));
        }
        need_policy(reader, key, &shard.policy, ledger)?;
        need_region(reader, key, &shard.home_region, ledger)
    })?;
    each::<Policy>(reader, Table::Policies, ledger, |key, policy, ledger| {
        ledger.compare(key, "name", Key::Policy(name_hash(&policy.name)), key);
        need_zone(reader, key, &policy.zone, ledger)
    })?;
    each::<AcmeRecord>(reader, Table::Acme, ledger, |_, _, _| Ok(()))?;
    each::<PublicCertificate>(reader, Table::PublicCertificates, ledger, |key, certificate, ledger| {
        ledger.compare(key, "name", Key::PublicCertificate(name_hash(&certificate.name)), key);
        ledger.compare(key, "name", certificate.names.first(), Some(&certificate.name));
        Ok(())
    })?;
    each::<Operation>(reader, Table::Operations, ledger, |key, operation, ledger| {
        ledger.compare(key, "id", Key::Operation(operation.id), key);
        let named = match &operation.kind {
            _ if operation::has_ended(&operation) => return Ok(()),
            Some(
                Kind::SetReplicas(pb::SetReplicas { shard, .. })
                | Kind::SetHome(pb::SetHome { shard, .. })
                | Kind::MakeShard(pb::MakeShard { shard }),
            ) => row::get::<Shard>(reader, Key::Shards(ShardId(*shard)))?.map(|shard| shard.operation),
            Some(Kind::DrainNode(drain)) => {
                row::get::<Node>(reader, Key::Node(NodeId(drain.node)))?.map(|node| node.operation)
            }
            // It changes nothing by itself.
            Some(Kind::Balance(_)) => Some(operation.id),
            None => None,
        };
        if named != Some(operation.id) {
            ledger.at(key, format!("runs, and what it changes names operation {named:?}"));
        }
        Ok(())
    })?;
    each::<MapChange>(reader, Table::MapChanges, ledger, |key, change, ledger| {
        let Key::MapChange(version) = key else { return Ok(()) };
        if version > state.map_version || version + MAP_CHANGES_MAX <= state.map_version {
            ledger.at(key, format!("is kept, and the map has version {}", state.map_version));
        }
        Key::decode(&change.key).map(|_| ()).map_err(|error| Broken::corrupt(key, error.to_string()))
    })?;
    each::<RemovedNode>(reader, Table::RemovedNodes, ledger, |key, removed, ledger| {
        ledger.compare(key, "id", Key::RemovedNode(NodeId(removed.id)), key);
        if reader.get(&Key::Node(NodeId(removed.id)).bytes())?.is_some() {
            ledger.at(key, "is registered again");
        }
        Ok(())
    })?;
    each::<Sweep>(reader, Table::Sweeps, ledger, |key, sweep, ledger| {
        ledger.compare(key, "zone", Key::Sweep(name_hash(&sweep.zone)), key);
        Ok(())
    })?;
    each::<DomainRecord>(reader, Table::Domains, ledger, |key, record, ledger| {
        ledger.compare(key, "domain", Key::Domain(name_hash(&record.domain)), key);
        need_policy(reader, key, &record.policy, ledger)?;
        need_zone(reader, key, &record.zone, ledger)
    })
}

fn need_policy(reader: &impl Reader, key: Key, name: &str, ledger: &mut Ledger) -> Result<(), Broken> {
    if !name.is_empty() && reader.get(&Key::Policy(name_hash(name)).bytes())?.is_none() {
        ledger.at(key, format!("its policy {name:?} is not there"));
    }
    Ok(())
}

fn need_zone(reader: &impl Reader, key: Key, name: &str, ledger: &mut Ledger) -> Result<(), Broken> {
    if reader.get(&Key::Zone(name_hash(name)).bytes())?.is_none() {
        ledger.at(key, "its zone is not registered");
    }
    Ok(())
}

fn need_operation(reader: &impl Reader, key: Key, id: u64, ledger: &mut Ledger) -> Result<(), Broken> {
    let named: Option<Operation> = if id == 0 { return Ok(()) } else { row::get(reader, Key::Operation(id))? };
    if named.is_none_or(|operation| operation::has_ended(&operation)) {
        ledger.at(key, format!("names operation {id}, which does not run"));
    }
    Ok(())
}

fn need_region(reader: &impl Reader, key: Key, name: &str, ledger: &mut Ledger) -> Result<(), Broken> {
    if reader.get(&Key::Region(name_hash(name)).bytes())?.is_none() {
        ledger.at(key, "its region is not registered");
    }
    Ok(())
}
