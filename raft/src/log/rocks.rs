//! The log in one RocksDB.
//!
//! Entries are written once, to the write-ahead log of this database; they stay in its memory buffer until they are
//! purged, and a purged entry is dropped when the buffer is flushed, so that few are ever written a second time. Those
//! that are go to blob files, which compaction does not rewrite.

use std::ops::Range;
use std::path::Path;

use rocksdb::{
    DB, DBCompressionType, DBRecoveryMode, Direction, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};

use crate::ids::{GroupId, NodeId};
use crate::log::engine::{LogEngine, LogError, LogHead, LogOp};
use crate::log::key::{self, LogKey};
use crate::log::row::{self, BadRow};
use crate::types::{self, Entry};
use crate::wire::InstallRecord;

/// Entries from this size on go to blob files when they must be written a second time.
const BLOB_BYTES_MIN: u64 = 4 << 10;
/// The oldest share of blob files that is looked through for garbage, and the share of garbage that makes it worthwhile.
const BLOB_GC_AGE: f64 = 0.1;
const BLOB_GC_FORCE: f64 = 0.9;
/// Write-ahead files kept for reuse: overwriting a file changes no metadata, so that a sync is one write to the disk.
const WAL_FILES_RECYCLED: usize = 2;
/// A quarter of these flush. The databases of a process share the threads, so one flush must not keep the other waiting.
const BACKGROUND_JOBS: i32 = 8;
const INFO_LOG_FILES_MAX: usize = 2;
const INFO_LOG_BYTES_MAX: usize = 4 << 20;

pub(crate) struct RocksLog {
    db: DB,
}

fn engine(action: &'static str) -> impl Fn(rocksdb::Error) -> LogError {
    move |error| LogError::Engine { action, reason: error.to_string() }
}

fn corrupt(group: GroupId, key: LogKey) -> impl Fn(BadRow) -> LogError {
    move |source| LogError::Corrupt { group, key: format!("{key:?}"), source }
}

impl RocksLog {
    /// Opens the log in `dir`, with `buffer_bytes` of memory for entries that wait for their purge.
    pub(crate) fn open(dir: &Path, buffer_bytes: usize) -> Result<Self, LogError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(buffer_bytes);
        options.set_max_write_buffer_number(3);
        // A write that was not synced may be torn by a power cut: recovery stops there. A hole before the end of what
        // was synced shows as a contradiction between the rows (`head`), and what earlier files held is verified.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_recycle_log_file_num(WAL_FILES_RECYCLED);
        // fdatasync: the file's size changes only while it is new.
        options.set_use_fsync(false);
        options.set_paranoid_checks(true);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_BYTES_MIN);
        // Entries die in order: a blob file is dropped when its last entry was purged. Only one that a few entries of
        // an idle group keep alive is worth rewriting.
        options.set_enable_blob_gc(true);
        options.set_blob_gc_age_cutoff(BLOB_GC_AGE);
        options.set_blob_gc_force_threshold(BLOB_GC_FORCE);
        options.set_compression_type(DBCompressionType::None);
        options.set_keep_log_file_num(INFO_LOG_FILES_MAX);
        options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
        options.set_max_background_jobs(BACKGROUND_JOBS);
        let db = DB::open(&options, dir).map_err(engine("open"))?;
        Ok(Self { db })
    }

    fn get<T>(
        &self,
        group: GroupId,
        key: LogKey,
        decode: impl Fn(&[u8]) -> Result<T, BadRow>,
    ) -> Result<Option<T>, LogError> {
        let row = self.db.get_pinned(key.encode()).map_err(engine("read"))?;
        row.map(|row| decode(&row)).transpose().map_err(corrupt(group, key))
    }

    /// The last entry of `group`, by key order.
    fn last(&self, group: GroupId) -> Result<Option<types::LogId>, LogError> {
        self.edge(group, Direction::Reverse)
    }

    fn edge(&self, group: GroupId, direction: Direction) -> Result<Option<types::LogId>, LogError> {
        let start = LogKey::Entry(group, 0).encode();
        let end = key::entries_end(group);
        let mut read = ReadOptions::default();
        read.set_iterate_lower_bound(start);
        read.set_iterate_upper_bound(end);
        let mode = match direction {
            Direction::Forward => IteratorMode::Start,
            Direction::Reverse => IteratorMode::End,
        };
        let Some(item) = self.db.iterator_opt(mode, read).next() else {
            return Ok(None);
        };
        let (key, row) = item.map_err(engine("read"))?;
        let index = entry_index(group, &key)?;
        let term = row::decode_entry_term(&row).map_err(corrupt(group, LogKey::Entry(group, index)))?;
        Ok(Some(types::log_id(term, index)))
    }

    fn add(batch: &mut WriteBatch, scratch: &mut Vec<u8>, group: GroupId, op: &LogOp) {
        match op {
            LogOp::Host => batch.put(LogKey::Hosted(group).encode(), row::encode_hosted()),
            LogOp::Forget => {
                batch.delete(LogKey::Hosted(group).encode());
                batch.delete(LogKey::Committed(group).encode());
                batch.delete(LogKey::Purged(group).encode());
                batch.delete(LogKey::Installing(group).encode());
                batch.delete_range(LogKey::Entry(group, 0).encode(), key::entries_end(group));
            }
            LogOp::Append(entries) => {
                for entry in entries {
                    scratch.clear();
                    row::encode_entry(entry, scratch);
                    batch.put(LogKey::Entry(group, entry.log_id.index).encode(), &scratch);
                }
            }
            LogOp::Vote(vote) => batch.put(LogKey::Vote(group).encode(), row::encode_vote(vote)),
            LogOp::Committed(Some(id)) => batch.put(LogKey::Committed(group).encode(), row::encode_log_id(id)),
            LogOp::Committed(None) => batch.delete(LogKey::Committed(group).encode()),
            LogOp::Truncate { from, last } => {
                batch.delete_range(
                    LogKey::Entry(group, *from).encode(),
                    LogKey::Entry(group, last.saturating_add(1)).encode(),
                );
            }
            LogOp::Purge { first, upto } => {
                batch.put(LogKey::Purged(group).encode(), row::encode_log_id(upto));
                batch.delete_range(
                    LogKey::Entry(group, *first).encode(),
                    LogKey::Entry(group, upto.index.saturating_add(1)).encode(),
                );
            }
            LogOp::Installing(Some(record)) => {
                let row = prost::Message::encode_to_vec(record);
                batch.put(LogKey::Installing(group).encode(), row);
            }
            LogOp::Installing(None) => batch.delete(LogKey::Installing(group).encode()),
            LogOp::Barrier => {}
        }
    }
}

