//! Where nodes are reached now.
//!
//! A membership says where its members were when it was agreed on. A node that has moved to another address is reached there at once, by
//! all of its groups, also by those that cannot agree on its new address without it: it is known from whoever asks for it (the shard map),
//! from the node itself, when it connects, and from those to whom it did: of two nodes that have both moved neither can connect to the other
//! before.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::ids::NodeId;

/// The longest address that is taken from a peer, bytes.
const ADDRESS_BYTES_MAX: usize = 280;

/// Newest addresses, of as many nodes as the cluster has.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What was learnt last, by the list that was given then.
    listed: HashMap<NodeId, String>,
    /// What a node has said of itself since the list said something new of it.
    told: HashMap<NodeId, String>,
    /// What it has said to others since then: until it says so here, or is not reached there.
    overheard: HashMap<NodeId, String>,
}

impl Addresses {
    /// Takes in a list; who is not named in it any more is forgotten.
    pub(crate) fn learn(&self, addresses: impl IntoIterator<Item = (NodeId, String)>) {
        let newest: HashMap<_, _> = addresses.into_iter().collect();
        if self.known.read().listed == newest {
            return;
        }
        let mut known = self.known.write();
        let Known { listed, told, overheard } = &mut *known;
        told.retain(|node, _| listed.get(node) == newest.get(node));
        overheard.retain(|node, _| listed.get(node) == newest.get(node));
        *listed = newest;
    }

    /// Takes in what a peer says of itself.
    pub(crate) fn hear(&self, node: NodeId, address: String) {
        if !plausible(&address) || self.known.read().of(node) == Some(&address) {
            return;
        }
        let mut known = self.known.write();
        known.overheard.remove(&node);
        known.told.insert(node, address);
    }

    /// Takes in what a peer says of others. What they have said here themselves counts more.
    pub(crate) fn overhear(&self, nodes: impl IntoIterator<Item = (NodeId, String)>) {
        for (node, address) in nodes {
            if plausible(&address) && self.known.read().of(node) != Some(&address) {
                self.known.write().overheard.insert(node, address);
            }
        }
    }

    /// The node is not reached where it is said to be by others.
    pub(crate) fn doubt(&self, node: NodeId) {
        if self.known.read().overheard.contains_key(&node) {
            self.known.write().overheard.remove(&node);
        }
    }

    /// What others than `peer` have said of themselves.
    pub(crate) fn told_by_others(&self, peer: NodeId) -> Vec<(NodeId, String)> {
        let known = self.known.read();
        let others = known.told.iter().filter(|(node, _)| **node != peer);
        others.map(|(node, address)| (*node, address.clone())).collect()
    }

    /// Where the node is reached; as its membership says where nothing newer is known.
    pub(crate) fn of(&self, node: NodeId, by_membership: &str) -> String {
        self.known.read().of(node).cloned().unwrap_or_else(|| by_membership.to_owned())
    }
}

impl Known {
    fn of(&self, node: NodeId) -> Option<&String> {
        self.told.get(&node).or_else(|| self.overheard.get(&node)).or_else(|| self.listed.get(&node))
    }
}

fn plausible(address: &str) -> bool {
    !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(of_one: &str) -> Vec<(NodeId, String)> {
        vec![(NodeId(1), of_one.to_owned()), (NodeId(2), "two:1".to_owned())]
    }

    #[test]
    fn what_is_known_counts_more_than_the_membership() {
        let addresses = Addresses::default();
        assert_eq!(addresses.of(NodeId(1), "old:1"), "old:1");
        addresses.learn(list("new:1"));
        assert_eq!(addresses.of(NodeId(1), "old:1"), "new:1");
        addresses.learn([(NodeId(2), "two:1".to_owned())]);
        assert_eq!(addresses.of(NodeId(1), "old:1"), "old:1");
    }

    #[test]
    fn what_a_node_says_of_itself_counts_until_the_list_says_something_new() {
        let addresses = Addresses::default();
        addresses.learn(list("listed:1"));
        addresses.hear(NodeId(1), "told:1".to_owned());
        addresses.hear(NodeId(1), String::new());
        addresses.hear(NodeId(1), "x".repeat(ADDRESS_BYTES_MAX + 1));
        assert_eq!(addresses.of(NodeId(1), "old:1"), "told:1");
        let mut longer = list("listed:1");
        longer.push((NodeId(3), "three:1".to_owned()));
        addresses.learn(longer);
        assert_eq!(addresses.of(NodeId(1), "old:1"), "told:1", "nothing new of it");
        addresses.learn(list("newer:1"));
        assert_eq!(addresses.of(NodeId(1), "old:1"), "newer:1");
    }

    #[test]
    fn what_others_say_of_a_node_counts_until_it_is_not_there_or_says_so_itself() {
        let addresses = Addresses::default();
        addresses.learn(list("listed:1"));
        addresses.overhear([(NodeId(1), "overheard:1".to_owned())]);
        assert_eq!(addresses.of(NodeId(1), "old:1"), "overheard:1");
        assert_eq!(addresses.told_by_others(NodeId(2)), [], "hearsay is not handed on");
        addresses.doubt(NodeId(1));
        assert_eq!(addresses.of(NodeId(1), "old:1"), "listed:1");
        addresses.overhear([(NodeId(1), "overheard:1".to_owned())]);
        addresses.hear(NodeId(1), "told:1".to_owned());
        addresses.overhear([(NodeId(1), "older:1".to_owned())]);
        assert_eq!(addresses.of(NodeId(1), "old:1"), "told:1");
        addresses.doubt(NodeId(1));
        assert_eq!(addresses.of(NodeId(1), "old:1"), "told:1");
        assert_eq!(addresses.told_by_others(NodeId(2)), [(NodeId(1), "told:1".to_owned())]);
        assert_eq!(addresses.told_by_others(NodeId(1)), []);
        addresses.learn(list("newer:1"));
        assert_eq!(addresses.of(NodeId(1), "old:1"), "newer:1");
    }
}
