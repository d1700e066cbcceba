//! The shard map with the indexes that calls need.

use std::collections::HashMap;
use std::sync::Arc;

use postrider_api::id::{NodeId, ShardId, Slot, UserId};
use postrider_api::pb::{self, ShardKind};

/// One version of the shard map. Never changed once it is made.
pub(crate) struct MapView {
    pub(crate) map: Arc<pb::ShardMap>,
    shards: HashMap<u32, usize>,
    nodes: HashMap<u64, usize>,
    /// By first slot; ranges do not overlap.
    directory: Vec<(u16, u16, ShardId)>,
    mailboxes: Vec<ShardId>,
    mailboxes_by_region: HashMap<String, Vec<ShardId>>,
}

impl MapView {
    pub(crate) fn new(map: Arc<pb::ShardMap>) -> Self {
        let shards = map.shards.iter().enumerate().map(|(at, shard)| (shard.id, at)).collect();
        let nodes = map.nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        let mut directory = Vec::new();
        let mut mailboxes = Vec::new();
        let mut mailboxes_by_region: HashMap<String, Vec<ShardId>> = HashMap::new();
        for shard in &map.shards {
            match shard.kind() {
                ShardKind::Directory => directory.push((
                    // Slots are 16 bits; a wider bound covers all of them.
                    u16::try_from(shard.slot_first).unwrap_or(u16::MAX),
                    u16::try_from(shard.slot_last).unwrap_or(u16::MAX),
                    ShardId(shard.id),
                )),
                ShardKind::Mailbox => {
                    mailboxes.push(ShardId(shard.id));
                    mailboxes_by_region.entry(shard.home_region.clone()).or_default().push(ShardId(shard.id));
                }
                ShardKind::Placement | ShardKind::Unspecified => {}
            }
        }
        directory.sort_unstable();
        mailboxes.sort_unstable();
        mailboxes_by_region.values_mut().for_each(|shards| shards.sort_unstable());
        Self { map, shards, nodes, directory, mailboxes, mailboxes_by_region }
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

    pub(crate) fn directory_shard(&self, slot: Slot) -> Option<ShardId> {
        let behind = self.directory.partition_point(|&(first, _, _)| first <= slot.0);
        let &(_, last, shard) = self.directory.get(behind.checked_sub(1)?)?;
        (slot.0 <= last).then_some(shard)
    }

    /// Where a new user goes: by his id, which is random, among the shards at home in `region`; among all where it has none.
    pub(crate) fn place_user(&self, region: &str, user: UserId) -> Option<ShardId> {
        let shards = self.mailboxes_by_region.get(region).unwrap_or(&self.mailboxes);
        // The first two bytes are the directory slot; the last eight are independent of it.
        let random = u64::from_be_bytes(user.0[8..].try_into().ok()?);
        let at = random.checked_rem(shards.len() as u64)?;
        shards.get(usize::try_from(at).ok()?).copied()
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
            None => map.shards.push(newer.clone()),
        }
        Some(Self::new(Arc::new(map)))
    }

    /// What follows this map when `next` arrives; `None` when `next` is not newer. An entry that was mended ahead of the
    /// stream stays where the stream's is older.
    pub(crate) fn succeeded_by(&self, mut next: pb::ShardMap) -> Option<Self> {
        if next.version <= self.map.version && self.map.version > 0 {
            return None;
        }
        for shard in &mut next.shards {
            if let Some(known) = self.shard(ShardId(shard.id))
                && known.epoch > shard.epoch
            {
                *shard = known.clone();
            }
        }
        Some(Self::new(Arc::new(next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map() -> pb::ShardMap {
        let shard = |id: u32, kind: ShardKind, home: &str, slots: (u32, u32)| pb::Shard {
            id,
            kind: kind.into(),
            replicas: vec![1, 2, 3],
            home_region: home.to_owned(),
            epoch: 1,
            slot_first: slots.0,
            slot_last: slots.1,
            ..Default::default()
        };
        let node = |id: u64, region: &str| pb::Node { id, region: region.to_owned(), address: format!("n{id}:1") };
        pb::ShardMap {
            version: 7,
            nodes: vec![node(1, "seoul"), node(2, "frankfurt"), node(3, "virginia")],
            shards: vec![
                shard(1, ShardKind::Placement, "seoul", (0, 0)),
                shard(3, ShardKind::Directory, "seoul", (0x8000, 0xffff)),
                shard(2, ShardKind::Directory, "seoul", (0, 0x7fff)),
                shard(1001, ShardKind::Mailbox, "frankfurt", (0, 0)),
                shard(1000, ShardKind::Mailbox, "seoul", (0, 0)),
                shard(1002, ShardKind::Mailbox, "seoul", (0, 0)),
            ],
            ..Default::default()
        }
    }

    #[test]
    fn every_slot_has_its_directory_shard() {
        let view = MapView::new(Arc::new(map()));
        assert_eq!(view.directory_shard(Slot(0)), Some(ShardId(2)));
        assert_eq!(view.directory_shard(Slot(0x7fff)), Some(ShardId(2)));
        assert_eq!(view.directory_shard(Slot(0x8000)), Some(ShardId(3)));
        assert_eq!(view.directory_shard(Slot(0xffff)), Some(ShardId(3)));
        let mut holed = map();
        holed.shards.retain(|shard| shard.id != 3);
        assert_eq!(MapView::new(Arc::new(holed)).directory_shard(Slot(0x8000)), None);
        assert_eq!(MapView::new(Arc::default()).directory_shard(Slot(1)), None);
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
        assert!(mended.succeeded_by(map()).is_none(), "not newer");
        let next = mended.succeeded_by(pb::ShardMap { version: 8, ..map() }).unwrap();
        assert_eq!(next.shard(ShardId(1000)).unwrap().epoch, 4);
        assert_eq!(next.map.version, 8);
    }

    proptest! {
        #[test]
        fn a_user_is_placed_in_his_region(slot: u16, random: [u8; 14]) {
            let view = MapView::new(Arc::new(map()));
            let user = UserId::new(Slot(slot), random);
            let home = view.place_user("seoul", user).unwrap();
            prop_assert!(home == ShardId(1000) || home == ShardId(1002));
            prop_assert_eq!(view.place_user("seoul", user).unwrap(), home);
            prop_assert_eq!(view.place_user("frankfurt", user), Some(ShardId(1001)));
            prop_assert!(view.place_user("nowhere", user).is_some());
            prop_assert!(MapView::new(Arc::default()).place_user("seoul", user).is_none());
        }
    }
}