fn entry_index(group: GroupId, key: &[u8]) -> Result<u64, LogError> {
    match LogKey::decode(key) {
        Ok(LogKey::Entry(found, index)) if found == group => Ok(index),
        _ => Err(LogError::Corrupt {
            group,
            key: format!("{key:02x?}"),
            source: BadRow::Malformed("not a key of this group's entries"),
        }),
    }
}

fn decode_install(row: &[u8]) -> Result<InstallRecord, BadRow> {
    prost::Message::decode(row).map_err(|_| BadRow::Malformed("installation record"))
}

impl LogEngine for RocksLog {
    fn write(&self, ops: &[(GroupId, LogOp)], sync: bool) -> Result<u64, LogError> {
        let mut batch = WriteBatch::default();
        let mut scratch = Vec::new();
        for (group, op) in ops {
            Self::add(&mut batch, &mut scratch, *group, op);
        }
        let bytes = batch.size_in_bytes() as u64;
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(engine("write"))?;
        Ok(bytes)
    }

    fn groups(&self) -> Result<Vec<GroupId>, LogError> {
        let mut read = ReadOptions::default();
        read.set_iterate_lower_bound(key::HOSTED_START);
        read.set_iterate_upper_bound(key::HOSTED_END);
        let mut groups = Vec::new();
        for item in self.db.iterator_opt(IteratorMode::Start, read) {
            let (key, row) = item.map_err(engine("read"))?;
            let Ok(LogKey::Hosted(group)) = LogKey::decode(&key) else {
                return Err(LogError::Corrupt {
                    group: GroupId(0),
                    key: format!("{key:02x?}"),
                    source: BadRow::Malformed("not a key of a hosted group"),
                });
            };
            row::decode_hosted(&row).map_err(corrupt(group, LogKey::Hosted(group)))?;
            groups.push(group);
        }
        Ok(groups)
    }

    fn head(&self, group: GroupId) -> Result<LogHead, LogError> {
        let purged = self.get(group, LogKey::Purged(group), row::decode_log_id)?;
        let last = self.last(group)?;
        if last.is_some() {
            let first = self.edge(group, Direction::Forward)?;
            let expected = types::next_index(purged.as_ref());
            if first.is_none_or(|first| first.index != expected) {
                return Err(LogError::Hole { group, index: expected });
            }
        }
        Ok(LogHead {
            vote: self.get(group, LogKey::Vote(group), row::decode_vote)?,
            committed: self.get(group, LogKey::Committed(group), row::decode_log_id)?,
            installing: self.get(group, LogKey::Installing(group), decode_install)?,
            last: last.or(purged),
            purged,
        })
    }

    fn entries(&self, group: GroupId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut read = ReadOptions::default();
        read.set_iterate_lower_bound(LogKey::Entry(group, range.start).encode());
        read.set_iterate_upper_bound(LogKey::Entry(group, range.end).encode());
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for item in self.db.iterator_opt(IteratorMode::Start, read) {
            let (key, row) = item.map_err(engine("read"))?;
            let index = entry_index(group, &key)?;
            // A gap after the first entry is damage; before it, the entries were purged.
            if let Some(previous) = entries.last()
                && index != previous.log_id.index + 1
            {
                return Err(LogError::Hole { group, index: previous.log_id.index + 1 });
            }
            let entry = row::decode_entry(index, &row).map_err(corrupt(group, LogKey::Entry(group, index)))?;
            bytes += types::weight(&entry);
            if !entries.is_empty() && bytes > bytes_max {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn claim(&self, node: NodeId) -> Result<NodeId, LogError> {
        let key = LogKey::Owner;
        if let Some(owner) = self.get(GroupId(0), key, row::decode_owner)? {
            return Ok(owner);
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.put_opt(key.encode(), row::encode_owner(node), &options).map_err(engine("write"))?;
        Ok(node)
    }

    fn buffered_bytes(&self) -> Result<u64, LogError> {
        self.db
            .property_int_value("rocksdb.cur-size-active-mem-table")
            .map_err(engine("measure"))
            .map(|bytes| bytes.unwrap_or(0))
    }

    fn flush(&self) -> Result<(), LogError> {
        self.db.flush().map_err(engine("flush"))
    }
}
