//! Which shards a new cluster has, and on which nodes.

use anyhow::ensure;
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb;
use postrider_router::BootstrapPlan;

/// What a residency zone begins with.
#[derive(Debug, Clone)]
pub(crate) struct ZoneShape<'a> {
    /// Its regions, each with its nodes. Homes and replicas go round them.
    pub(crate) regions: Vec<(&'a str, Vec<u64>)>,
    /// Mailbox shards.
    pub(crate) shards: u32,
    /// Of each shard, one in a region.
    pub(crate) replicas: usize,
}

/// One shard, and who holds it, first its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) shard: ShardId,
    /// Of those that were given.
    pub(crate) zone: usize,
    pub(crate) home_region: &'a str,
    pub(crate) replicas: Vec<u64>,
}

impl Place<'_> {
    /// As placement is told of it; `zone` is the name of its zone.
    pub(crate) fn shard(&self, zone: &str) -> pb::Shard {
        let replicas: Vec<NodeId> = self.replicas.iter().map(|id| NodeId(*id)).collect();
        let mut shard = BootstrapPlan::shard(self.shard, &replicas, self.home_region, zone);
        if self.shard.kind() == Some(pb::ShardKind::Directory) {
            // The one directory shard of its zone answers for every slot.
            shard.slot_last = u32::from(u16::MAX);
        }
        shard
    }
}

/// Placement, which is in the first zone, and of each zone the directory and the mailbox shards: homes go round the zone's
/// regions, replicas are one in each of as many regions, and go round the nodes of a region.
///
/// # Errors
/// When a zone has fewer regions than a shard has replicas, a region has no node, or there are more zones than directories.
pub(crate) fn places<'a>(zones: &[ZoneShape<'a>]) -> anyhow::Result<Vec<Place<'a>>> {
    ensure!(!zones.is_empty(), "a cluster has at least one zone");
    let directories = ShardId::DIRECTORY_FIRST.0..ShardId::MAILBOX_FIRST.0;
    ensure!(zones.len() <= directories.len(), "a cluster has at most {} zones", directories.len());
    for shape in zones {
        ensure!(matches!(shape.replicas, 1 | 3 | 5 | 7), "a shard has 1, 3, 5 or 7 replicas, not {}", shape.replicas);
        ensure!(
            shape.replicas <= shape.regions.len(),
            "{} replicas want as many regions, and the zone has {}",
            shape.replicas,
            shape.regions.len()
        );
        for (region, nodes) in &shape.regions {
            ensure!(!nodes.is_empty(), "region {region} has no node");
        }
    }
    let mut places = vec![place(zones, 0, ShardId::PLACEMENT, 0)];
    for (directory, zone) in directories.zip(0..zones.len()) {
        places.push(place(zones, zone, ShardId(directory), 1));
    }
    let mut next = ShardId::MAILBOX_FIRST.0;
    for (zone, shape) in zones.iter().enumerate() {
        for turn in 0..shape.shards {
            // The first mailbox shard of a zone lives in its first region.
            places.push(place(zones, zone, ShardId(next), turn as usize));
            next += 1;
        }
    }
    Ok(places)
}

/// A shard at home in the region of the zone whose turn it is.
fn place<'a>(zones: &[ZoneShape<'a>], zone: usize, shard: ShardId, turn: usize) -> Place<'a> {
    let regions = &zones[zone].regions;
    let count = regions.len();
    let order = (0..zones[zone].replicas).map(|step| &regions[(turn + step) % count]);
    let replicas = order.map(|(_, nodes)| nodes[(turn / count) % nodes.len()]).collect();
    Place { shard, zone, home_region: regions[turn % count].0, replicas }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_regions_share_the_shards_of_three_replicas() {
        let regions = ["a", "b", "c", "d", "e"].into_iter().zip(1..).map(|(name, node)| (name, vec![node])).collect();
        let places = places(&[ZoneShape { regions, shards: 5, replicas: 3 }]).unwrap();
        let mut held = [0; 6];
        for place in places.iter().filter(|place| place.shard >= ShardId::MAILBOX_FIRST) {
            assert_eq!(place.replicas.len(), 3, "{place:?}");
            for node in &place.replicas {
                held[usize::try_from(*node).unwrap()] += 1;
            }
        }
        assert_eq!(held, [0, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn what_cannot_be_placed_is_said() {
        let shape = |regions, replicas| ZoneShape { regions, shards: 1, replicas };
        for (zones, word) in [
            (vec![], "at least one zone"),
            (vec![shape(vec![("a", vec![1])], 3)], "as many regions"),
            (vec![shape(vec![("a", vec![1]), ("b", vec![2])], 2)], "1, 3, 5 or 7"),
            (vec![shape(vec![("a", vec![])], 1)], "region a has no node"),
        ] {
            let error = places(&zones).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
