//! Named points at which a test may crash the process or fail an operation.

/// Where a fault may strike. Each point is between two steps whose order the rules of durability depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultPoint {
    /// Entries, votes and markers are gathered, nothing is written yet.
    LogBeforeWrite,
    /// The batch is in the log and synced, nobody has been told.
    LogAfterSync,
    /// Committed entries are about to change the state.
    StateBeforeApply,
    /// The state has changed in memory, nobody has been told.
    StateAfterApply,
    /// The state database is about to be flushed.
    FlushBefore,
    /// The state database was flushed, the log still holds everything.
    FlushAfter,
    /// Entries behind the flushed index are about to be purged.
    PurgeBefore,
    /// Entries behind the flushed index were purged.
    PurgeAfter,
    /// A file of a snapshot that is being received is complete; more are to come.
    InstallFileSealed,
    /// A snapshot was received completely and synced; nothing says so yet.
    InstallSpooled,
    /// The record of the pending installation is durable.
    InstallRecorded,
    /// The files were ingested, the record is still there.
    InstallIngested,
    /// A replica's log rows are gone, its state is still there.
    RemoveLogGone,
}

/// The operation at this point fails, as if the disk had refused.
#[derive(Debug, thiserror::Error)]
#[error("injected fault at {0:?}")]
pub struct Injected(pub FaultPoint);

/// Decides at each point. Production never strikes; tests fail the operation or abort the process.
pub trait Faults: Send + Sync + 'static {
    /// Called when `point` is reached.
    ///
    /// # Errors
    /// When the operation is to fail here.
    fn reach(&self, point: FaultPoint) -> Result<(), Injected>;
}

/// No faults: production.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn reach(&self, _: FaultPoint) -> Result<(), Injected> {
        Ok(())
    }
}
