//! Whole states on their way from one node to another.
//!
//! The sender walks a RocksDB snapshot of the group's rows and sends them as checksummed [`block`]s ([`send`]); the
//! receiver turns them into files ([`spool`]) which [`install`] puts in the place of what the group had, in one piece.
//! Memory stays bounded by a few blocks on both sides. A stream that breaks is followed by another that goes on where it broke
//! ([`reception`]).
//!
//! Invariant: a group's state is replaced as a whole or not at all, whenever the process dies.

pub(crate) mod block;
pub(crate) mod install;
pub(crate) mod reception;
pub(crate) mod send;
pub(crate) mod spool;

use std::sync::Arc;

use crate::ids::GroupId;
use crate::snapshot::spool::Spooled;
use crate::state::store::StateStore;

/// What openraft hands around as "the snapshot".
pub(crate) enum SnapshotData {
    /// This replica's state, to be read when it is sent.
    Outgoing(Outgoing),
    /// A state that was received, in files. Boxed: openraft keeps room for 32 of these for each of a replica's queues.
    Spooled(Box<Spooled>),
}

/// A group's state at whatever moment it will be read: at or after the moment at which openraft asked for it.
pub(crate) struct Outgoing {
    pub(crate) group: GroupId,
    pub(crate) store: Arc<StateStore>,
}

impl Outgoing {
    pub(crate) fn new(group: GroupId, store: Arc<StateStore>) -> Self {
        Self { group, store }
    }
}
