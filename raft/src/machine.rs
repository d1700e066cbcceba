//! What a group's state machine must be.

use std::sync::Arc;

use bytes::Bytes;

use crate::ids::GroupId;

/// A committed proposal, handed to the machine in log order.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its place in the log. Indexes grow, with gaps where consensus writes entries of its own.
    pub index: u64,
    /// The term in which it was proposed: one leader per term, so this names the proposer.
    pub term: u64,
    /// The bytes that were proposed.
    pub payload: Bytes,
}

/// A broken invariant: the replica stops, loudly, and does not guess.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MachineError(pub String);

/// One group's state machine. Pure bytes in, bytes out.
///
/// Invariant: `apply` is deterministic: no clock, no randomness, nothing but the database and the commands.
pub trait Machine: Send + Sync + 'static {
    /// Applies `commands` in order and returns one reply per command.
    ///
    /// Writes go to `batch`; every key starts with [`crate::state_prefix`] of the group. Reads through `db` see the
    /// state before the batch. The batch is written in one piece together with the index of the last command.
    ///
    /// # Errors
    /// A broken invariant: nothing of the batch is written and the replica stops.
    fn apply(
        &self,
        db: &rocksdb::DB,
        batch: &mut rocksdb::WriteBatch,
        commands: &[Committed],
    ) -> Result<Vec<Bytes>, MachineError>;

    /// The batch that ends at `index` has been written and readers see it: wake who waits for it.
    fn applied(&self, index: u64);

    /// The group was opened, or a snapshot has replaced its state: forget what is cached. `applied` is what the
    /// database holds now.
    fn restored(&self, applied: u64);
}

/// Makes the machine of each group that the host opens.
pub trait MachineFactory: Send + Sync + 'static {
    /// The machine of `group`. Called once each time that a replica is opened.
    fn machine(&self, group: GroupId) -> Arc<dyn Machine>;
}
