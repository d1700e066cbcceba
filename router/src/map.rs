//! The shard map with the indexes that calls need.

use std::collections::HashMap;
use std::sync::Arc;

use postrider_api::id::{NodeId, ShardId, Slot, UserId, ZoneId};
use postrider_api::map;
use postrider_api::pb::map_update::Update;
use postrider_api::pb::{self, ShardKind};

/// One version of the shard map. Never changed once it is made.
pub(crate) struct MapView {
    pub(crate) map: Arc<pb::ShardMap>,
    shards: HashMap<u32, usize>,
    nodes: HashMap<u64, usize>,
    zones: HashMap<String, Zone>,
    /// The zone of each domain, and its policy; empty: none.
    domains: HashMap<String, (String, String)>,
}

/// What there is of a residency zone. Each zone has all slots and all users of its own.
#[derive(Default)]
struct Zone {
    id: ZoneId,
    /// Directory shards by first slot; ranges do not overlap.
    directory: Vec<(u16, u16, ShardId)>,
    mailboxes: Mailboxes,
    /// Those that are held to a policy; empty: to none.
    mailboxes_by_policy: HashMap<String, Mailboxes>,
}

/// Shards that users may be placed in.
#[derive(Default)]
struct Mailboxes {
    all: Vec<ShardId>,
    by_region: HashMap<String, Vec<ShardId>>,
}

impl Mailboxes {
    fn push(&mut self, shard: &pb::Shard) {
        self.all.push(ShardId(shard.id));
        match self.by_region.get_mut(&shard.home_region) {
            Some(shards) => shards.push(ShardId(shard.id)),
            None => drop(self.by_region.insert(shard.home_region.clone(), vec![ShardId(shard.id)])),
        }
    }

    fn sort(&mut self) {
        self.all.sort_unstable();
        self.by_region.values_mut().for_each(|shards| shards.sort_unstable());
    }
}

impl MapView {
    pub(crate) fn new(map: Arc<pb::ShardMap>) -> Self {
        let shards = map.shards.iter().enumerate().map(|(at, shard)| (shard.id, at)).collect();
        let nodes = map.nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        let mut zones: HashMap<String, Zone> = HashMap::new();
        for zone in &map.zones {
            // Placement gives no number that is wider; 0 is no zone's.
            zones.entry(zone.name.clone()).or_default().id = ZoneId(u16::try_from(zone.id).unwrap_or(0));
        }
        for shard in &map.shards {
            let id = ShardId(shard.id);
            // Not `entry`, which wants the name once more for each of many shards.
            if !zones.contains_key(&shard.zone) {
                zones.insert(shard.zone.clone(), Zone::default());
            }
            let Some(zone) = zones.get_mut(&shard.zone) else { continue };
            match shard.kind() {
                ShardKind::Directory => zone.directory.push((
                    // Slots are 16 bits; a wider bound covers all of them.
                    u16::try_from(shard.slot_first).unwrap_or(u16::MAX),
                    u16::try_from(shard.slot_last).unwrap_or(u16::MAX),
                    id,
                )),
                // Users may be placed here.
                ShardKind::Mailbox if !shard.making => {
                    zone.mailboxes.push(shard);
                    zone.mailboxes_by_policy.entry(shard.policy.clone()).or_default().push(shard);
                }
                ShardKind::Mailbox | ShardKind::Placement | ShardKind::Unspecified => {}
            }
        }
        for zone in zones.values_mut() {
            zone.directory.sort_unstable();
            zone.mailboxes.sort();
            zone.mailboxes_by_policy.values_mut().for_each(Mailboxes::sort);
        }
        let held = |domain: &pb::Domain| (domain.zone.clone(), domain.policy.clone());
        let domains = map.domains.iter().map(|domain| (domain.name.clone(), held(domain))).collect();
        Self { map, shards, nodes, zones, domains }
    }

    pub(crate) fn shard(&self, shard: ShardId) -> Option<&pb::Shard> {
        self.shards.get(&shard.0).map(|&at| &self.map.shards[at])
    }

    pub(crate) fn node(&self, node: NodeId) -> Option<&pb::Node> {
        self.nodes.get(&node.0).map(|&at| &self.map.nodes[at])
    }

