//! Whoever follows the changes of this node's replicas: the one place where search and backup attach.
//!
//! A [`Follower`] has a thread of its own, beside consensus and never in its way. It is given the changes of each shard in
//! order, whole commands, each once, together with the rows; what it makes of them is derived, and so is its watermark, the
//! index up to which it has taken in everything: both are kept together, so that a start after a crash goes on exactly where
//! what was kept ends. Whoever was away for so long that the tail of changes does not reach back any more, and whoever is new,
//! builds anew from the rows.
//!
//! Rows are read from the database and not through consensus: following wakes no group, and a parked one costs nothing.

mod inbox;
mod tally;
mod thread;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use postrider_api::id::ShardId;
use postrider_shard::Broken;
use postrider_shard::store::RocksReader;
use postrider_shard::tail::Change;
use thiserror::Error;

use crate::scan::{Gone, ScanReader};
use crate::search::Search;

pub(crate) use inbox::{Follow, Inbox};
pub(crate) use tally::{Tallies, Tally};
pub(crate) use thread::FollowerThread;

/// Why a follower did not take something in. It is given the same again when its shard changes next.
#[derive(Debug, Error)]
pub(crate) enum FollowError {
    /// The rows cannot be read.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// What it derives cannot be kept.
    #[error("{path}: {source}")]
    Keep {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is being done elsewhere; whoever does it wakes the follower when it is over.
    #[error("it is being done")]
    Later,
    /// The node is shutting down in the middle of it.
    #[error("the node is shutting down")]
    Stopping,
    /// It says that it has taken in something else than it was given.
    #[error("it is at {found:?}, not at {wanted}, after it was given changes up to there")]
    Watermark {
        /// The end of what it was given.
        wanted: u64,
        /// Its watermark.
        found: Option<u64>,
    },
}

/// Why a follower builds anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It has no watermark, and the shard is older than its tail of changes.
    New,
    /// The tail is whole from `floor` on only: what changed between the watermark and there is not known any more.
    BelowFloor {
        /// Up to where it had followed.
        watermark: u64,
        /// From where on the tail is whole.
        floor: u64,
    },
}

/// Changes of whole commands of one shard.
pub(crate) struct Batch<'b> {
    /// In order, without gap behind the watermark.
    pub(crate) changes: &'b [Change],
    /// The watermark of whoever has taken them in.
    pub(crate) through: u64,
    /// The shard at some moment after them: a row may be newer than the change that names it, or be gone again.
    pub(crate) rows: &'b RocksReader<'b>,
}

/// A shard to build from.
pub(crate) struct Whole<'b> {
    /// Why.
    pub(crate) reason: Reason,
    /// Everything that it holds. A scan ends early when the node shuts down; [`Whole::check`] tells.
    pub(crate) rows: &'b ScanReader<'b>,
    /// The watermark of whoever has taken them in.
    pub(crate) through: u64,
    /// Whether the node shuts down.
    pub(crate) gone: &'b Gone,
}

impl Whole<'_> {
    /// Refuses what may have been cut short.
    pub(crate) fn check(&self) -> Result<(), FollowError> {
        if self.gone.has_left() { Err(FollowError::Stopping) } else { Ok(()) }
    }
}

/// One that follows changes. All calls come from its own thread.
pub(crate) trait Follower: Send + 'static {
    /// As metrics and logs name it.
    fn name(&self) -> &'static str;

    /// Shards of which it keeps something.
    fn shards(&self) -> Vec<ShardId>;

    /// The index up to which it has taken in everything of the shard; `None`: nothing yet.
    fn watermark(&self, shard: ShardId) -> Option<u64>;

    /// Takes in changes, and moves the watermark to their end.
    ///
    /// # Errors
    /// It is given them again.
    fn follow(&mut self, shard: ShardId, batch: &Batch<'_>) -> Result<(), FollowError>;

    /// Forgets what it has of the shard, takes in the rows instead, and moves the watermark to where they are. One that takes long does it
    /// on a thread of its own, says [`FollowError::Later`], and has itself woken.
    ///
    /// # Errors
    /// It is asked again.
    fn rebuild(&mut self, shard: ShardId, whole: &Whole<'_>) -> Result<(), FollowError>;

    /// A snapshot has replaced the replica's state, or the node has started. Nothing is missed by that: the tail of changes comes
    /// with the state, and where it does not reach back, [`Follower::rebuild`] is next. What was cached of rows is old.
    fn restored(&mut self, shard: ShardId);

    /// The replica was removed from this node: what was derived from it goes.
    ///
    /// # Errors
    /// What could not be removed; it is told again at the next start.
    fn removed(&mut self, shard: ShardId) -> Result<(), FollowError>;

    /// Keeps what was taken in, and the watermarks with it, in one piece. Called now and then while something has changed, and when
    /// the node shuts down (`leaving`). Whether all of it is kept; otherwise it is asked again in a while. Whoever keeps each batch as it
    /// comes does nothing.
    ///
    /// # Errors
    /// It is asked again; what was kept before still stands.
    fn keep(&mut self, leaving: bool) -> Result<bool, FollowError>;
}

/// Every follower of this node, before its replicas are opened.
pub(crate) fn all(dir: &std::path::Path, search: &Search) -> (Vec<Box<dyn Follower>>, Arc<Tallies>) {
    let tally = Tally::open(dir);
    let tallies = tally.tallies();
    let mut followers: Vec<Box<dyn Follower>> = vec![Box::new(tally)];
    if let Some(indexer) = search.indexer() {
        followers.push(Box::new(indexer));
    }
    (followers, tallies)
}
