//! The state database of a node.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, CompactOptions, DB, DBCompressionType, ErrorKind,
    IngestExternalFileOptions, Options, ReadOptions, ReadTier, WriteBatch, WriteOptions,
};

use crate::ids::GroupId;
use crate::log::store::FlushedIndex;
use crate::options::Limits;
use crate::state::key;
use crate::types::SnapshotMeta;
use crate::wire::StateMeta;

/// Values from this size on go to blob files: compaction moves references, not bodies.
const BLOB_BYTES_MIN: u64 = 4 << 10;
/// The oldest share of blob files that compaction looks through for garbage.
const BLOB_GC_AGE: f64 = 0.25;
/// A blob file with this share of garbage is rewritten.
const BLOB_GC_FORCE: f64 = 0.5;
/// Garbage is collected from this share of all blobs on, in per cent, until it has fallen to that one. While it is, every
/// compaction rewrites the oldest blobs whether they are garbage or not (RocksDB's `blob_garbage_collection_age_cutoff`):
/// for mail that nobody deletes that is writing for nothing.
const BLOB_GARBAGE_PERCENT_MAX: u64 = 25;
const BLOB_GARBAGE_PERCENT_MIN: u64 = 12;
/// Below this much garbage, in bytes, its share says nothing.
const BLOB_GARBAGE_BYTES_MIN: u64 = 64 << 20;
/// A flush leaves a file of a megabyte or two, since bodies go elsewhere. So many are merged with the lowest level at once, which is kept of
/// about their size: all of it is rewritten each time (ADR 008).
const FLUSHES_MERGED: i32 = 8;
const LOWEST_LEVEL_BYTES: u64 = 32 << 20;
/// Files that wait to be merged from which on writes are slowed down, and stopped. A snapshot of a group that was here before comes as one file of
/// `snapshot_file_bytes` after the other in front of all levels: ten gigabytes are a hundred and sixty, and must not keep other groups from writing.
const WAITING_FILES_SLOW: i32 = 400;
const WAITING_FILES_STOP: i32 = 800;
/// Files of the lowest level; twice as large in each level above it, in bytes.
const FILE_BYTES: u64 = 8 << 20;
const FILE_GROWTH: i32 = 2;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// The part of a memory table that is a filter of its keys. Of what a delivery looks up most is not there: whether the request was carried out
/// before, what thread it belongs to, whether its body is known.
const MEMORY_BLOOM_SHARE: f64 = 0.01;
/// A quarter of these flush. The databases of a process share the threads, so one flush must not keep the other waiting.
const BACKGROUND_JOBS: i32 = 8;
const INFO_LOG_FILES_MAX: usize = 2;
const INFO_LOG_BYTES_MAX: usize = 4 << 20;
/// The version in front of a meta row.
const META_VERSION: u8 = 1;

/// The one state database, and what is known of its files.
pub(crate) struct StateStore {
    db: Arc<DB>,
    /// Whether compactions collect garbage among blobs. Held by whoever changes that, so a vacuum has it to its end.
    collects: Mutex<bool>,
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
    // What a flush leaves is merged soon, and is small without the bodies: only what stays is worth compressing.
    options.set_compression_per_level(&[DBCompressionType::None, DBCompressionType::Lz4]);
    options.create_if_missing(true);
    options.set_write_buffer_size(limits.state_buffer_bytes);
    options.set_max_write_buffer_number(4);
    options.set_memtable_prefix_bloom_ratio(MEMORY_BLOOM_SHARE);
    options.set_memtable_whole_key_filtering(true);
    options.set_paranoid_checks(true);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(BLOB_BYTES_MIN);
    // Bodies arrive compressed.
    options.set_blob_compression_type(DBCompressionType::None);
    options.set_enable_blob_gc(false);
    options.set_blob_gc_age_cutoff(BLOB_GC_AGE);
    options.set_blob_gc_force_threshold(BLOB_GC_FORCE);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_level_zero_file_num_compaction_trigger(FLUSHES_MERGED);
    options.set_level_zero_slowdown_writes_trigger(WAITING_FILES_SLOW);
    options.set_level_zero_stop_writes_trigger(WAITING_FILES_STOP);
    options.set_max_bytes_for_level_base(LOWEST_LEVEL_BYTES);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_target_file_size_multiplier(FILE_GROWTH);
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
        Ok(Self { db: Arc::new(db), collects: Mutex::new(false) })
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