    /// The nodes that hold a replica, those of its home region first.
    pub(crate) fn replicas(&self, shard: ShardId) -> Vec<&pb::Node> {
        let Some(shard) = self.shard(shard) else { return Vec::new() };
        let mut nodes: Vec<_> = shard.replicas.iter().filter_map(|&id| self.node(NodeId(id))).collect();
        nodes.sort_by_key(|node| (node.region != shard.home_region, node.id));
        nodes
    }

    /// The zone that a domain is in; `None` when the map knows no such domain, or not its zone.
    pub(crate) fn zone_of_domain(&self, domain: &str) -> Option<ZoneId> {
        Some(self.zones.get(&self.domains.get(domain)?.0)?.id).filter(|zone| *zone != ZoneId::default())
    }

    /// The directory shard of a zone that answers for a slot.
    pub(crate) fn directory_shard(&self, zone: ZoneId, slot: Slot) -> Option<ShardId> {
        let directory = &self.zone(zone)?.directory;
        let behind = directory.partition_point(|&(first, _, _)| first <= slot.0);
        let &(_, last, shard) = directory.get(behind.checked_sub(1)?)?;
        (slot.0 <= last).then_some(shard)
    }

    /// Where a new user goes: by his id, which is random, among the shards of his zone that the policy of his domain wants, those at home
    /// in `region`, or all where none is. Never outside of the zone that his id names, nor of the policy.
    pub(crate) fn place_user(&self, region: &str, domain: &str, user: UserId) -> Option<ShardId> {
        let zone = self.zone(user.zone())?;
        let policy = self.domains.get(domain).map_or("", |(_, policy)| policy.as_str());
        let mailboxes = match zone.mailboxes_by_policy.get(policy) {
            Some(mailboxes) => mailboxes,
            // Whoever is held to nothing may be anywhere.
            None if policy.is_empty() => &zone.mailboxes,
            None => return None,
        };
        let shards = mailboxes.by_region.get(region).unwrap_or(&mailboxes.all);
        // The first two bytes are the directory slot; the last eight are independent of it.
        let random = u64::from_be_bytes(user.0[8..].try_into().ok()?);
        let at = random.checked_rem(shards.len() as u64)?;
        shards.get(usize::try_from(at).ok()?).copied()
    }

    /// Whether the map knows a zone of this number.
    pub(crate) fn has_zone(&self, id: ZoneId) -> bool {
        self.zone(id).is_some()
    }

    /// Zones are few: continents, countries.
    fn zone(&self, id: ZoneId) -> Option<&Zone> {
        self.zones.values().find(|zone| zone.id == id && id != ZoneId::default())
    }

    /// This map with a newer entry for one shard, which a replica gave as a cure; `None` when there is nothing new in it.
    pub(crate) fn with_shard(&self, newer: &pb::Shard) -> Option<Self> {
        let known = self.shards.get(&newer.id).copied();
        if known.is_some_and(|at| self.map.shards[at].epoch >= newer.epoch) {
            return None;
        }
        let mut map = pb::ShardMap::clone(&self.map);
        match known {
            Some(at) => map.shards[at] = newer.clone(),
            None => {
                map.shards.push(newer.clone());
                map::sort(&mut map);
            }
        }
        Some(Self::new(Arc::new(map)))
    }

    /// What follows this map when an update arrives. An entry that was mended ahead of the stream stays where the stream's is older.
    pub(crate) fn succeeded_by(&self, update: pb::MapUpdate) -> Next {
        if map::version(&update) <= self.map.version && self.map.version > 0 {
            return Next::Known;
        }
        let mut next = match update.update {
            Some(Update::Whole(mut whole)) => {
                map::sort(&mut whole);
                whole
            }
            Some(Update::Delta(delta)) => {
                let mut next = pb::ShardMap::clone(&self.map);
                if !map::apply(&mut next, delta) {
                    return Next::Missing;
                }
                next
            }
            None => return Next::Known,
        };
        for shard in &mut next.shards {
            if let Some(known) = self.shard(ShardId(shard.id))
                && known.epoch > shard.epoch
            {
                *shard = known.clone();
            }
        }
        Next::View(Self::new(Arc::new(next)))
    }
}

/// What an update makes of a map.
pub(crate) enum Next {
    View(MapView),
    /// Nothing new.
    Known,
    /// It begins behind what is known: the whole is to be asked for.
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WORLD: ZoneId = ZoneId(1);
    const MARS: ZoneId = ZoneId(2);

