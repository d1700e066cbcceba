//! The server's directory.
//!
//! ```text
//! FORMAT                 version of this layout, and the epoch: how often the server was started here
//! LOCK                   held while a server runs here
//! tmp/                   uploads that are not objects yet; emptied at start
//! buckets/<bucket>/…     objects, see `key.rs`
//! ```
//!
//! Invariant: everything that can be seen below `buckets/` when [`Tree::open`] returns is on disk. A killed server may
//! leave a name that was never synced; reporting that blob as present would promise what a power cut takes away.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use super::disk::Disk;
use super::key::{KeyError, path_of_key};

const FORMAT_VERSION: u32 = 1;

/// Why the server cannot run, or stopped.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The directory cannot be used.
    #[error("{what} {}", path.display())]
    Directory {
        /// What was tried, as a verb.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another server runs on the same directory.
    #[error("{} is in use by another server", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory was written by a newer release, or by something else.
    #[error("{} is not of a format that this release knows", path.display())]
    Format {
        /// The format file.
        path: PathBuf,
    },
    /// The disk did not confirm a directory sync. What is cached and what is on disk may differ from then on, so nothing
    /// more is accepted by this process.
    #[error("the disk failed to sync a directory")]
    SyncFailed,
    /// The thread that commits could not be started.
    #[error("start the commit thread")]
    Thread {
        /// Why it failed.
        source: io::Error,
    },
}

/// An open directory.
pub(crate) struct Tree {
    root: PathBuf,
    epoch: u64,
    sequence: AtomicU64,
    disk: Arc<dyn Disk>,
    /// Unlocked by the operating system when it closes, also after a kill.
    _lock: File,
}

impl Tree {
    /// Makes or opens the directory, and recovers it. Blocks.
    pub(crate) fn open(root: &Path, disk: Arc<dyn Disk>) -> Result<Self, ServeError> {
        let fail = |what, path: &Path| {
            let path = path.to_owned();
            move |source| ServeError::Directory { what, path, source }
        };
        let (tmp, buckets) = (root.join("tmp"), root.join("buckets"));
        fs::create_dir_all(&buckets).map_err(fail("make", &buckets))?;
        let lock = lock(&root.join("LOCK"))?;
        let format = root.join("FORMAT");
        let epoch = match fs::read_to_string(&format) {
            Ok(text) => read_format(&text).ok_or_else(|| ServeError::Format { path: format.clone() })?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(fail("read", &format)(error)),
        };
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(fail("empty", &tmp)(error)),
            _ => fs::create_dir(&tmp).map_err(fail("make", &tmp))?,
        }
        let epoch = epoch + 1;
        write_format(&tmp, &format, epoch).map_err(fail("write", &format))?;
        // One call for the whole file system: see the invariant. It also makes the new FORMAT durable before any put
        // uses the epoch.
        let directory = File::open(root).map_err(fail("open", root))?;
        rustix::fs::syncfs(&directory).map_err(|error| fail("sync", root)(error.into()))?;
        Ok(Self { root: root.to_owned(), epoch, sequence: AtomicU64::new(0), disk, _lock: lock })
    }

    /// Which start of the server this is.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What makes uploads durable.
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// A number that no other put of this start has.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Where an upload of that number lies until it is an object.
    pub(crate) fn temporary(&self, sequence: u64) -> PathBuf {
        self.root.join("tmp").join(format!("{sequence:x}"))
    }

    /// Where a bucket lies; `None` for a name that S3 does not allow or that has dots.
    pub(crate) fn bucket(&self, name: &str) -> Option<PathBuf> {
        let fits = (3..=63).contains(&name.len());
        let plain = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        (fits && plain).then(|| self.root.join("buckets").join(name))
    }

    /// Where an object lies below its bucket.
    pub(crate) fn object(bucket: &Path, key: &str) -> Result<PathBuf, KeyError> {
        Ok(bucket.join(path_of_key(key)?))
    }
}

fn lock(path: &Path) -> Result<File, ServeError> {
    let fail = |source| ServeError::Directory { what: "lock", path: path.to_owned(), source };
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServeError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(fail(error)),
    }
}

/// The epoch in a FORMAT file; takes any text.
fn read_format(text: &str) -> Option<u64> {
    let (version, epoch) = text.strip_prefix("postrider-blob ")?.strip_suffix('\n')?.split_once(" epoch ")?;
    // A number that does not parse is a format we do not know: the caller says so.
    (version.parse::<u32>().ok()? == FORMAT_VERSION).then_some(epoch.parse().ok()?)
}

fn write_format(tmp: &Path, format: &Path, epoch: u64) -> io::Result<()> {
    let new = tmp.join("FORMAT");
    let mut file = File::create_new(&new)?;
    writeln!(file, "postrider-blob {FORMAT_VERSION} epoch {epoch}")?;
    file.sync_all()?;
    fs::rename(new, format)
}

#[cfg(test)]
mod tests {
    use super::super::disk::RealDisk;
    use super::*;

    fn open(dir: &Path) -> Result<Tree, ServeError> {
        Tree::open(dir, Arc::new(RealDisk))
    }

    #[test]
    fn every_start_is_an_epoch_and_leftovers_go() {
        let dir = tempfile::tempdir().unwrap();
        let tree = open(dir.path()).unwrap();
        assert_eq!(tree.epoch(), 1);
        fs::write(tree.temporary(tree.next_sequence()), "left over").unwrap();
        assert!(matches!(open(dir.path()), Err(ServeError::InUse { .. })), "locked while the first lives");
        drop(tree);
        let tree = open(dir.path()).unwrap();
        assert_eq!(tree.epoch(), 2);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_of_a_newer_release_is_refused() {
        for text in ["postrider-blob 2 epoch 1\n", "postrider-blob 1 epoch x\n", "postrider-blob 1 epoch 1", ""] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("FORMAT"), text).unwrap();
            assert!(matches!(open(dir.path()), Err(ServeError::Format { .. })), "{text:?}");
        }
    }

    #[test]
    fn bucket_names_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let tree = open(dir.path()).unwrap();
        for name in ["..", "...", "a/b", "ab", "Abc", "a.b.c", ""] {
            assert_eq!(tree.bucket(name), None, "{name:?}");
        }
        assert!(tree.bucket("postrider").is_some());
    }
}