    /// Collects garbage among blobs if there is much of it, and stops when there is little.
    pub(crate) fn tend_blobs(&self) -> io::Result<()> {
        let property = |name: &str| io::Result::Ok(self.db.property_int_value(name).map_err(io_error)?.unwrap_or(0));
        let garbage = property("rocksdb.live-blob-file-garbage-size")?;
        let total = property("rocksdb.live-blob-file-size")?;
        metrics::gauge!("postrider_raft_state_blob_bytes").set(total as f64);
        metrics::gauge!("postrider_raft_state_blob_garbage_bytes").set(garbage as f64);
        // While a vacuum runs all garbage is collected; what it leaves is looked at the next time.
        let Some(mut collects) = self.collects.try_lock() else { return Ok(()) };
        let wanted = collects_blobs(*collects, garbage, total);
        if wanted != *collects {
            self.collect_blobs(wanted, BLOB_GC_AGE)?;
            *collects = wanted;
        }
        Ok(())
    }

    /// Has compactions collect garbage among this oldest share of the blob files, or leave it.
    fn collect_blobs(&self, enabled: bool, age: f64) -> io::Result<()> {
        let (enabled, age) = (enabled.to_string(), age.to_string());
        let options = [
            ("enable_blob_garbage_collection", enabled.as_str()),
            ("blob_garbage_collection_age_cutoff", age.as_str()),
        ];
        self.db.set_options(&options).map_err(io_error)
    }

    /// Removes dead rows and dead bodies from the files: every file is rewritten, bodies into new blob files, of which only
    /// what lives is taken over.
    ///
    /// # Errors
    /// When a file that was there before is there still: not all that was deleted is gone.
    pub(crate) fn vacuum(&self) -> io::Result<()> {
        let collects = self.collects.lock();
        // Options that could not be recorded may be in force all the same: they are put back in any case.
        let rewritten = self.collect_blobs(true, 1.0).and_then(|()| self.rewrite());
        let put_back = self.collect_blobs(*collects, BLOB_GC_AGE);
        rewritten.and(put_back)
    }