    fn map() -> pb::ShardMap {
        let shard = |id: u32, kind: ShardKind, home: &str, slots: (u32, u32)| pb::Shard {
            id,
            kind: kind.into(),
            replicas: vec![1, 2, 3],
            home_region: home.to_owned(),
            epoch: 1,
            slot_first: slots.0,
            slot_last: slots.1,
            zone: "world".to_owned(),
            ..Default::default()
        };
        let node = |id: u64, region: &str| pb::Node {
            id,
            region: region.to_owned(),
            address: format!("n{id}:1"),
            ..Default::default()
        };
        let in_mars = |shard: pb::Shard| pb::Shard { zone: "mars".to_owned(), ..shard };
        let mut map = pb::ShardMap {
            version: 7,
            nodes: vec![node(1, "seoul"), node(2, "frankfurt"), node(3, "virginia")],
            shards: vec![
                shard(1, ShardKind::Placement, "seoul", (0, 0)),
                shard(3, ShardKind::Directory, "seoul", (0x8000, 0xffff)),
                shard(2, ShardKind::Directory, "seoul", (0, 0x7fff)),
                shard(1001, ShardKind::Mailbox, "frankfurt", (0, 0)),
                shard(1000, ShardKind::Mailbox, "seoul", (0, 0)),
                shard(1002, ShardKind::Mailbox, "seoul", (0, 0)),
                in_mars(shard(4, ShardKind::Directory, "tharsis", (0, 0xffff))),
                in_mars(shard(1003, ShardKind::Mailbox, "tharsis", (0, 0))),
            ],
            zones: [(WORLD, "world"), (MARS, "mars")]
                .map(|(id, name)| pb::Zone { id: id.0.into(), name: name.to_owned() })
                .to_vec(),
            domains: [("a.example", "world"), ("b.example", "mars"), ("c.example", "venus")]
                .map(|(name, zone)| pb::Domain { name: name.to_owned(), zone: zone.to_owned(), ..Default::default() })
                .to_vec(),
            ..Default::default()
        };
        map::sort(&mut map);
        map
    }

    #[test]
    fn every_slot_has_its_directory_shard() {
        let view = MapView::new(Arc::new(map()));
        assert_eq!(view.directory_shard(WORLD, Slot(0)), Some(ShardId(2)));
        assert_eq!(view.directory_shard(WORLD, Slot(0x7fff)), Some(ShardId(2)));
        assert_eq!(view.directory_shard(WORLD, Slot(0x8000)), Some(ShardId(3)));
        assert_eq!(view.directory_shard(WORLD, Slot(0xffff)), Some(ShardId(3)));
        let mut holed = map();
        holed.shards.retain(|shard| shard.id != 3);
        assert_eq!(MapView::new(Arc::new(holed)).directory_shard(WORLD, Slot(0x8000)), None);
        assert_eq!(MapView::new(Arc::default()).directory_shard(WORLD, Slot(1)), None);
    }

    #[test]
    fn every_zone_has_a_directory_of_its_own() {
        let view = MapView::new(Arc::new(map()));
        for slot in [0, 0x7fff, 0x8000, 0xffff] {
            assert_eq!(view.directory_shard(MARS, Slot(slot)), Some(ShardId(4)));
        }
        assert_eq!(view.zone_of_domain("a.example"), Some(WORLD));
        assert_eq!(view.zone_of_domain("b.example"), Some(MARS));
        // A zone that the map does not know (yet), a domain that it does not, and the number that is no zone's.
        assert_eq!(view.zone_of_domain("c.example"), None);
        assert_eq!(view.zone_of_domain("d.example"), None);
        assert_eq!(view.directory_shard(ZoneId(3), Slot(1)), None);
        assert_eq!(view.directory_shard(ZoneId(0), Slot(1)), None);
        let mut unnumbered = map();
        unnumbered.zones.clear();
        assert_eq!(MapView::new(Arc::new(unnumbered)).zone_of_domain("a.example"), None);
    }

    #[test]
    fn replicas_begin_at_home() {
        let view = MapView::new(Arc::new(map()));
        let order: Vec<_> = view.replicas(ShardId(1001)).iter().map(|node| node.id).collect();
        assert_eq!(order, [2, 1, 3]);
        assert!(view.replicas(ShardId(9)).is_empty());
    }

