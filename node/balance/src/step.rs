//! What a plan consists of: one change of one shard, the command that records it, and why.

use std::fmt;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb;
use postrider_api::pb::command::Op;

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A replica is lost.
    Danger,
    /// A policy is not kept.
    Policy,
    /// A node is being emptied.
    Drain,
    /// Leads are elsewhere than they should be, or uneven.
    Leads,
    /// Bytes or writes are uneven.
    Balance,
}

/// One change of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The shard.
    pub shard: ShardId,
    /// What becomes of it.
    pub change: Change,
    /// The epoch that the shard had in the view: a later one has other replicas.
    pub epoch: u64,
    /// What it is for.
    pub priority: Priority,
    /// Why: its `Display` is one sentence for operators.
    pub reason: Reason,
}

/// What becomes of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It has its replicas on exactly these nodes.
    Replicas {
        /// All of them.
        replicas: Vec<NodeId>,
        /// Those that it did not have.
        add: Vec<NodeId>,
        /// Those that it has no more.
        remove: Vec<NodeId>,
    },
    /// Its primary is at home in another region.
    Home {
        /// The region's name.
        region: String,
        /// The node that leads there.
        lead: NodeId,
    },
}

impl Step {
    /// The command by which the step is recorded as an operation, on behalf of another one (0: of none).
    #[must_use]
    pub fn command(&self, parent: u64) -> Op {
        let reason = self.reason.to_string();
        match &self.change {
            Change::Replicas { replicas, .. } => Op::SetReplicas(pb::SetReplicas {
                shard: self.shard.0,
                replicas: replicas.iter().map(|node| node.0).collect(),
                epoch: self.epoch,
                parent,
                reason,
            }),
            Change::Home { region, .. } => {
                Op::SetHome(pb::SetHome { shard: self.shard.0, region: region.clone(), parent, reason })
            }
        }
    }

    /// Replicas that are made somewhere: what a move costs.
    #[must_use]
    pub fn moves(&self) -> usize {
        match &self.change {
            Change::Replicas { add, .. } => add.len(),
            Change::Home { .. } => 0,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: {}", self.shard, self.change)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicas { add, remove, .. } if add.is_empty() => write!(f, "remove {}", Nodes(remove)),
            Self::Replicas { add, remove, .. } if remove.is_empty() => write!(f, "add {}", Nodes(add)),
            Self::Replicas { add, remove, .. } => write!(f, "replace {} by {}", Nodes(remove), Nodes(add)),
            Self::Home { region, lead } => write!(f, "home in {region}, node {lead} leads"),
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Danger => "danger",
            Self::Policy => "policy",
            Self::Drain => "drain",
            Self::Leads => "leads",
            Self::Balance => "balance",
        })
    }
}

struct Nodes<'n>(&'n [NodeId]);

impl fmt::Display for Nodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.len() == 1 { "node " } else { "nodes " })?;
        for (at, node) in self.0.iter().enumerate() {
            write!(f, "{}{node}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// What nodes bear, as a reason names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Of a node's disk.
    Bytes,
    /// Of what it bears all day.
    Writes,
    /// Leads, by what it bears all day.
    Leads,
}

/// A node and what it bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bearer {
    /// The node.
    pub node: NodeId,
    /// MiB, writes a second, leads.
    pub amount: u64,
    /// What it can bear of these; leads: writes a second.
    pub capacity: u64,
}

