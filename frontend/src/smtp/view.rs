//! What the SMTP server needs of the shard map, in a form to look things up in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use postrider_api::id::ShardId;
use postrider_api::pb::{self, ShardKind};

use crate::cluster::Cluster;

/// One version of the shard map.
pub(super) struct View {
    map: Arc<pb::ShardMap>,
    domains: HashSet<String>,
    zones: HashMap<u32, Arc<str>>,
}

impl View {
    fn new(map: Arc<pb::ShardMap>) -> Self {
        let domains = map.domains.iter().map(|domain| domain.name.clone()).collect();
        let mut names = HashSet::<Arc<str>>::new();
        let mut zones = HashMap::with_capacity(map.shards.len());
        for shard in &map.shards {
            let name = names.get(shard.zone.as_str()).cloned().unwrap_or_else(|| {
                let name = Arc::<str>::from(shard.zone.as_str());
                names.insert(Arc::clone(&name));
                name
            });
            zones.insert(shard.id, name);
        }
        Self { map, domains, zones }
    }

    /// Our first domain, whose postmaster is meant where no domain is named; `None`: no map has come yet.
    pub(super) fn first_domain(&self) -> Option<&str> {
        self.map.domains.first().map(|domain| domain.name.as_str())
    }

    /// Whether this version of the map knows a domain, in A-labels, as ours.
    pub(super) fn has_domain(&self, domain: &str) -> bool {
        self.domains.contains(domain)
    }

    /// The residency zone of a shard.
    pub(super) fn zone(&self, shard: ShardId) -> Option<Arc<str>> {
        self.zones.get(&shard.0).cloned()
    }

    /// At most `max` mailbox shards of the zone besides `home`, those of `region` first; `salt` spreads equal ones.
    pub(super) fn others(&self, home: ShardId, zone: &str, region: &str, salt: u32, max: usize) -> Vec<ShardId> {
        let rank = |shard: &&pb::Shard| (shard.home_region != region, (shard.id ^ salt).wrapping_mul(0x9e37_79b9));
        let shards = self.map.shards.iter();
        let mut others: Vec<&pb::Shard> = shards
            .filter(|shard| shard.kind() == ShardKind::Mailbox && shard.zone == zone && shard.id != home.0)
            .collect();
        // Linear also for a map of hundreds of thousands of shards, while each message of a lost one asks.
        if (1..others.len()).contains(&max) {
            others.select_nth_unstable_by_key(max - 1, rank);
        }
        others.truncate(max);
        others.sort_by_key(rank);
        others.into_iter().map(|shard| ShardId(shard.id)).collect()
    }
}

/// The newest [`View`], made again when the map's version changes.
pub(super) struct Views {
    cluster: Arc<dyn Cluster>,
    newest: Mutex<Arc<View>>,
}

impl Views {
    pub(super) fn new(cluster: Arc<dyn Cluster>) -> Arc<Self> {
        let newest = Mutex::new(Arc::new(View::new(cluster.map())));
        Arc::new(Self { cluster, newest })
    }

    pub(super) fn newest(&self) -> Arc<View> {
        let map = self.cluster.map();
        let mut newest = self.newest.lock();
        if newest.map.version != map.version {
            *newest = Arc::new(View::new(map));
        }
        Arc::clone(&newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: u32, zone: &str, region: &str) -> pb::Shard {
        let kind = ShardId(id).kind().unwrap_or(ShardKind::Unspecified);
        pb::Shard {
            id,
            kind: kind.into(),
            zone: zone.to_owned(),
            home_region: region.to_owned(),
            ..pb::Shard::default()
        }
    }

    #[test]
    fn others_are_of_the_zone_and_near_first() {
        let mut shards = vec![shard(2, "eu", "paris"), shard(1000, "eu", "paris"), shard(1001, "us", "iowa")];
        shards.extend((1002..1010).map(|id| shard(id, "eu", if id < 1004 { "paris" } else { "oslo" })));
        let view = View::new(Arc::new(pb::ShardMap { shards, ..pb::ShardMap::default() }));
        for salt in [0, 1, 0xffff_ffff] {
            let two = view.others(ShardId(1000), "eu", "paris", salt, 2);
            assert_eq!(two.iter().map(|shard| shard.0).max(), Some(1003), "{two:?}");
            assert_eq!(view.others(ShardId(1000), "eu", "paris", salt, 100).len(), 8);
            assert_eq!(view.others(ShardId(1000), "eu", "paris", salt, 100)[..2], two);
        }
        assert!(view.others(ShardId(1001), "us", "iowa", 0, 2).is_empty());
        assert_eq!(view.zone(ShardId(1001)).as_deref(), Some("us"));
        assert_eq!(view.zone(ShardId(7)), None);
    }
}
