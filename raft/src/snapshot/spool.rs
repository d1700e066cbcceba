//! Turning a received state into files that the database can take over.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{Options, SstFileWriter};
use tokio::sync::mpsc;

use crate::faults::{FaultPoint, Faults};
use crate::ids::GroupId;
use crate::snapshot::block::{self, BlockError, Total};
use crate::snapshot::send::Piece;
use crate::state::key;
use crate::state::store::{io_error, table_options};
use crate::types::SnapshotMeta;

/// A received state: complete, verified and synced.
#[derive(Debug)]
pub(crate) struct Spooled {
    pub(crate) meta: SnapshotMeta,
    /// Where its files are.
    pub(crate) folder: Folder,
    /// Names of the files in it, in the order in which they are to be ingested. The first one deletes what was there.
    pub(crate) files: Vec<String>,
}

/// A state of which the beginning was received. Its files are complete and synced.
#[derive(Debug)]
pub(crate) struct Partial {
    group: GroupId,
    meta: SnapshotMeta,
    folder: Folder,
    files: Vec<String>,
    /// The last key, to see that keys ascend.
    last: Vec<u8>,
    total: Total,
}

impl Partial {
    /// How many blocks are in it.
    pub(crate) fn blocks(&self) -> u64 {
        self.total.blocks
    }
}

/// What a stream of pieces has come to.
#[derive(Debug)]
pub(crate) enum Received {
    /// Its end.
    Whole(Spooled),
    /// It broke off.
    Part(Partial),
}

/// A folder of files that goes when nobody wants it: its sender went away, its installation was refused.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    name: String,
    kept: bool,
}

impl Folder {
    fn create(dir: &Path, name: &str) -> io::Result<Self> {
        let path = dir.join(name);
        remove_folder(&path)?;
        std::fs::create_dir_all(&path)?;
        Ok(Self { path, name: name.to_owned(), kept: false })
    }

    /// A folder that a record names.
    pub(crate) fn kept(path: PathBuf, name: String) -> Self {
        Self { path, name, kept: true }
    }

    /// Its name below the spool directory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it to whoever reads the record that names it.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = remove_folder(&self.path)
        {
            tracing::warn!(folder = self.name, %error, "a received snapshot stays behind until the next start");
        }
    }
}

/// Where the files go and how large they may be.
#[derive(Clone)]
pub(crate) struct Spool {
    pub(crate) dir: PathBuf,
    pub(crate) file_bytes: u64,
    pub(crate) faults: Arc<dyn Faults>,
}

impl Spool {
    /// Makes a fresh folder for a state. Blocks.
    pub(crate) fn begin(&self, group: GroupId, meta: SnapshotMeta, folder: &str) -> io::Result<Partial> {
        let folder = Folder::create(&self.dir, folder)?;
        let mut partial = Partial { group, meta, folder, files: Vec::new(), last: Vec::new(), total: Total::default() };
        let options = table_options();
        Files { partial: &mut partial, options: &options, current: None }.tombstone()?;
        Ok(partial)
    }

    /// Writes `pieces` to files behind those of `partial`, checks the whole against its total, and syncs. Blocks.
    ///
    /// # Errors
    /// When the disk refuses or the pieces are damaged. What was received is gone then.
    pub(crate) fn receive(
        &self,
        mut partial: Partial,
        mut pieces: mpsc::Receiver<io::Result<Piece>>,
    ) -> io::Result<Received> {
        let options = table_options();
        let mut files = Files { partial: &mut partial, options: &options, current: None };
        let whole = loop {
            let Some(piece) = pieces.blocking_recv().transpose()? else { break false };
            match piece {
                Piece::Block { rows, checksum } => {
                    if crc32c::crc32c(&rows) != checksum {
                        return Err(damaged(BlockError::Checksum));
                    }
                    let rows_read = block::decode_block(&rows).map_err(damaged)?;
                    for (key, value) in &rows_read {
                        if files.add(key, value, self.file_bytes)? {
                            self.faults.reach(FaultPoint::InstallFileSealed).map_err(io::Error::other)?;
                        }
                    }
                    files.partial.total.add(rows.len(), rows_read.len() as u64, checksum);
                }
                Piece::End(expected) if expected == files.partial.total => break true,
                Piece::End(_) => return Err(damaged(BlockError::Checksum)),
            }
        };
        files.finish()?;
        sync_dir(partial.folder.path())?;
        sync_dir(&self.dir)?;
        if !whole {
            return Ok(Received::Part(partial));
        }
        let Partial { meta, folder, files, .. } = partial;
        Ok(Received::Whole(Spooled { meta, folder, files }))
    }

    pub(crate) fn path(&self, folder: &str) -> PathBuf {
        self.dir.join(folder)
    }
}

fn damaged(error: BlockError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Removes a folder if it is there.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

/// Adds to the files of a state.
struct Files<'a> {
    partial: &'a mut Partial,
    options: &'a Options,
    current: Option<SstFileWriter<'a>>,
}

impl<'a> Files<'a> {
    fn create(&mut self) -> io::Result<SstFileWriter<'a>> {
        let name = format!("{:06}.sst", self.partial.files.len());
        let writer = SstFileWriter::create(self.options);
        writer.open(self.partial.folder.path().join(&name)).map_err(io_error)?;
        self.partial.files.push(name);
        Ok(writer)
    }

    /// The file that deletes what the group had: ingested together with the others, just before them.
    fn tombstone(&mut self) -> io::Result<()> {
        let group = self.partial.group;
        let mut writer = self.create()?;
        writer.delete_range(key::start(group), key::end(group)).map_err(io_error)?;
        writer.finish().map_err(io_error)
    }

    /// True when a file is complete with that.
    fn add(&mut self, key: &[u8], value: &[u8], file_bytes: u64) -> io::Result<bool> {
        let group = self.partial.group;
        if key < &key::start(group)[..] || key >= &key::end(group)[..] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a row of another group"));
        }
        if key <= &self.partial.last[..] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "rows out of order"));
        }
        self.partial.last.clear();
        self.partial.last.extend_from_slice(key);
        let mut writer = match self.current.take() {
            Some(writer) => writer,
            None => self.create()?,
        };
        writer.put(key, value).map_err(io_error)?;
        let is_full = writer.file_size() >= file_bytes;
        if is_full {
            writer.finish().map_err(io_error)?;
        } else {
            self.current = Some(writer);
        }
        Ok(is_full)
    }

    fn finish(mut self) -> io::Result<()> {
        match self.current.take() {
            Some(mut writer) => writer.finish().map_err(io_error),
            None => Ok(()),
        }
    }
}