    /// Rewrites every file of rows.
    fn rewrite(&self) -> io::Result<()> {
        let files = || -> io::Result<HashSet<String>> {
            Ok(self.db.live_files().map_err(io_error)?.into_iter().map(|file| file.name).collect())
        };
        let before = files()?;
        let mut all = CompactOptions::default();
        all.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        // Others may be compacted meanwhile.
        all.set_exclusive_manual_compaction(false);
        self.db.compact_range_opt::<&[u8], &[u8]>(None, None, &all);
        // It does not say whether it failed.
        match files()?.intersection(&before).count() {
            0 => Ok(()),
            left => Err(io::Error::other(format!("{left} of {} state files were not rewritten", before.len()))),
        }
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
        self.db.ingest_external_file_opts(&options, files).map_err(io_error)
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

/// Whether garbage among blobs is to be collected from now on.
fn collects_blobs(collects: bool, garbage: u64, total: u64) -> bool {
    let percent = if collects { BLOB_GARBAGE_PERCENT_MIN } else { BLOB_GARBAGE_PERCENT_MAX };
    garbage >= BLOB_GARBAGE_BYTES_MIN && garbage >= total / 100 * percent
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
    use super::*;

    #[test]
    fn blobs_are_collected_when_much_of_them_is_garbage_and_until_little_is() {
        let mib = |count: u64| count << 20;
        assert!(!collects_blobs(false, 0, 0));
        assert!(!collects_blobs(false, mib(63), mib(64)));
        assert!(!collects_blobs(false, mib(200), mib(1_000)));
        assert!(collects_blobs(false, mib(260), mib(1_000)));
        assert!(collects_blobs(true, mib(200), mib(1_000)));
        assert!(!collects_blobs(true, mib(110), mib(1_000)));
    }

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

    #[test]
    fn rows_are_compressed_when_they_are_merged_and_not_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = StateStore::open(dir.path(), &Limits::default()).expect("a database");
        let row = [7; 100];
        let mut batch = WriteBatch::default();
        for at in 0..10_000u32 {
            batch.put(at.to_be_bytes(), row);
        }
        store.write(batch).expect("written");
        store.flush().expect("flushed");
        let in_files = || -> usize { store.db.live_files().expect("known").iter().map(|file| file.size).sum() };
        let flushed = in_files();
        assert!(flushed >= 10_000 * row.len(), "{flushed} bytes");
        store.db.compact_range::<&[u8], &[u8]>(None, None);
        let merged = in_files();
        assert!((1..flushed / 4).contains(&merged), "{merged} bytes");
    }

    #[test]
    fn a_snapshot_of_many_files_stops_no_writes() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = StateStore::open(&dir.path().join("state"), &Limits::default()).expect("a database");
        let write = |key: [u8; 2], body: &[u8]| {
            let mut batch = WriteBatch::default();
            batch.put(key, body);
            store.write_now(batch).expect("written")
        };
        // Nothing is merged meanwhile, as where there is more to do. (Without compactions at all RocksDB would not stop writes.)
        store.db.set_options(&[("level0_file_num_compaction_trigger", "100000")]).expect("set");
        // What was here before is in a file in front of all levels, and so is what comes after it.
        for at in [0, 250] {
            assert!(write([at, 0], b"before"));
        }
        store.flush().expect("flushed");
        let options = table_options();
        let mut files = Vec::new();
        for at in 0..200u8 {
            let path = dir.path().join(format!("{at}.sst"));
            let mut file = rocksdb::SstFileWriter::create(&options);
            file.open(&path).expect("a file");
            if at == 0 {
                file.delete_range([0, 0], [255, 0]).expect("added");
            } else {
                file.put([at, 0], b"after").expect("added");
            }
            file.finish().expect("complete");
            files.push(path);
        }
        store.ingest(files).expect("ingested");
        let waiting = store.db.property_int_value("rocksdb.num-files-at-level0").expect("known");
        assert!(waiting >= Some(200), "{waiting:?} files in front of all levels: this shows nothing");
        assert!(write([7, 0], b"now"), "writes are slowed down");
        assert_eq!(store.db.get([7, 0]).expect("read").as_deref(), Some(&b"now"[..]));
        assert_eq!(store.db.get([8, 0]).expect("read").as_deref(), Some(&b"after"[..]));
        assert_eq!(store.db.get([250, 0]).expect("read"), None);
    }

