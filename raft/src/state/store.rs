//! The state database of a node.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, IngestExternalFileOptions, Options, ReadOptions, ReadTier,
    WriteBatch, WriteOptions,
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
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// A quarter of these flush. The databases of a process share the threads, so one flush must not keep the other waiting.
const BACKGROUND_JOBS: i32 = 8;
const INFO_LOG_FILES_MAX: usize = 2;
const INFO_LOG_BYTES_MAX: usize = 4 << 20;
/// The version in front of a meta row.
const META_VERSION: u8 = 1;

/// The one state database, and what is known of its files.
pub(crate) struct StateStore {
    db: Arc<DB>,
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
    options.set_enable_blob_gc(true);
    options.set_blob_gc_age_cutoff(BLOB_GC_AGE);
    options.set_blob_gc_force_threshold(BLOB_GC_FORCE);
    options.set_level_compaction_dynamic_level_bytes(true);
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
        Ok(Self { db: Arc::new(DB::open(&options(limits), dir)?) })
    }

    pub(crate) fn db(&self) -> &Arc<DB> {
        &self.db
    }

    /// Writes `batch`; the log is its write-ahead log.
    pub(crate) fn write(&self, batch: WriteBatch) -> io::Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(io_error)
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
