//! The shard map as routers hold it.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{Domain, DomainRecord, GetShardMap, ShardMap, ShardRecord};
use prost::Message;

use crate::Broken;
use crate::key::{KeyRange, Table};
use crate::query::QueryError;
use crate::row;
use crate::store::{Direction, Reader};

/// The whole map; for a caller who knows its version, that alone: routers ask again and again, and a map may be large.
pub(crate) fn answer(reader: &impl Reader, state: &ShardRecord, query: &GetShardMap) -> Result<Answer, QueryError> {
    if query.known_version == state.map_version {
        return Ok(Answer::ShardMap(ShardMap { version: state.map_version, ..Default::default() }));
    }
    let mut regions: Vec<postrider_api::pb::Region> = all(reader, Table::Regions)?;
    // They stand by the hash of their names.
    regions.sort_by(|a, b| a.name.cmp(&b.name));
    let records: Vec<DomainRecord> = all(reader, Table::Domains)?;
    let mut domains: Vec<Domain> =
        records.into_iter().map(|record| Domain { name: record.domain, zone: record.zone }).collect();
    domains.sort_by(|a, b| a.name.cmp(&b.name));
    let mut zones: Vec<postrider_api::pb::Zone> = all(reader, Table::Zones)?;
    zones.sort_by_key(|zone| zone.id);
    Ok(Answer::ShardMap(ShardMap {
        version: state.map_version,
        regions,
        nodes: all(reader, Table::Nodes)?,
        shards: all(reader, Table::Shards)?,
        domains,
        moves: all(reader, Table::Moves)?,
        zones,
    }))
}

fn all<M: Message + Default>(reader: &impl Reader, table: Table) -> Result<Vec<M>, Broken> {
    let mut records = Vec::new();
    for found in reader.scan(&KeyRange::table(table), Direction::Forward) {
        let (key, value) = found?;
        records.push(row::decode_row::<M>(key, value)?.1);
    }
    Ok(records)
}