    #[test]
    fn after_a_vacuum_no_file_has_what_was_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = StateStore::open(dir.path(), &Limits::default()).expect("a database");
        // No row that stays has such a body.
        let (small, large) = (*b"a marker of sixteen or more", [0xfe; 8 << 10]);
        let mut batch = WriteBatch::default();
        for at in 0..100u8 {
            batch.put([at, 0], if at == 50 { &small[..] } else { b"another row" });
            batch.put([at, 1], if at == 50 { large } else { [at; 8 << 10] });
        }
        store.write(batch).expect("written");
        store.flush().expect("flushed");
        let holds = |part: &[u8]| {
            std::fs::read_dir(dir.path()).expect("a directory").any(|file| {
                let bytes = std::fs::read(file.expect("a file").path()).unwrap_or_default();
                bytes.windows(part.len()).any(|window| window == part)
            })
        };
        assert!(holds(&small) && holds(&large));
        let mut batch = WriteBatch::default();
        batch.delete([50, 0]);
        batch.delete([50, 1]);
        store.write(batch).expect("written");
        store.flush().expect("flushed");
        assert!(holds(&small) && holds(&large), "a deletion alone removes nothing");
        store.vacuum().expect("vacuumed");
        assert!(!holds(&small), "the row is gone");
        assert!(!holds(&large), "the body is gone");
        assert_eq!(store.db.get([49, 1]).expect("read"), Some(vec![49; 8 << 10]));
    }

    /// What the database says of an option in the file that it keeps of them.
    fn option(dir: &Path, name: &str) -> String {
        let files = std::fs::read_dir(dir).expect("a directory").map(|file| file.expect("a file").path());
        let last = files.filter(|path| path.to_string_lossy().contains("OPTIONS-")).max().expect("options");
        let text = std::fs::read_to_string(last).expect("readable");
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name} is not said")).to_owned()
    }

    #[test]
    fn a_vacuum_leaves_the_collection_of_blobs_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = StateStore::open(dir.path(), &Limits::default()).expect("a database");
        let collection = || {
            (
                option(dir.path(), "enable_blob_garbage_collection"),
                option(dir.path(), "blob_garbage_collection_age_cutoff"),
            )
        };
        for collects in [false, true] {
            store.collect_blobs(collects, BLOB_GC_AGE).expect("set");
            *store.collects.lock() = collects;
            let before = collection();
            assert_eq!(before.0, collects.to_string());
            store.vacuum().expect("vacuumed");
            assert_eq!(collection(), before);
        }
    }

    #[test]
    fn a_vacuum_that_is_under_way_collects_until_it_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = StateStore::open(dir.path(), &Limits::default()).expect("a database");
        // There is no garbage: left to itself, a flush would end the collection.
        let mut collects = store.collects.lock();
        store.collect_blobs(true, 1.0).expect("set");
        *collects = true;
        store.tend_blobs().expect("tended");
        assert_eq!(option(dir.path(), "enable_blob_garbage_collection"), "true");
        drop(collects);
        store.tend_blobs().expect("tended");
        assert_eq!(option(dir.path(), "enable_blob_garbage_collection"), "false");
    }

    #[test]
    fn a_vacuum_that_could_not_rewrite_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = StateStore::open(dir.path(), &Limits::default()).expect("a database");
        let mut batch = WriteBatch::default();
        batch.put(b"row", b"value");
        store.write(batch).expect("written");
        store.flush().expect("flushed");
        // As when the process ends meanwhile.
        store.db.cancel_all_background_work(true);
        let error = store.vacuum().expect_err("nothing was rewritten");
        assert_eq!(error.to_string(), "1 of 1 state files were not rewritten");
    }

    #[test]
    fn garbage_is_left_alone_until_it_is_much_and_then_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let limits = Limits { state_buffer_bytes: 4 << 20, ..Limits::default() };
        let store = StateStore::open(dir.path(), &limits).expect("a database");
        let number = |name: &str| store.db.property_int_value(name).expect("known").unwrap_or(0);
        let row = vec![7; 1 << 20];
        // Every second row goes, so that no file is garbage altogether.
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
        assert!(number("rocksdb.live-blob-file-garbage-size") >= 90 << 20, "compaction alone collects nothing");
        store.tend_blobs().expect("tended");
        assert!(*store.collects.lock());
        let mut all = CompactOptions::default();
        all.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        store.db.compact_range_opt::<&[u8], &[u8]>(None, None, &all);
        store.tend_blobs().expect("tended");
        let left = number("rocksdb.live-blob-file-garbage-size");
        assert!(left < 90 << 20, "{left} bytes of garbage are left");
    }
}
