//! Turning a received state into files that the database can take over.

use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{Options, SstFileWriter};
use tokio::sync::mpsc;

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
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    pub(crate) dir: PathBuf,
    pub(crate) file_bytes: u64,
}

impl Spool {
    /// Writes `pieces` to files in a fresh folder, checks them against their total, and syncs. Blocks.
    pub(crate) fn receive(
        &self,
        group: GroupId,
        meta: SnapshotMeta,
        folder: &str,
        mut pieces: mpsc::Receiver<io::Result<Piece>>,
    ) -> io::Result<Spooled> {
        let folder = Folder::create(&self.dir, folder)?;
        let options = table_options();
        let mut files =
            Files { group, path: folder.path(), options: &options, current: None, names: Vec::new(), last: Vec::new() };
        files.tombstone()?;
        let mut total = Total::default();
        loop {
            let piece = pieces
                .blocking_recv()
                .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the snapshot ends early"))??;
            match piece {
                Piece::Block { rows, checksum } => {
                    if crc32c::crc32c(&rows) != checksum {
                        return Err(damaged(BlockError::Checksum));
                    }
                    let rows_read = block::decode_block(&rows).map_err(damaged)?;
                    total.add(rows.len(), rows_read.len() as u64, checksum);
                    for (key, value) in rows_read {
                        files.add(key, value, self.file_bytes)?;
                    }
                }
                Piece::End(expected) if expected == total => break,
                Piece::End(_) => return Err(damaged(BlockError::Checksum)),
            }
        }
        let files = files.finish()?;
        sync_dir(folder.path())?;
        sync_dir(&self.dir)?;
        Ok(Spooled { meta, folder, files })
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

struct Files<'a> {
    group: GroupId,
    path: &'a Path,
    options: &'a Options,
    current: Option<SstFileWriter<'a>>,
    names: Vec<String>,
    /// The last key, to see that keys ascend.
    last: Vec<u8>,
}

impl<'a> Files<'a> {
    fn create(&mut self) -> io::Result<SstFileWriter<'a>> {
        let name = format!("{:06}.sst", self.names.len());
        let writer = SstFileWriter::create(self.options);
        writer.open(self.path.join(&name)).map_err(io_error)?;
        self.names.push(name);
        Ok(writer)
    }

    /// The file that deletes what the group had: ingested together with the others, just before them.
    fn tombstone(&mut self) -> io::Result<()> {
        let mut writer = self.create()?;
        writer.delete_range(key::start(self.group), key::end(self.group)).map_err(io_error)?;
        writer.finish().map_err(io_error)
    }

    fn add(&mut self, key: &[u8], value: &[u8], file_bytes: u64) -> io::Result<()> {
        if key < &key::start(self.group)[..] || key >= &key::end(self.group)[..] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a row of another group"));
        }
        if key <= &self.last[..] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "rows out of order"));
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        let mut writer = match self.current.take() {
            Some(writer) => writer,
            None => self.create()?,
        };
        writer.put(key, value).map_err(io_error)?;
        if writer.file_size() >= file_bytes {
            writer.finish().map_err(io_error)?;
        } else {
            self.current = Some(writer);
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<String>> {
        if let Some(mut writer) = self.current.take() {
            writer.finish().map_err(io_error)?;
        }
        Ok(self.names)
    }
}
