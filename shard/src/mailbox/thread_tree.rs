//! Who answers whom within one thread: the containers of JWZ (<https://www.jwz.org/doc/threading.html>, steps 1 to 4), built
//! when a thread is read.

use std::collections::BTreeMap;

use postrider_api::id::MessageIdHash;

/// What the tree needs to know of a message.
pub(crate) struct Node {
    /// Hash of its Message-ID, if it has one.
    pub(crate) own: Option<MessageIdHash>,
    /// What it refers to, oldest first.
    pub(crate) references: Vec<MessageIdHash>,
}

/// Place of a container.
type At = usize;

/// A message, or an id that some message refers to and that is not here.
#[derive(Default)]
struct Container {
    node: Option<usize>,
    parent: Option<At>,
    /// Whether anything was ever linked below it.
    has_children: bool,
}

/// Steps up the tree that one thread may take. References come from strangers: a thousand messages that make one chain of a
/// hundred thousand ids must not keep a reader busy. What is left unlinked then stands at the top.
const STEPS_MAX: usize = 5_000_000;

/// Steps that [`parents`] takes at most: each link looks up the tree, which is no higher than there are ids.
pub(crate) fn steps_max(nodes: &[Node]) -> usize {
    let ids: usize = nodes.iter().map(|node| 1 + node.references.len()).sum();
    ids.saturating_mul(ids).min(STEPS_MAX)
}

#[derive(Default)]
struct Tree {
    steps: usize,
    containers: Vec<Container>,
    by_id: BTreeMap<MessageIdHash, At>,
}

/// For each message the place of its nearest ancestor that is present. Messages are taken in the order given, which decides
/// where references contradict one another; of several with one Message-ID the first is the one that others refer to.
pub(crate) fn parents(nodes: &[Node]) -> Vec<Option<usize>> {
    let mut tree = Tree::default();
    let places: Vec<At> = nodes.iter().enumerate().map(|(node, message)| tree.add(node, message)).collect();
    places.into_iter().map(|at| tree.nearest_present(at)).collect()
}

impl Tree {
    fn add(&mut self, node: usize, message: &Node) -> At {
        let me = self.place(node, message.own);
        let mut previous = None;
        for reference in &message.references {
            let at = self.container(*reference);
            if let Some(previous) = previous {
                // What is linked already stays: an earlier message knew better.
                if self.containers[at].parent.is_none() {
                    self.link(at, previous);
                }
            }
            previous = Some(at);
        }
        // A message's own references are believed above what others said of it.
        self.containers[me].parent = None;
        if let Some(previous) = previous {
            self.link(me, previous);
        }
        me
    }

    /// Puts `child` below `parent`, unless that would close a circle.
    fn link(&mut self, child: At, parent: At) {
        // Nothing can stand below what has no children: for most references no walk is needed.
        let closes = child == parent || (self.containers[child].has_children && self.is_at_or_below(parent, child));
        if !closes {
            self.containers[child].parent = Some(parent);
            self.containers[parent].has_children = true;
        }
    }

    /// The container of a message: that of its id, unless another message has taken it.
    fn place(&mut self, node: usize, own: Option<MessageIdHash>) -> At {
        if let Some(own) = own {
            let at = self.container(own);
            if self.containers[at].node.is_none() {
                self.containers[at].node = Some(node);
                return at;
            }
        }
        self.containers.push(Container { node: Some(node), ..Container::default() });
        self.containers.len() - 1
    }

    fn container(&mut self, id: MessageIdHash) -> At {
        let Self { containers, by_id, .. } = self;
        *by_id.entry(id).or_insert_with(|| {
            containers.push(Container::default());
            containers.len() - 1
        })
    }

    /// Whether `at` is `top` or stands below it, or nobody can tell any more. No link closes a circle, so the walk up ends.
    fn is_at_or_below(&mut self, at: At, top: At) -> bool {
        let mut walk = Some(at);
        while let Some(here) = walk {
            self.steps += 1;
            if here == top || self.steps > STEPS_MAX {
                return true;
            }
            walk = self.containers[here].parent;
        }
        false
    }

    fn nearest_present(&mut self, at: At) -> Option<usize> {
        let mut walk = self.containers[at].parent;
        while let Some(here) = walk {
            self.steps += 1;
            if self.containers[here].node.is_some() || self.steps > 2 * STEPS_MAX {
                return self.containers[here].node;
            }
            walk = self.containers[here].parent;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(own: u8, references: &[u8]) -> Node {
        let hash = |id: &u8| MessageIdHash([*id; 16]);
        Node { own: (own != 0).then(|| hash(&own)), references: references.iter().map(hash).collect() }
    }

    #[test]
    fn the_nearest_ancestor_that_is_present() {
        // 1 <- 2 (absent) <- 3; 4 refers to 2 alone and still hangs below 1, because 3 says where 2 stands.
        let nodes = [node(1, &[]), node(3, &[1, 2]), node(4, &[2]), node(0, &[3])];
        assert_eq!(parents(&nodes), [None, Some(0), Some(0), Some(1)]);
    }

    #[test]
    fn of_two_with_one_id_the_first_is_meant() {
        let nodes = [node(1, &[]), node(1, &[]), node(2, &[1])];
        assert_eq!(parents(&nodes), [None, None, Some(0)]);
    }

    #[test]
    fn a_cycle_is_cut() {
        let nodes = [node(1, &[2]), node(2, &[1]), node(3, &[3])];
        let parents = parents(&nodes);
        assert_eq!(parents[2], None);
        assert!(parents[0].is_none() || parents[1].is_none());
    }

    #[test]
    fn a_thread_made_to_be_deep_costs_a_bounded_walk() {
        let hash = |n: u32| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            MessageIdHash(id)
        };
        // Each message carries the chain of a hundred ids on where the one before it ended, the last ones first.
        let nodes: Vec<Node> = (0..1000)
            .rev()
            .map(|n| Node { own: None, references: (n * 99..n * 99 + 100).map(hash).collect() })
            .collect();
        let mut tree = Tree::default();
        let places: Vec<At> = nodes.iter().enumerate().map(|(node, message)| tree.add(node, message)).collect();
        for at in places {
            assert_eq!(tree.nearest_present(at), None);
        }
        assert!(tree.steps <= 2 * STEPS_MAX + nodes.len());
    }

    proptest! {
        #[test]
        fn every_walk_up_ends(nodes in proptest::collection::vec(
            (0u8..8, proptest::collection::vec(1u8..8, 0..5)), 0..20)) {
            let nodes: Vec<Node> = nodes.iter().map(|(own, references)| node(*own, references)).collect();
            let parents = parents(&nodes);
            for start in 0..nodes.len() {
                let (mut at, mut steps) = (start, 0);
                while let Some(parent) = parents[at] {
                    at = parent;
                    steps += 1;
                    prop_assert!(steps <= nodes.len());
                }
            }
        }
    }
}
