//! The two calls that make things durable, so that tests can let them fail, wait and be watched.

use std::fs::File;
use std::io;
use std::path::Path;

/// What the server asks of a disk beside reading, writing and naming.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Returns when the file's content and length are durable.
    fn sync_content(&self, file: &File) -> io::Result<()>;

    /// Returns when the names in the directory are durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// The file system that the directory lies on.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn sync_content(&self, file: &File) -> io::Result<()> {
        metrics::counter!("postrider_blob_fsyncs_total", "of" => "content").increment(1);
        file.sync_data()
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        metrics::counter!("postrider_blob_fsyncs_total", "of" => "directory").increment(1);
        File::open(directory)?.sync_all()
    }
}
