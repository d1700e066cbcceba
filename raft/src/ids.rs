//! Names of groups and nodes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One Raft group: a shard's replicas agree under this number. Never reused for another shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u32);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// One making of a group: a number that whoever makes it draws by chance. A replica belongs to one, and takes no message from another:
/// what was written for a group that was removed has nothing to say in one that was made under its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A group and which making of it: what a message is meant for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIdentity {
    /// The group.
    pub id: GroupId,
    /// Which making.
    pub incarnation: Incarnation,
}

/// One storage node. Never given to a node with another data directory: a reused id could vote twice in one term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl From<u64> for NodeId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// Where a member of a group is reached. Travels in the group's membership entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `host:port` of the node's gRPC server.
    pub address: String,
    /// The region that the node is in; consensus itself does not look at it.
    pub region: String,
}
