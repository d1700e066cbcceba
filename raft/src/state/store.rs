//! The state database of a node.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompactionStyle, DBCompressionType, ErrorKind, IngestExternalFileOptions, Options,
    ReadOptions, ReadTier, UniversalCompactOptions, WriteBatch, WriteOptions,
};

use crate::ids::GroupId;
use crate::log::store::FlushedIndex;
use crate::options::Limits;
use crate::state::collect::{self, Collector};
use crate::state::key;
use crate::types::SnapshotMeta;
use crate::wire::StateMeta;

/// Values from this size on go to blob files: compaction moves references, not bodies.
const BLOB_BYTES_MIN: u64 = 4 << 10;
/// Sorted runs from which on some are merged (ADR 008): a read looks at so many.
const RUNS_MERGED_FROM: i32 = 8;
/// All rows are merged when what came after the oldest run is this much of it, in per cent. Bodies that were deleted are known as garbage
/// only then.
const MERGE_ALL_PERCENT: i32 = 50;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// A quarter of these flush. The databases of a process share the threads, so one flush must not keep the other waiting.
const BACKGROUND_JOBS: i32 = 8;
const INFO_LOG_FILES_MAX: usize = 2;
const INFO_LOG_BYTES_MAX: usize = 4 << 20;
/// The version in front of a meta row.
const META_VERSION: u8 = 1;

/// The one state database.
pub(crate) struct StateStore {
    db: Arc<DB>,
    collector: Collector,
}

/// RocksDB's errors, as openraft wants storage errors.
pub(crate) fn io_error(error: rocksdb::Error) -> io::Error {
    let kind = match error.kind() {
        rocksdb::ErrorKind::Corruption => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Options that SST files written outside the database share with it.
pub(crate) fn table_options() -> Options {
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

fn options(limits: &Limits) -> Options {
    let mut options = table_options();
    options.create_if_missing(true);
    options.set_write_buffer_size(limits.state_buffer_bytes);
    options.set_max_write_buffer_number(4);
    options.set_paranoid_checks(true);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(BLOB_BYTES_MIN);
    // Bodies arrive compressed.
    options.set_blob_compression_type(DBCompressionType::None);
    options.set_enable_blob_gc(false);
    options.set_blob_gc_age_cutoff(collect::AGE_CUTOFF);
    options.set_compaction_style(DBCompactionStyle::Universal);
    options.set_level_zero_file_num_compaction_trigger(RUNS_MERGED_FROM);
    let mut universal = UniversalCompactOptions::default();
    universal.set_max_size_amplification_percent(MERGE_ALL_PERCENT);
    options.set_universal_compaction_options(&universal);
    // Past the page cache, as the log: copying a flush there took a seventh of a loaded node's time (docs/bench.md).
    options.set_use_direct_io_for_flush_and_compaction(true);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_keep_log_file_num(INFO_LOG_FILES_MAX);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(limits.cache_bytes));
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_whole_key_filtering(true);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    options.set_block_based_table_factory(&table);
    options
}

impl StateStore {
    /// Opens the state in `dir`.
    pub(crate) fn open(dir: &Path, limits: &Limits) -> Result<Self, rocksdb::Error> {
        let mut options = options(limits);
        let db = match DB::open(&options, dir) {
            // Some file systems know no direct writes. An argument that is wrong for another reason is so again.
            Err(error) if error.kind() == rocksdb::ErrorKind::InvalidArgument => {
                tracing::warn!(%error, "state files are written through the page cache");
                options.set_use_direct_io_for_flush_and_compaction(false);
                DB::open(&options, dir)?
            }
            opened => opened?,
        };
        let collector = Collector::open(&db)?;
        Ok(Self { db: Arc::new(db), collector })
    }

    pub(crate) fn db(&self) -> &Arc<DB> {
        &self.db
    }

    /// Writes `batch`; the log is its write-ahead log. Waits while flushes and compactions are behind.
    pub(crate) fn write(&self, batch: WriteBatch) -> io::Result<()> {
        self.db.write_opt(batch, &without_log()).map_err(io_error)
    }

    /// Writes `batch` if that needs no waiting. False when it does, and nothing was written.
    pub(crate) fn write_now(&self, batch: WriteBatch) -> io::Result<bool> {
        let mut options = without_log();
        options.set_no_slowdown(true);
        match self.db.write_opt(batch, &options) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(false),
            Err(error) => Err(io_error(error)),
        }
    }

    /// How far `group` was applied, with its members then.
    pub(crate) fn meta(&self, group: GroupId) -> io::Result<Option<SnapshotMeta>> {
        self.meta_opt(group, &ReadOptions::default())
    }

    /// The same, as a crash without log would leave it.
    pub(crate) fn flushed_meta(&self, group: GroupId) -> io::Result<Option<SnapshotMeta>> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        self.meta_opt(group, &options)
    }

    fn meta_opt(&self, group: GroupId, options: &ReadOptions) -> io::Result<Option<SnapshotMeta>> {
        let row = self.db.get_pinned_opt(key::meta(group), options).map_err(io_error)?;
        row.map(|row| decode_meta(group, &row)).transpose()
    }

    /// Moves everything in memory to files, synced.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.db.flush().map_err(io_error)
    }

    /// Begins to collect garbage among blobs if there is much of it, and to make blobs of what a snapshot brought.
    pub(crate) fn tend_blobs(&self) -> io::Result<()> {
        self.tend_blobs_at(Instant::now())
    }

    fn tend_blobs_at(&self, now: Instant) -> io::Result<()> {
        self.collector.tend(&self.db, now).map_err(io_error)
    }

    /// How much waits in memory, in bytes.
    pub(crate) fn buffered_bytes(&self) -> io::Result<u64> {
        let bytes = self.db.property_int_value("rocksdb.cur-size-all-mem-tables").map_err(io_error)?;
        Ok(bytes.unwrap_or(0))
    }

    /// Replaces all of a group's rows by those in `files`, of which the first deletes what was there: all at once, and
    /// durable when this returns. The files are gone afterwards.
    pub(crate) fn ingest(&self, files: Vec<PathBuf>) -> io::Result<()> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db.ingest_external_file_opts(&options, files).map_err(io_error)?;
        self.collector.ingested();
        Ok(())
    }

    /// Removes all rows of `group`, durably.
    pub(crate) fn erase(&self, group: GroupId) -> io::Result<()> {
        if !self.has_rows(group)? {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        batch.delete_range(key::start(group), key::end(group));
        self.write(batch)?;
        self.flush()
    }

    /// Whether any row of `group` is there.
    pub(crate) fn has_rows(&self, group: GroupId) -> io::Result<bool> {
        let mut read = ReadOptions::default();
        read.set_iterate_lower_bound(key::start(group));
        read.set_iterate_upper_bound(key::end(group));
        let first = self.db.iterator_opt(rocksdb::IteratorMode::Start, read).next();
        Ok(first.transpose().map_err(io_error)?.is_some())
    }
}

