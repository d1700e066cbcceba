//! Putting a received state in the place of what a group had.
//!
//! The order is what makes it safe: the files are complete and synced; a record says so durably; the database takes
//! them over in one piece; the record goes. A process that dies in between finds the record when it starts and goes on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::faults::{FaultPoint, Faults};
use crate::ids::GroupId;
use crate::log::engine::LogOp;
use crate::log::writer::Writer;
use crate::snapshot::SnapshotData;
use crate::snapshot::send;
use crate::snapshot::spool::{Folder, Received, Spool, Spooled, remove_folder};
use crate::state::machine::enter;
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
    /// Names folders apart. Begins anywhere: what a life of the process before has forgotten to remove has other names.
    pub(crate) serial: AtomicU64,
}

impl Installer {
    /// A folder name that nobody else uses.
    pub(crate) fn folder(&self, group: GroupId) -> String {
        format!("{group}-{:016x}", self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// Replaces the state of `group` and returns what it is now.
    ///
    /// Nothing is replaced once `retired` is set.
    pub(crate) async fn install(
        &self,
        group: GroupId,
        snapshot: SnapshotData,
        retired: Arc<Mutex<bool>>,
    ) -> io::Result<SnapshotMeta> {
        let mut spooled = match snapshot {
            SnapshotData::Spooled(spooled) => *spooled,
            SnapshotData::Outgoing(outgoing) => {
                let reading = send::read(outgoing, self.block_bytes).await?;
                let pieces = reading.pieces(0).await?;
                let (spool, folder, meta) = (self.spool.clone(), self.folder(group), reading.meta.clone());
                let received = tokio::task::spawn_blocking(move || {
                    let partial = spool.begin(group, meta, &folder)?;
                    spool.receive(partial, pieces)
                });
                match received.await.map_err(io::Error::other)?? {
                    Received::Whole(spooled) => spooled,
                    Received::Part(_) => return Err(io::Error::other("reading the state ended early")),
                }
            }
        };
        let reach = |point| self.faults.reach(point).map_err(io::Error::other);
        reach(FaultPoint::InstallSpooled)?;
        let record = InstallRecord {
            meta: Some((&spooled.meta).into()),
            folder: spooled.folder.name().to_owned(),
            files: spooled.files.clone(),
        };
        // From here on the record may be durable, and whoever finds it needs the files.
        spooled.folder.keep();
        self.writer.write(group, None, LogOp::Installing(Some(record))).await?;
        reach(FaultPoint::InstallRecorded)?;
        let meta = self.take_over(group, spooled, retired).await?;
        reach(FaultPoint::InstallIngested)?;
        self.writer.write(group, None, LogOp::Installing(None)).await?;
        Ok(meta)
    }

    /// Goes on with an installation that a dead process had begun.
    pub(crate) async fn resume(&self, group: GroupId, record: InstallRecord) -> io::Result<()> {
        let meta = SnapshotMeta::try_from(record.meta.as_ref().unwrap_or(&StateMeta::default()))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let present = self.store.meta(group)?.unwrap_or_default();
        let path = self.spool.path(&record.folder);
        let complete = record.files.iter().all(|file| path.join(file).is_file());
        if present.last_log_id >= meta.last_log_id {
            remove_folder(&path)?;
        } else if complete {
            tracing::info!(%group, "resuming the installation of a snapshot");
            let folder = Folder::kept(path, record.folder);
            self.take_over(group, Spooled { meta, folder, files: record.files }, Arc::default()).await?;
        } else {
            // The files come into the database all at once, so none of them did: the old state is whole, and so is the
            // log behind it, which is purged after an installation and never before.
            tracing::error!(%group, "the files of a snapshot are gone; it is given up and the old state stays");
            remove_folder(&path)?;
        }
        self.writer.write(group, None, LogOp::Installing(None)).await?;
        Ok(())
    }

    async fn take_over(&self, group: GroupId, spooled: Spooled, retired: Arc<Mutex<bool>>) -> io::Result<SnapshotMeta> {
        let path = spooled.folder.path().to_owned();
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            let files = spooled.files.iter().map(|file| path.join(file)).collect();
            let entered = enter(&retired)?;
            store.ingest(files)?;
            drop(entered);
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
