//! The shard map as routers hold it: the whole of it, or what has changed since a version that they know.

use std::collections::BTreeMap;

use postrider_api::pb::answer::Answer;
use postrider_api::pb::map_update::Update;
use postrider_api::pb::{
    AcmeRecord, Domain, DomainRecord, GetShardMap, MapChange, MapDelta, MapUpdate, Node, Operation, Policy,
    PublicCertificate, Region, Shard, ShardMap, ShardRecord, Zone,
};
use prost::Message;

use crate::Broken;
use crate::key::{Key, KeyRange, Table};
use crate::placement::operation;
use crate::query::QueryError;
use crate::row;
use crate::store::{Direction, Reader};

/// What has changed since the version that the caller knows; the whole where that is too old, or none that this replica has.
pub(crate) fn answer(reader: &impl Reader, state: &ShardRecord, query: &GetShardMap) -> Result<Answer, QueryError> {
    let update = match delta(reader, state, query.known_version)? {
        Some(delta) => Update::Delta(delta),
        None => Update::Whole(whole(reader, state)?),
    };
    Ok(Answer::ShardMap(MapUpdate { update: Some(update) }))
}

fn whole(reader: &impl Reader, state: &ShardRecord) -> Result<ShardMap, Broken> {
    let mut regions: Vec<Region> = all(reader, Table::Regions)?;
    // They stand by the hash of their names.
    regions.sort_by(|a, b| a.name.cmp(&b.name));
    let records: Vec<DomainRecord> = all(reader, Table::Domains)?;
    let mut domains: Vec<Domain> = records.into_iter().filter(|record| !record.removed).map(domain).collect();
    domains.sort_by(|a, b| a.name.cmp(&b.name));
    let mut zones: Vec<Zone> = all(reader, Table::Zones)?;
    zones.sort_by_key(|zone| zone.id);
    let mut policies: Vec<Policy> = all(reader, Table::Policies)?;
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    let mut public_certificates: Vec<PublicCertificate> = all(reader, Table::PublicCertificates)?;
    public_certificates.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(ShardMap {
        version: state.map_version,
        regions,
        nodes: all(reader, Table::Nodes)?,
        shards: all(reader, Table::Shards)?,
        domains,
        operations: running(reader)?,
        zones,
        policies,
        public_certificates,
        acme: row::get::<AcmeRecord>(reader, Key::Acme)?,
        target_version: state.target_version,
    })
}

fn delta(reader: &impl Reader, state: &ShardRecord, known: u64) -> Result<Option<MapDelta>, Broken> {
    if known == 0 || known > state.map_version {
        return Ok(None);
    }
    let target_version = state.target_version;
    let changed = ShardMap { version: state.map_version, target_version, ..Default::default() };
    let mut delta = MapDelta { from_version: known, changed: Some(changed), ..Default::default() };
    let mut next = known + 1;
    let mut rows: BTreeMap<Vec<u8>, (Key, String)> = BTreeMap::new();
    for found in reader.scan(&KeyRange::map_changes(known), Direction::Forward) {
        let (at, value) = found?;
        let (at, change) = row::decode_row::<MapChange>(at, value)?;
        if at != Key::MapChange(next) {
            // What comes between is forgotten.
            return Ok(None);
        }
        next += 1;
        let key = Key::decode(&change.key).map_err(|error| Broken::corrupt(at, error.to_string()))?;
        let name = rows.entry(change.key.to_vec()).or_insert_with(|| (key, String::new()));
        if !change.name.is_empty() {
            name.1 = change.name;
        }
    }
    if next != state.map_version + 1 {
        return Ok(None);
    }
    for (key, name) in rows.into_values() {
        add(reader, key, name, &mut delta)?;
    }
    Ok(Some(delta))
}

/// Adds to the delta how a row of the map is now.
fn add(reader: &impl Reader, key: Key, name: String, delta: &mut MapDelta) -> Result<(), Broken> {
    let changed = delta.changed.get_or_insert_default();
    match key {
        Key::Region(_) => match row::get::<Region>(reader, key)? {
            Some(region) => changed.regions.push(region),
            None => delta.regions_gone.push(name),
        },
        Key::Node(id) => match row::get::<Node>(reader, key)? {
            Some(node) => changed.nodes.push(node),
            None => delta.nodes_gone.push(id.0),
        },
        Key::Domain(_) => match row::get::<DomainRecord>(reader, key)? {
            Some(record) if !record.removed => changed.domains.push(domain(record)),
            _ => delta.domains_gone.push(name),
        },
        Key::Policy(_) => match row::get::<Policy>(reader, key)? {
            Some(policy) => changed.policies.push(policy),
            None => delta.policies_gone.push(name),
        },
        Key::PublicCertificate(_) => match row::get::<PublicCertificate>(reader, key)? {
            Some(certificate) => changed.public_certificates.push(certificate),
            None => delta.public_certificates_gone.push(name),
        },
        // It is never removed.
        Key::Acme => changed.acme = Some(row::need::<AcmeRecord>(reader, key)?),
        Key::Operation(id) => match row::get::<Operation>(reader, key)? {
            Some(running) if !operation::has_ended(&running) => changed.operations.push(in_map(running)),
            _ => delta.operations_gone.push(id),
        },
        // The version that groups are to be raised to: every delta has it.
        Key::Shard => {}
        // A shard is never removed, nor a zone.
        Key::Zone(_) => changed.zones.push(row::need::<Zone>(reader, key)?),
        Key::Shards(_) => changed.shards.push(row::need::<Shard>(reader, key)?),
        _ => return Err(Broken::corrupt(key, "is no row of the map")),
    }
    Ok(())
}

fn domain(record: DomainRecord) -> Domain {
    Domain { name: record.domain, zone: record.zone, dkim_keys: record.dkim_keys, policy: record.policy }
}

/// Operations that have not ended, as routers and nodes need them: where they stand is told by query only.
fn running(reader: &impl Reader) -> Result<Vec<Operation>, Broken> {
    let running = operation::all(reader)?.into_iter().filter(|operation| !operation::has_ended(operation));
    Ok(running.map(in_map).collect())
}

fn in_map(operation: Operation) -> Operation {
    Operation { step: 0, waits_for: String::new(), stepped_ms: 0, ..operation }
}

fn all<M: Message + Default>(reader: &impl Reader, table: Table) -> Result<Vec<M>, Broken> {
    let mut records = Vec::new();
    for found in reader.scan(&KeyRange::table(table), Direction::Forward) {
        let (key, value) = found?;
        records.push(row::decode_row::<M>(key, value)?.1);
    }
    Ok(records)
}
