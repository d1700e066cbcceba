//! What a plan is made from: the cluster as it is now, as whoever asks knows it.

use postrider_api::id::{NodeId, ShardId};
use thiserror::Error;

use crate::members::MEMBERS_MAX;

/// The largest capacity that is reckoned with, bytes and writes a second: far beyond any node, far below where sums overflow.
pub const CAPACITY_MAX: u64 = 1 << 53;
/// Nodes of one cell.
pub const NODES_MAX: usize = 1 << 16;
/// Regions of one cell: each pair is a link.
pub const REGIONS_MAX: usize = 1 << 10;
/// Policies of one cell.
pub const POLICIES_MAX: usize = 1 << 16;

/// A region: its place in [`View::regions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionNo(pub u16);

/// A policy: its place in [`View::policies`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyNo(pub u16);

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Names of its regions.
    pub regions: Vec<String>,
    /// By rising id.
    pub nodes: Vec<Node>,
    /// What shards may be held to.
    pub policies: Vec<Policy>,
    /// By rising id.
    pub shards: Vec<Shard>,
}

/// Whether a node can be reckoned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It answers.
    Up,
    /// It does not answer, and not for long enough to be given up. Nothing is brought to it, and the shards that it has a part in are left as
    /// they are.
    Silent,
    /// It answers, and is being emptied (`DrainNode`).
    Draining,
    /// It has not answered for so long that its replicas are made elsewhere.
    Dead,
    /// It was removed (`RemoveNode`), and may not come back.
    Removed,
}

/// What a node can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Of its disk.
    pub bytes: u64,
    /// That it bears all day. Leads are shared out by it, too: a lead is work.
    pub writes_per_s: u64,
}

/// A storage node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Where it is.
    pub region: RegionNo,
    /// What fails at once with other nodes that name the same; empty: nothing but its region.
    pub failure_domain: String,
    /// What it can take.
    pub capacity: Capacity,
    /// Bytes on its disk that belong to no shard of the view.
    pub other_bytes: u64,
    /// Whether it can be reckoned with.
    pub state: NodeState,
}

/// What has at most one replica of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// A region, and a failure domain that several regions share.
    Regions,
    /// A failure domain: a region may have several. Nodes of a region that name none are one domain together.
    Domains,
}

/// What a shard is held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// For people.
    pub name: String,
    /// 1, 3, 5 or 7: what `SetReplicas` takes.
    pub replicas: u8,
    /// The regions that may hold one. For residency they are all in one zone.
    pub regions: Vec<RegionNo>,
    /// What has at most one.
    pub spread: Spread,
    /// Where the primary should be.
    pub home: Option<RegionNo>,
}

/// A shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its number.
    pub id: ShardId,
    /// What it is held to.
    pub policy: PolicyNo,
    /// 1 to 7 nodes.
    pub replicas: Vec<NodeId>,
    /// Who leads it now, if that is known.
    pub lead: Option<NodeId>,
    /// Where its lead should be. Nodes bring it there by themselves (ADR 033).
    pub home: RegionNo,
    /// Of its row in placement.
    pub epoch: u64,
    /// Of one replica.
    pub bytes: u64,
    /// Of one replica.
    pub writes_per_s: u64,
    /// What is changing it now.
    pub running: Option<Running>,
}

/// An operation of a shard that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Running {
    /// `SetReplicas`, to these.
    Replicas(Vec<NodeId>),
    /// `SetHome`.
    Home,
}

/// A view that does not hang together.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ViewError {
    /// There are more of them than are reckoned with.
    #[error("{field}: {found}, at most {max}")]
    TooMany {
        /// Of the view.
        field: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// They have to rise.
    #[error("{field}: {id} comes after one that is not smaller")]
    Order {
        /// Of the view.
        field: &'static str,
        /// The second.
        id: u64,
    },
    /// A place that the view has not.
    #[error("{what}: there is no {missing}")]
    Unknown {
        /// What names it.
        what: String,
        /// What it names.
        missing: String,
    },
    /// A number out of its range.
    #[error("{what}: {found}, not {wanted}")]
    Range {
        /// The field.
        what: String,
        /// Its value.
        found: u64,
        /// What it may be.
        wanted: &'static str,
    },
    /// A node has two replicas of one shard.
    #[error("shard {shard}: node {node} is named twice")]
    Twice {
        /// The shard.
        shard: u32,
        /// The node.
        node: u64,
    },
}