fn without_log() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

impl Drop for StateStore {
    /// A pass of the collector may last for minutes, and would keep the database open.
    fn drop(&mut self) {
        self.db.cancel_all_background_work(false);
        self.collector.join();
    }
}

impl FlushedIndex for StateStore {
    fn flushed(&self, group: GroupId) -> io::Result<Option<u64>> {
        let meta = self.flushed_meta(group)?;
        Ok(meta.and_then(|meta| meta.last_log_id).map(|id| id.index))
    }
}

/// The row that says how far a group was applied.
pub(crate) fn encode_meta(meta: &SnapshotMeta) -> Vec<u8> {
    let mut row = vec![META_VERSION];
    row.extend(StateMeta::from(meta).encode_to_vec());
    row
}

/// Reads that row.
pub(crate) fn decode_meta(group: GroupId, row: &[u8]) -> io::Result<SnapshotMeta> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("applied row of {group}: {what}"));
    let meta = match row.split_first() {
        Some((&META_VERSION, meta)) => StateMeta::decode(meta).map_err(|_| bad("not a message"))?,
        Some((version, _)) if *version > META_VERSION => return Err(bad("newer than this program")),
        _ => return Err(bad("no version")),
    };
    (&meta).try_into().map_err(|error: crate::wire::Malformed| bad(error.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A mounted ramfs: a file system that knows no direct writes.
    struct Ram(tempfile::TempDir);

    impl Ram {
        /// None where one may not mount.
        fn mount() -> Option<Self> {
            let dir = tempfile::tempdir().expect("a directory");
            let mounted = std::process::Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(dir.path()).status();
            mounted.is_ok_and(|status| status.success()).then(|| Self(dir))
        }
    }

    impl Drop for Ram {
        fn drop(&mut self) {
            let left = std::process::Command::new("umount").arg(self.0.path()).status();
            assert!(left.is_ok_and(|status| status.success()), "ramfs is not unmounted");
        }
    }

    #[test]
    fn a_file_system_without_direct_writes_is_written_through_the_page_cache() {
        let Some(ram) = Ram::mount() else {
            eprintln!("passed over: one may not mount here");
            return;
        };
        let dir = ram.0.path().join("state");
        let store = StateStore::open(&dir, &Limits::default()).expect("a database");
        let mut batch = WriteBatch::default();
        batch.put(b"row", vec![7; 1 << 16]);
        store.write(batch).expect("written");
        store.flush().expect("flushed");
        drop(store);
        let store = StateStore::open(&dir, &Limits::default()).expect("the database again");
        assert_eq!(store.db().get(b"row").expect("read"), Some(vec![7; 1 << 16]));
    }

    /// A database of 200 blobs of a MiB, of which every second is garbage: no file is garbage altogether.
    fn half_garbage(dir: &Path) -> StateStore {
        let limits = Limits { state_buffer_bytes: 4 << 20, ..Limits::default() };
        let store = StateStore::open(dir, &limits).expect("a database");
        let row = vec![7; 1 << 20];
        for at in 0..200u8 {
            let mut batch = WriteBatch::default();
            batch.put([at], &row);
            store.write(batch).expect("written");
        }
        store.flush().expect("flushed");
        for at in (0..200u8).step_by(2) {
            let mut batch = WriteBatch::default();
            batch.delete([at]);
            store.write(batch).expect("written");
        }
        store.flush().expect("flushed");
        store.db.compact_range::<&[u8], &[u8]>(None, None);
        store
    }

    fn garbage(store: &StateStore) -> u64 {
        store.db.property_int_value("rocksdb.live-blob-file-garbage-size").expect("known").unwrap_or(0)
    }

    #[test]
    fn garbage_is_left_alone_until_it_is_much_and_then_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = half_garbage(dir.path());
        assert!(garbage(&store) >= 90 << 20, "compaction alone collects nothing");
        store.tend_blobs().expect("tended");
        store.collector.join();
        let left = garbage(&store);
        assert!(left < 90 << 20, "{left} bytes of garbage are left");
        let mut rows = 0;
        for row in store.db.iterator(rocksdb::IteratorMode::Start) {
            assert_eq!(row.expect("a row").1.len(), 1 << 20);
            rows += 1;
        }
        assert_eq!(rows, 100);
    }

    #[test]
    fn bodies_that_come_as_rows_become_blobs_also_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let number = |store: &StateStore, name: &str| store.db.property_int_value(name).expect("known").unwrap_or(0);
        for (turn, restarts) in [false, true].into_iter().enumerate() {
            let state = dir.path().join(turn.to_string());
            let mut store = StateStore::open(&state, &Limits::default()).expect("a database");
            let options = table_options();
            let mut file = rocksdb::SstFileWriter::create(&options);
            let path = dir.path().join("file.sst");
            file.open(&path).expect("a file");
            let bodies: Vec<Vec<u8>> = (0..100).map(|_| (0..64 << 10).map(|_| rand::random()).collect()).collect();
            for (at, body) in (0..100u8).zip(&bodies) {
                file.put([at], body).expect("added");
            }
            file.finish().expect("complete");
            store.ingest(vec![path]).expect("ingested");
            if restarts {
                drop(store);
                store = StateStore::open(&state, &Limits::default()).expect("the database again");
            }
            store.tend_blobs().expect("tended");
            store.collector.join();
            assert_eq!(number(&store, "rocksdb.live-blob-file-size"), 0, "more may come");
            let later = Instant::now() + Duration::from_secs(60);
            store.tend_blobs_at(later).expect("tended");
            store.collector.join();
            assert!(number(&store, "rocksdb.live-blob-file-size") >= 100 * (64 << 10));
            assert!(number(&store, "rocksdb.total-sst-files-size") < 64 << 10);
            let rows: Vec<_> = store.db.iterator(rocksdb::IteratorMode::Start).map(|row| row.expect("a row")).collect();
            assert_eq!(rows.len(), 100);
            assert!(rows.iter().all(|(key, value)| value[..] == bodies[usize::from(key[0])][..]));
        }
    }

    #[test]
    fn a_database_is_free_as_soon_as_it_is_dropped_also_while_it_collects() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = half_garbage(dir.path());
        store.tend_blobs().expect("tended");
        drop(store);
        let store = StateStore::open(dir.path(), &Limits::default()).expect("nobody holds it");
        assert_eq!(store.db.iterator(rocksdb::IteratorMode::Start).count(), 100);
    }

    #[test]
    fn what_was_kept_in_levels_is_read_and_merged() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut leveled = options(&Limits::default());
        leveled.set_compaction_style(DBCompactionStyle::Level);
        let db = DB::open(&leveled, dir.path()).expect("a database");
        for at in 0..100u8 {
            db.put([at], [at; 100]).expect("written");
        }
        db.flush().expect("flushed");
        db.compact_range::<&[u8], &[u8]>(None, None);
        drop(db);
        let store = StateStore::open(dir.path(), &Limits::default()).expect("a database");
        let mut batch = WriteBatch::default();
        batch.put([7], b"new");
        store.write(batch).expect("written");
        store.flush().expect("flushed");
        store.db.compact_range::<&[u8], &[u8]>(None, None);
        assert_eq!(store.db.get([7]).expect("read").as_deref(), Some(&b"new"[..]));
        assert_eq!(store.db.get([8]).expect("read"), Some(vec![8; 100]));
    }
}
