//! What the log needs of a disk, so that a test can put one in its place that loses power or refuses.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory whose files are the log's own.
pub(crate) trait Disk: Send + Sync + 'static {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A new file with room for `bytes`; what they hold is unspecified. Fails when the name is taken or the disk is full.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// The file of that name, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, which nobody has.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names durable: those that were created, renamed and removed.
    fn sync_names(&self) -> io::Result<()>;
}

/// What is written begins and ends at multiples of this. It is what a disk writes in one piece, or more, so that no write
/// touches what an earlier one has written.
pub(crate) const BLOCK_BYTES: usize = 4_096;

/// Memory that begins at a multiple of [`BLOCK_BYTES`], for what is to be written past the page cache.
#[derive(Default)]
pub(crate) struct Blocks {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Blocks {
    /// Takes over `bytes`, and zeros up to the end of the last block.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        self.fill_to(bytes, bytes.len());
    }

    /// Takes over `bytes`, and zeros up to the end of the block in which `len` of them would end.
    pub(crate) fn fill_to(&mut self, bytes: &[u8], len: usize) {
        let len = len.max(bytes.len()).next_multiple_of(BLOCK_BYTES);
        if self.bytes.len() < len + BLOCK_BYTES {
            self.bytes = vec![0; len + BLOCK_BYTES];
            // "No offset" is allowed as an answer, but not given for bytes.
            self.start = self.bytes.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        }
        self.len = len;
        let (head, rest) = self.bytes[self.start..self.start + len].split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        rest.fill(0);
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// Gives memory back beyond `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if self.bytes.len() > bytes {
            *self = Self::default();
        }
    }
}

/// One file of a [`Disk`].
pub(crate) trait DiskFile: Send + Sync + 'static {
    /// How long it is, in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` with what lies at `offset`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `blocks` at `offset`, a multiple of [`BLOCK_BYTES`].
    fn write_at(&self, blocks: &Blocks, offset: u64) -> io::Result<()>;

    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the operating system's.
pub(crate) struct Directory {
    path: PathBuf,
    handle: File,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), handle: File::open(path)? })
    }
}

impl Directory {
    /// The file as it is, in both ways.
    fn handles(&self, name: &str) -> io::Result<Handles> {
        let path = self.path.join(name);
        let read = OpenOptions::new().read(true).write(true).open(&path)?;
        let direct = OpenOptions::new().write(true).custom_flags(O_DIRECT).open(&path);
        let write = match direct {
            Ok(direct) => direct,
            // Some file systems know no direct writes; through the page cache everything is as durable.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => read.try_clone()?,
            Err(error) => return Err(error),
        };
        Ok(Handles { read, write })
    }
}

/// Writes go past the page cache: what is synced at once gains nothing from being copied there first, and a page, or a
/// whole folio of them, would be written again with each batch that begins in it.
#[allow(clippy::cast_possible_wrap)] // a flag, not a number
const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits() as i32;

/// A file, open for reading through the page cache and for writing past it. The kernel keeps the two consistent.
struct Handles {
    read: File,
    write: File,
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        std::fs::read_dir(&self.path)?
            .map(|entry| {
                entry?.file_name().into_string().map_err(|name| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("a file named {}", name.display()))
                })
            })
            .collect()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(self.path.join(name))?;
        // The room is taken now: a full disk shows here, before anything is in the file, and a sync later has no size
        // to record.
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // Some file systems cannot; then the file has its size and the room is taken as it is written.
            Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes)?,
            Err(error) => {
                self.remove(name)?;
                return Err(error.into());
            }
        }
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.handles(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

impl DiskFile for Handles {
    fn size(&self) -> io::Result<u64> {
        Ok(self.read.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.read_exact_at(buffer, offset)
    }

    fn write_at(&self, blocks: &Blocks, offset: u64) -> io::Result<()> {
        self.write.write_all_at(blocks.as_slice(), offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.write.sync_data()
    }
}
