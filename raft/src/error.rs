//! Errors of the host. Each variant changes what a caller does.

use crate::ids::{GroupId, Incarnation, NodeId};
use crate::quiesce::Unused;

/// Why a host could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory could not be created or read: an operator must look at the disk.
    #[error("prepare the directory {path}: {source}")]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A database does not open: it is in use, or damaged.
    #[error("open the {database} database: {reason}")]
    Database {
        /// `log` or `state`.
        database: &'static str,
        /// What RocksDB said.
        reason: String,
    },
    /// Stored rows contradict themselves or are newer than this version. Never repaired by wiping.
    #[error("stored rows are damaged: {0}")]
    Corrupt(String),
    /// The directory belongs to another node.
    #[error("the directory belongs to {found}, not to {expected}")]
    WrongNode {
        /// Who wrote it.
        found: NodeId,
        /// Who asked.
        expected: NodeId,
    },
    /// The timings or limits contradict each other.
    #[error("unusable options: {0}")]
    Options(String),
}

/// Why a proposal got no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or none that this node knows of: go there. Nothing was written.
    #[error("not the leader")]
    NotLeader {
        /// The leader that this node follows.
        leader: Option<NodeId>,
    },
    /// This node leads but hears no quorum. Nothing was written; try again later.
    #[error("no quorum")]
    NoQuorum,
    /// Too many bytes are in flight. Nothing was written; try again after a pause.
    #[error("too many proposals in flight")]
    Busy,
    /// This node hosts no replica of the group.
    #[error("no replica of this group here")]
    UnknownGroup,
    /// The payload is larger than a command may be.
    #[error("a command may have {max} bytes")]
    TooLarge {
        /// The limit, in bytes.
        max: usize,
    },
    /// It may commit, or may not, or has: only the same request id makes a retry safe.
    #[error("the outcome is unknown")]
    Unknown,
    /// The replica has stopped.
    #[error("the replica has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why a consistent read is not possible here now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads, or none that this node knows of.
    #[error("not the leader")]
    NotLeader {
        /// The leader that this node follows.
        leader: Option<NodeId>,
    },
    /// This node leads but hears no quorum, or has not applied in time what is committed.
    #[error("no quorum")]
    NoQuorum,
    /// This node hosts no replica of the group.
    #[error("no replica of this group here")]
    UnknownGroup,
    /// The replica has stopped.
    #[error("the replica has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why a replica could not be opened, created, removed or flushed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// This node hosts no replica of the group.
    #[error("no replica of this group here")]
    UnknownGroup,
    /// The replica here belongs to another making of the group, which has begun: it is not taken for one of this.
    #[error(
        "the replica of {group} here is of incarnation {hosted}: it was not removed with its group; remove it first"
    )]
    OtherIncarnation {
        /// Which group.
        group: GroupId,
        /// The incarnation of the replica.
        hosted: Incarnation,
    },
    /// The node is not among the members with which the group was to be created.
    #[error("this node is not a member of the new group")]
    NotAMember,
    /// The node hosts as many replicas as it may.
    #[error("a node may host {max} replicas")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The host is shutting down.
    #[error("the host is closed")]
    Closed,
    /// The log or the state could not be read or written.
    #[error("storage of {group}: {reason}")]
    Storage {
        /// Whose.
        group: GroupId,
        /// What happened.
        reason: String,
    },
}

/// Why a change of members, or of the leader, did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Another node leads, or none that this node knows of.
    #[error("not the leader")]
    NotLeader {
        /// The leader that this node follows.
        leader: Option<NodeId>,
    },
    /// This node leads but hears no quorum.
    #[error("no quorum")]
    NoQuorum,
    /// This node hosts no replica of the group.
    #[error("no replica of this group here")]
    UnknownGroup,
    /// Another change is under way: wait for it, then ask again.
    #[error("another change of members is under way")]
    InProgress,
    /// A node that should vote is not a learner yet: add it first.
    #[error("{node} is not a member yet")]
    UnknownMember {
        /// Which.
        node: NodeId,
    },
    /// The change would leave nobody, or change an address in passing.
    #[error("not a possible set of members: {reason}")]
    Impossible {
        /// Why not.
        reason: String,
    },
    /// It was asked for, and did not happen in time. It may still happen.
    #[error("the outcome is unknown")]
    Unknown,
    /// The replica has stopped.
    #[error("the replica has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// A group that cannot be used cannot be so for whatever it was to be used for.
macro_rules! from_unused {
    ($($error:ty),+) => {$(
        impl From<Unused> for $error {
            fn from(unused: Unused) -> Self {
                match unused {
                    Unused::Stopped(reason) => Self::Stopped { reason },
                    Unused::NoQuorum => Self::NoQuorum,
                    Unused::NotLeader(leader) => Self::NotLeader { leader },
                }
            }
        }
    )+};
}

from_unused!(ProposeError, ReadError, MemberError);