impl View {
    /// The place of a node in [`View::nodes`].
    #[must_use]
    pub fn place_of(&self, id: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok()
    }

    /// # Errors
    /// When the view does not hang together: names the field.
    pub fn check(&self) -> Result<(), ViewError> {
        at_most("regions", self.regions.len(), REGIONS_MAX)?;
        at_most("nodes", self.nodes.len(), NODES_MAX)?;
        at_most("policies", self.policies.len(), POLICIES_MAX)?;
        rising("nodes", self.nodes.iter().map(|node| node.id.0))?;
        rising("shards", self.shards.iter().map(|shard| u64::from(shard.id.0)))?;
        self.nodes.iter().try_for_each(|node| self.check_node(node))?;
        self.policies.iter().try_for_each(|policy| self.check_policy(policy))?;
        self.shards.iter().try_for_each(|shard| self.check_shard(shard))
    }

    fn check_region(&self, what: impl Fn() -> String, region: RegionNo) -> Result<(), ViewError> {
        if usize::from(region.0) < self.regions.len() {
            return Ok(());
        }
        Err(ViewError::Unknown { what: what(), missing: format!("region number {}", region.0) })
    }

    fn check_node(&self, node: &Node) -> Result<(), ViewError> {
        self.check_region(|| format!("node {}", node.id), node.region)?;
        for (field, found) in [("bytes", node.capacity.bytes), ("writes_per_s", node.capacity.writes_per_s)] {
            if found == 0 || found > CAPACITY_MAX {
                let what = format!("node {}, capacity.{field}", node.id);
                return Err(ViewError::Range { what, found, wanted: "1 to 2^53" });
            }
        }
        Ok(())
    }

    fn check_policy(&self, policy: &Policy) -> Result<(), ViewError> {
        let what = |field: &str| format!("policy {:?}, {field}", policy.name);
        if ![1, 3, 5, 7].contains(&policy.replicas) {
            let found = u64::from(policy.replicas);
            return Err(ViewError::Range { what: what("replicas"), found, wanted: "1, 3, 5 or 7" });
        }
        policy.regions.iter().try_for_each(|region| self.check_region(|| what("regions"), *region))?;
        match policy.home {
            Some(home) if !policy.regions.contains(&home) => {
                Err(ViewError::Unknown { what: what("home"), missing: format!("region number {} in regions", home.0) })
            }
            _ => Ok(()),
        }
    }

    fn check_shard(&self, shard: &Shard) -> Result<(), ViewError> {
        let what = || format!("shard {}", shard.id);
        if usize::from(shard.policy.0) >= self.policies.len() {
            return Err(ViewError::Unknown { what: what(), missing: format!("policy number {}", shard.policy.0) });
        }
        self.check_region(what, shard.home)?;
        check_replicas(shard.id, &shard.replicas)?;
        match &shard.running {
            Some(Running::Replicas(wanted)) => check_replicas(shard.id, wanted),
            Some(Running::Home) | None => Ok(()),
        }
    }
}

fn check_replicas(shard: ShardId, replicas: &[NodeId]) -> Result<(), ViewError> {
    if replicas.is_empty() || replicas.len() > MEMBERS_MAX {
        let (what, found) = (format!("shard {shard}, replicas"), replicas.len() as u64);
        return Err(ViewError::Range { what, found, wanted: "1 to 7" });
    }
    for (at, node) in replicas.iter().enumerate() {
        if replicas[..at].contains(node) {
            return Err(ViewError::Twice { shard: shard.0, node: node.0 });
        }
    }
    Ok(())
}

fn at_most(field: &'static str, found: usize, max: usize) -> Result<(), ViewError> {
    if found <= max { Ok(()) } else { Err(ViewError::TooMany { field, found, max }) }
}

fn rising(field: &'static str, ids: impl Iterator<Item = u64>) -> Result<(), ViewError> {
    let mut last = None;
    for id in ids {
        if last.is_some_and(|last| last >= id) {
            return Err(ViewError::Order { field, id });
        }
        last = Some(id);
    }
    Ok(())
}