/// Why a step is taken, or why something stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A member will not come back.
    Gone {
        /// The member.
        node: NodeId,
        /// Members that answer.
        live: usize,
        /// All members.
        of: usize,
        /// How many more may fail before writes are refused.
        spare: usize,
    },
    /// More replicas than the policy wants.
    TooMany {
        /// How many there are.
        found: usize,
        /// How many are wanted.
        wanted: usize,
        /// The policy.
        policy: String,
    },
    /// Fewer replicas than the policy wants.
    TooFew {
        /// How many there are.
        found: usize,
        /// How many are wanted.
        wanted: usize,
        /// The policy.
        policy: String,
    },
    /// A replica is where none may be.
    Forbidden {
        /// Who has it.
        node: NodeId,
        /// Its region.
        region: String,
        /// The policy.
        policy: String,
    },
    /// Two replicas fail at once.
    Together {
        /// One.
        node: NodeId,
        /// The other.
        other: NodeId,
        /// What both are in.
        domain: String,
    },
    /// No replica is where the primary should be.
    NoneAtHome {
        /// The region.
        region: String,
        /// The policy.
        policy: String,
    },
    /// The node is being emptied.
    Draining {
        /// The node.
        node: NodeId,
    },
    /// The home region has no replica, or may have none.
    HomeEmpty {
        /// The region.
        region: String,
    },
    /// The policy names another home.
    HomePreferred {
        /// The region.
        region: String,
        /// The policy.
        policy: String,
    },
    /// Two nodes bear differently.
    Uneven {
        /// What.
        measure: Measure,
        /// The one with more.
        from: Bearer,
        /// The one with less.
        to: Bearer,
    },
    /// Fewer members answer than a quorum: nothing can be agreed on.
    QuorumLost {
        /// Members that answer.
        live: usize,
        /// All members.
        of: usize,
    },
    /// No node may take a replica: none is up, free of the shard, allowed by its policy, apart from its others, and has room.
    NoPlace {
        /// Why one is wanted.
        wanted: Box<Reason>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone { node, live, of, spare } => {
                write!(f, "node {node} is gone for good; {live} of {of} replicas answer, and ")?;
                match spare {
                    0 => f.write_str("one more failure stops the shard"),
                    1 => f.write_str("one more failure is borne"),
                    spare => write!(f, "{spare} more failures are borne"),
                }
            }
            Self::TooMany { found, wanted, policy } | Self::TooFew { found, wanted, policy } => {
                write!(f, "policy {policy} wants {wanted} replicas, there are {found}")
            }
            Self::Forbidden { node, region, policy } => {
                write!(f, "node {node} is in region {region}, where policy {policy} allows no replica")
            }
            Self::Together { node, other, domain } => write!(f, "nodes {node} and {other} are both in {domain}"),
            Self::NoneAtHome { region, policy } => {
                write!(f, "policy {policy} wants the primary in region {region}, where the shard has no replica")
            }
            Self::Draining { node } => write!(f, "node {node} is being emptied"),
            Self::HomeEmpty { region } => {
                write!(f, "its home is region {region}, where it has no replica or may have none")
            }
            Self::HomePreferred { region, policy } => {
                write!(f, "policy {policy} wants the primary in region {region}")
            }
            Self::Uneven { measure, from, to } => {
                let (more, less) = (Borne(*measure, from), Borne(*measure, to));
                write!(f, "node {} {more}, node {} {less}", from.node, to.node)?;
                // Of nodes that can bear the same, the amounts say it all.
                if from.capacity == to.capacity {
                    return Ok(());
                }
                write!(f, ": {} and {} % of what they can bear", Share(from), Share(to))
            }
            Self::QuorumLost { live, of } => {
                write!(f, "{live} of {of} replicas answer: no quorum, so nothing about the shard can be changed")
            }
            Self::NoPlace { wanted } => {
                write!(
                    f,
                    "{wanted}; no node that is up, allowed, apart from its other replicas and has room can take one"
                )
            }
        }
    }
}

/// What a node bears, in words.
struct Borne<'b>(Measure, &'b Bearer);

impl fmt::Display for Borne<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = self.1.amount;
        match self.0 {
            Measure::Bytes if amount < 10 << 10 => write!(f, "holds {amount} MiB"),
            Measure::Bytes => write!(f, "holds {} GiB", amount >> 10),
            Measure::Writes => write!(f, "has {amount} writes a second"),
            Measure::Leads => write!(f, "leads {amount} shards"),
        }
    }
}

/// Hundredths of what a node can bear, with one decimal.
struct Share<'b>(&'b Bearer);

impl fmt::Display for Share<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let permille = u128::from(self.0.amount) * 1000 / u128::from(self.0.capacity.max(1));
        write!(f, "{}.{}", permille / 10, permille % 10)
    }
}
