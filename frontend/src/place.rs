//! Where a shard's blobs lie.

use std::collections::BTreeSet;

use postrider_api::id::ShardId;
use postrider_api::pb;

/// The residency zone of a shard, and its regions: those that have a replica of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) zone: String,
    pub(crate) regions: BTreeSet<String>,
    /// Of the placement that this is: a command that is proposed under it comes to no other.
    pub(crate) epoch: u64,
}

impl Place {
    /// `None` while the map does not name the shard.
    pub(crate) fn of(map: &pb::ShardMap, shard: ShardId) -> Option<Self> {
        let shard = map.shards.iter().find(|candidate| candidate.id == shard.0)?;
        let replicas = map.nodes.iter().filter(|node| shard.replicas.contains(&node.id));
        let regions = replicas.map(|node| node.region.clone()).collect();
        Some(Self { zone: shard.zone.clone(), regions, epoch: shard.epoch })
    }

    /// Whether every region of it is one of the other's too: what is durable here is so there, and what could not be put there
    /// cannot be here.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.zone == other.zone && self.regions.is_subset(&other.regions)
    }

    /// All regions of the zone, where a blob may have been put while the shard had a replica there.
    pub(crate) fn zone_regions<'a>(&'a self, map: &'a pb::ShardMap) -> impl Iterator<Item = &'a str> {
        let of_zone = map.regions.iter().filter(|region| region.zone == self.zone);
        of_zone.map(|region| region.name.as_str()).chain(self.regions.iter().map(String::as_str))
    }
}
