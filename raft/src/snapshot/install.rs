//! Putting a received state in the place of what a group had.
//!
//! The order is what makes it safe: the files are complete and synced; a record says so durably; the database takes
//! them over in one piece; the record goes. A process that dies in between finds the record when it starts and goes on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::faults::{FaultPoint, Faults};
use crate::ids::GroupId;
use crate::log::engine::LogOp;
use crate::log::writer::Writer;
use crate::snapshot::SnapshotData;
use crate::snapshot::send;
use crate::snapshot::spool::{Spool, Spooled, remove_folder};
use crate::state::store::StateStore;
use crate::types::SnapshotMeta;
use crate::wire::{InstallRecord, StateMeta};

/// Installs snapshots for all groups of a node.
pub(crate) struct Installer {
    pub(crate) store: Arc<StateStore>,
    pub(crate) writer: Writer,
    pub(crate) spool: Spool,
    pub(crate) faults: Arc<dyn Faults>,
    pub(crate) block_bytes: usize,
    /// Names folders apart within one life of the process; folders of earlier lives are gone before groups open.
    pub(crate) serial: AtomicU64,
}

impl Installer {
    /// A folder name that nobody else uses.
    pub(crate) fn folder(&self, group: GroupId) -> String {
        format!("{group}-{}", self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// Replaces the state of `group` and returns what it is now.
    pub(crate) async fn install(&self, group: GroupId, snapshot: SnapshotData) -> io::Result<SnapshotMeta> {
        let spooled = match snapshot {
            SnapshotData::Spooled(spooled) => spooled,
            SnapshotData::Outgoing(outgoing) => {
                let reading = send::read(outgoing, self.block_bytes).await?;
                let spool = self.spool.clone();
                let folder = self.folder(group);
                tokio::task::spawn_blocking(move || spool.receive(group, reading.meta, folder, reading.pieces))
                    .await
                    .map_err(io::Error::other)??
            }
        };
        let reach = |point| self.faults.reach(point).map_err(io::Error::other);
        reach(FaultPoint::InstallSpooled)?;
        let record = InstallRecord {
            meta: Some((&spooled.meta).into()),
            folder: spooled.folder.clone(),
            files: spooled.files.clone(),
        };
        self.writer.write(group, None, LogOp::Installing(Some(record))).await?;
        reach(FaultPoint::InstallRecorded)?;
        let meta = self.take_over(group, spooled).await?;
        reach(FaultPoint::InstallIngested)?;
        self.writer.write(group, None, LogOp::Installing(None)).await?;
        Ok(meta)
    }

    /// Goes on with an installation that a dead process had begun.
    pub(crate) async fn resume(&self, group: GroupId, record: InstallRecord) -> io::Result<()> {
        let meta = SnapshotMeta::try_from(record.meta.as_ref().unwrap_or(&StateMeta::default()))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let present = self.store.meta(group)?.unwrap_or_default();
        if present.last_log_id < meta.last_log_id {
            tracing::info!(%group, "resuming the installation of a snapshot");
            let spooled = Spooled { meta, folder: record.folder.clone(), files: record.files };
            self.take_over(group, spooled).await?;
        } else {
            remove_folder(&self.spool.path(&record.folder))?;
        }
        self.writer.write(group, None, LogOp::Installing(None)).await?;
        Ok(())
    }

    async fn take_over(&self, group: GroupId, spooled: Spooled) -> io::Result<SnapshotMeta> {
        let path = self.spool.path(&spooled.folder);
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            let files = spooled.files.iter().map(|file| path.join(file)).collect();
            store.ingest(files)?;
            remove_folder(&path)?;
            let meta = store.meta(group)?.unwrap_or_default();
            if meta.last_log_id != spooled.meta.last_log_id {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{group}: the installed state is of {:?}, not of {:?}",
                        meta.last_log_id, spooled.meta.last_log_id
                    ),
                ));
            }
            Ok(meta)
        })
        .await
        .map_err(io::Error::other)?
    }
}