    #[test]
    fn a_cure_is_taken_once_and_outlives_an_older_stream() {
        let view = MapView::new(Arc::new(map()));
        let newer = pb::Shard { epoch: 4, replicas: vec![1, 2, 4], ..view.shard(ShardId(1000)).unwrap().clone() };
        let mended = view.with_shard(&newer).unwrap();
        assert!(mended.with_shard(&newer).is_none());
        let whole = |map| pb::MapUpdate { update: Some(Update::Whole(map)) };
        assert!(matches!(mended.succeeded_by(whole(map())), Next::Known), "not newer");
        let older = view.shard(ShardId(1000)).unwrap().clone();
        let changed = pb::ShardMap { version: 8, shards: vec![older], ..Default::default() };
        let delta = |from_version| pb::MapDelta { from_version, changed: Some(changed.clone()), ..Default::default() };
        let delta = |from_version| pb::MapUpdate { update: Some(Update::Delta(delta(from_version))) };
        for update in [whole(pb::ShardMap { version: 8, ..map() }), delta(7), delta(5)] {
            let Next::View(next) = mended.succeeded_by(update) else { panic!("it is newer") };
            assert_eq!(next.shard(ShardId(1000)).unwrap().epoch, 4);
            assert_eq!(next.map.version, 8);
        }
        let far = pb::MapDelta {
            from_version: 8,
            changed: Some(pb::ShardMap { version: 9, ..Default::default() }),
            ..Default::default()
        };
        let far = pb::MapUpdate { update: Some(Update::Delta(far)) };
        assert!(matches!(mended.succeeded_by(far), Next::Missing));
    }

    #[test]
    fn a_user_is_placed_by_the_policy_of_his_domain_and_not_where_a_group_is_being_made() {
        let user = UserId::new(WORLD, Slot(1), [7; 12]);
        let placed = |map: pb::ShardMap| MapView::new(Arc::new(map)).place_user("seoul", "a.example", user);
        let mut named = map();
        named.domains.iter_mut().find(|domain| domain.name == "a.example").unwrap().policy = "three".to_owned();
        assert_eq!(placed(named.clone()), None, "no shard is held to it");
        let at = |map: &mut pb::ShardMap, id: u32| map.shards.iter().position(|shard| shard.id == id).unwrap();
        let elsewhere = at(&mut named, 1001);
        named.shards[elsewhere].policy = "three".to_owned();
        assert_eq!(placed(named.clone()), Some(ShardId(1001)), "at home elsewhere, and the only one");
        let near = at(&mut named, 1002);
        named.shards[near].policy = "three".to_owned();
        assert_eq!(placed(named.clone()), Some(ShardId(1002)));
        named.shards[near].making = true;
        assert_eq!(placed(named.clone()), Some(ShardId(1001)));
        named.domains.iter_mut().for_each(|domain| domain.policy.clear());
        assert_eq!(placed(named), Some(ShardId(1000)), "those that are held to nothing first");
    }

    proptest! {
        #[test]
        fn a_user_is_placed_in_his_region(slot: u16, random: [u8; 12]) {
            let view = MapView::new(Arc::new(map()));
            let user = UserId::new(WORLD, Slot(slot), random);
            let home = view.place_user("seoul", "a.example", user).unwrap();
            prop_assert!(home == ShardId(1000) || home == ShardId(1002));
            prop_assert_eq!(view.place_user("seoul", "a.example", user).unwrap(), home);
            prop_assert_eq!(view.place_user("frankfurt", "a.example", user), Some(ShardId(1001)));
            prop_assert!(view.place_user("nowhere", "a.example", user).is_some());
            // A frontend of another zone makes his mailbox in his zone all the same.
            prop_assert!(view.place_user("tharsis", "a.example", user).is_some_and(|shard| shard != ShardId(1003)));
            let martian = UserId::new(MARS, Slot(slot), random);
            prop_assert_eq!(view.place_user("seoul", "b.example", martian), Some(ShardId(1003)));
            prop_assert_eq!(view.place_user("seoul", "a.example", UserId::new(ZoneId(9), Slot(slot), random)), None);
            prop_assert!(MapView::new(Arc::default()).place_user("seoul", "a.example", user).is_none());
        }
    }
}
