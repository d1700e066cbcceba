//! What the log of a node must be able to do, whatever keeps it.

use std::ops::Range;

use crate::ids::{GroupId, Incarnation, NodeId};
use crate::log::row::BadRow;
use crate::types::{Entry, LogId, Vote};
use crate::wire::InstallRecord;

/// Why the log could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The disk, or the database on it, refused.
    #[error("{action} the log: {reason}")]
    Engine { action: &'static str, reason: String },
    /// A row is damaged. It is there, and it is not readable.
    #[error("log row {key} of {group}: {source}")]
    Corrupt { group: GroupId, key: String, source: BadRow },
    /// Rows that must be there are not.
    #[error("log of {group} lacks entry {index}")]
    Hole { group: GroupId, index: u64 },
    /// The writer has ended.
    #[error("the log is closed")]
    Closed,
}

impl From<LogError> for std::io::Error {
    fn from(error: LogError) -> Self {
        let kind = match error {
            LogError::Corrupt { .. } | LogError::Hole { .. } => std::io::ErrorKind::InvalidData,
            LogError::Engine { .. } | LogError::Closed => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// One change of the log.
#[derive(Clone, Debug)]
pub(crate) enum LogOp {
    /// A replica of this making of the group is hosted from now on. A vote that was given in another making is forgotten: it binds
    /// nobody in this one.
    Host(Incarnation),
    /// It no longer is: everything of it goes, except its vote.
    Forget,
    /// Entries to add, consecutive, and what is known to be committed where that is news.
    Append { entries: Vec<Entry>, committed: Option<LogId> },
    /// The vote to remember.
    Vote(Vote),
    /// What is known to be committed.
    Committed(Option<LogId>),
    /// Entries from `from` on, to remove.
    Truncate { from: u64 },
    /// Entries up to `upto`, inclusive, to remove because they are in the state.
    Purge { upto: LogId },
    /// A pending installation to remember, or none.
    Installing(Option<InstallRecord>),
    /// Nothing: what was asked for before has been written once this has.
    Barrier,
}

impl LogOp {
    /// Whether somebody relies on this being on disk once told. A marker of what is committed, or purged, may be lost:
    /// then more is applied again, or purged again.
    pub(crate) fn wants_sync(&self) -> bool {
        !matches!(self, Self::Committed(_) | Self::Purge { .. } | Self::Barrier)
    }
}

/// What a write came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes written.
    pub(crate) bytes: u64,
    /// Bytes of zeros that were written behind them, for later.
    pub(crate) ahead: u64,
    /// Times that the disk was asked to make something durable.
    pub(crate) syncs: u64,
}

/// How much of the disk the log takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogSize {
    pub(crate) bytes: u64,
    /// What it should be at most. It may be exceeded; then everything that can be purged should be.
    pub(crate) bytes_max: u64,
    pub(crate) segments: usize,
}

/// What the log knows of a group when it is opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogHead {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    pub(crate) installing: Option<InstallRecord>,
}

/// A log for many groups.
///
/// Invariant: `write` is atomic, and what one call wrote is never there without what earlier calls wrote.
pub(crate) trait LogEngine: Send + Sync + 'static {
    /// Writes `ops` in order, in one piece. If one of them [wants a sync](LogOp::wants_sync), everything so far is on
    /// disk when this returns. After an error nothing of it counts, and the next write may succeed.
    fn write(&self, ops: &[(GroupId, LogOp)]) -> Result<Written, LogError>;

    /// The groups that this node hosts, and which making of each.
    fn groups(&self) -> Result<Vec<(GroupId, Incarnation)>, LogError>;

    /// What it knows of `group`; checks that the log has no hole at its ends.
    fn head(&self, group: GroupId) -> Result<LogHead, LogError>;

    /// Entries of `range`, as many as fit into `bytes_max`, at least one when there is one.
    fn entries(&self, group: GroupId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError>;

    /// The node that the log belongs to; taken by `node` when it belongs to nobody yet.
    fn claim(&self, node: NodeId) -> Result<NodeId, LogError>;

    /// Gives room back that purged entries took.
    fn reclaim(&self) -> Result<(), LogError>;

    /// Removes the files of everything that was ever purged: what was, is nowhere in the log's directory when this returns.
    /// What still counts is written anew.
    fn vacuum(&self) -> Result<(), LogError>;

    /// How much room it takes.
    fn size(&self) -> LogSize;
}
