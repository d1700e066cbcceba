//! The log in segment files: every byte is written once.
//!
//! Records are appended to one file, the *active* segment, and synced. When it is full the next one begins with a
//! checkpoint: everything but the entries, which entries each group has, and which earlier segments still count and how
//! far. So an earlier segment is needed only for the entries in it, and once they have been purged its file is used again.
//! Files are overwritten rather than grown, so that a sync changes no metadata, and every record has blocks of its own, so
//! that no write touches what was acknowledged.
//!
//! Invariant: a segment goes only after what made it superfluous is synced.
//! Invariant: after a failed write or sync nothing more is written to that segment, and nothing behind its last
//! successful sync counts. The next write begins another (a failed fsync is not to be repeated: the kernel may have
//! dropped the pages; Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).

pub(crate) mod format;
mod index;
mod recovery;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::ids::{GroupId, Incarnation, NodeId};
use crate::log::disk::{BLOCK_BYTES, Blocks, Disk, DiskFile};
use crate::log::engine::{LogEngine, LogError, LogHead, LogOp, LogSize, Written};
use crate::log::row;
use crate::log::segment::format::{RECORDS_START, RecordWriter};
use crate::log::segment::index::{Index, Location};
use crate::types::{self, Entry};

/// Free files kept for segments to come.
const FREE_FILES_MAX: usize = 4;
/// Memory that a record's buffer keeps between writes.
const BUFFER_BYTES_KEPT: usize = 16 << 20;
/// Where nothing was ever written, a sync has to record that something is now, and takes twice as long. A record of up to so many bytes ...
const SMALL_BYTES_MAX: u64 = 16 << 10;
/// ... takes so many of the file with it there, of which the next records then find the rest written.
const AHEAD_BYTES: u64 = 64 << 10;
/// Bytes of entries that are moved in one record.
const MOVE_BYTES: usize = 1 << 20;

pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:016x}.log")
}

/// How large the log is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentLimits {
    /// One segment, in bytes; a larger record gets a segment of its own size.
    pub(crate) segment_bytes: u64,
    /// All segments, in bytes: beyond, entries that keep an old segment alive are moved to the newest.
    pub(crate) log_bytes: u64,
}

/// A file whose entries may still count.
struct Segment {
    file: Arc<dyn DiskFile>,
    /// Where its last record ends.
    end: u64,
    size: u64,
}

/// What readers need.
struct Shelf {
    index: Index,
    segments: BTreeMap<u64, Segment>,
}

/// The segment that is written to.
struct Active {
    number: u64,
    file: Arc<dyn DiskFile>,
    size: u64,
    /// Where the next record goes.
    end: u64,
    /// Up to where it is synced.
    synced: u64,
    /// Up to where something was ever written to the file, be it an earlier use of it.
    written: u64,
    /// Nothing more is written to it.
    failed: bool,
    /// The last number that a file was given.
    last_number: u64,
    /// Names of files that hold nothing, and up to where something was ever written to them, as far as that is known.
    free: Vec<(String, u64)>,
    /// Files of earlier segments are not used again: a vacuum is to be rid of what they hold.
    reused_from: u64,
    record: RecordWriter,
    blocks: Blocks,
    /// Times that the disk was asked to sync since the last write was counted.
    syncs: u64,
    /// Bytes that were written ahead since then.
    ahead: u64,
}

impl Active {
    fn sync(&mut self) -> Result<(), LogError> {
        self.syncs += 1;
        match self.file.sync() {
            Ok(()) => {
                self.synced = self.end;
                Ok(())
            }
            Err(error) => {
                self.failed = true;
                Err(failed("sync")(error))
            }
        }
    }
}

/// A [`LogEngine`] of segment files.
pub(crate) struct SegmentLog {
    disk: Arc<dyn Disk>,
    limits: SegmentLimits,
    active: Mutex<Active>,
    shelf: Mutex<Shelf>,
}

/// Reads `payload` as that of a record and takes it in: for fuzzing. Returns how many items it has.
///
/// # Errors
/// When the bytes are no payload.
pub fn read_payload(payload: &[u8]) -> Result<usize, row::BadRow> {
    Index::default().apply(1, 0, payload)?;
    Ok(format::items(payload).count())
}

/// Whether `bytes` begin with a whole record of segment 1, as if they lay at its beginning: for fuzzing.
pub fn read_record(bytes: &[u8]) -> bool {
    format::decode_record(1, 0, bytes).is_some()
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> LogError {
    move |error| LogError::Engine { action, reason: error.to_string() }
}

impl SegmentLog {
    /// Opens the log in the directory and begins a new segment.
    ///
    /// # Errors
    /// When the disk refuses, or what is on it is damaged.
    pub(crate) fn open(disk: Arc<dyn Disk>, limits: SegmentLimits) -> Result<Self, LogError> {
        let found = recovery::recover(&*disk)?;
        let active = Active {
            number: 0,
            // Never written to: the first thing that is done is to begin a segment.
            file: Arc::new(Nowhere),
            size: 0,
            end: 0,
            synced: 0,
            written: 0,
            failed: true,
            last_number: found.last_number,
            free: found.free.into_iter().map(|name| (name, 0)).collect(),
            reused_from: 0,
            record: RecordWriter::default(),
            blocks: Blocks::default(),
            syncs: 0,
            ahead: 0,
        };
        let segments = found
            .segments
            .into_iter()
            .map(|(number, found)| (number, Segment { file: found.file, end: found.end, size: found.size }))
            .collect();
        let log = Self {
            disk,
            limits,
            active: Mutex::new(active),
            shelf: Mutex::new(Shelf { index: found.index, segments }),
        };
        log.rotate(&mut log.active.lock(), 0)?;
        log.free_dead(&mut log.active.lock())?;
        Ok(log)
    }

    /// Begins another segment, with room for a record of `record_bytes` after its checkpoint.
    fn rotate(&self, active: &mut Active, record_bytes: u64) -> Result<(), LogError> {
        if !active.failed
            && active.synced < active.end
            && let Err(error) = active.sync()
        {
            // The checkpoint says again what the lost markers said.
            tracing::warn!(%error, segment = active.number, "a log segment is given up");
        }
        let number = active.last_number + 1;
        let mut record = RecordWriter::default();
        record.clear();
        {
            let mut shelf = self.shelf.lock();
            if let Some(segment) = shelf.segments.get_mut(&active.number) {
                segment.end = active.synced;
            }
            shelf
                .index
                .write_checkpoint(shelf.segments.iter().map(|(number, segment)| (*number, segment.end)), &mut record);
        }
        let start = RECORDS_START;
        let end = start + format::blocks(record.len());
        let needed = end + record_bytes;
        // The number is used up whether this succeeds or not: what a failed attempt left behind is never taken for a
        // later one.
        active.last_number = number;
        let begun = self.take_file(active, number, needed).and_then(|(file, size, written)| {
            // If this fails the file may hold a whole checkpoint all the same, and be found after a restart in spite of
            // being removed. So what comes after it must stand in a segment with a greater number.
            active.failed = true;
            active.blocks.fill(&format::encode_header(number));
            file.write_at(&active.blocks, 0).map_err(failed("begin a segment of"))?;
            active.blocks.fill(record.finish(number, start, start));
            file.write_at(&active.blocks, start).map_err(failed("begin a segment of"))?;
            active.syncs += 1;
            file.sync().map_err(failed("sync a new segment of"))?;
            Ok((file, size, written))
        });
        let (file, size, written) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                // Not there, or not removable now: then it is removed when the log is opened.
                drop(self.disk.remove(&segment_name(number)));
                return Err(error);
            }
        };
        self.shelf.lock().segments.insert(number, Segment { file: file.clone(), end, size });
        active.number = number;
        active.file = file;
        active.size = size;
        active.end = end;
        active.synced = end;
        active.written = written.max(end);
        active.failed = false;
        Ok(())
    }

    /// A file named as segment `number`, with room for `needed` bytes; its size, and up to where it was ever written.
    fn take_file(
        &self,
        active: &mut Active,
        number: u64,
        needed: u64,
    ) -> Result<(Arc<dyn DiskFile>, u64, u64), LogError> {
        let name = segment_name(number);
        let size = self.limits.segment_bytes.max(needed);
        let (file, written) = match active.free.pop() {
            Some((free, written)) if size == self.limits.segment_bytes => {
                self.disk.rename(&free, &name).map_err(failed("reuse a segment of"))?;
                (self.disk.open(&name).map_err(failed("open a segment of"))?, written)
            }
            other => {
                active.free.extend(other);
                (self.disk.create(&name, size).map_err(failed("create a segment of"))?, 0)
            }
        };
        // Before anything in it counts, and before the file's earlier name could come back.
        active.syncs += 1;
        self.disk.sync_names().map_err(failed("name a segment of"))?;
        Ok((file, size, written))
    }

    /// Returns how many bytes it took.
    fn append(&self, active: &mut Active, sync: bool) -> Result<u64, LogError> {
        let bytes = format::blocks(active.record.len());
        if active.failed || active.end + bytes > active.size {
            self.rotate(active, bytes)?;
        }
        let (number, offset, block) = (active.number, active.end, BLOCK_BYTES as u64);
        let is_ahead = bytes <= SMALL_BYTES_MAX && offset + bytes > active.written;
        let ahead = if is_ahead { AHEAD_BYTES.min(active.size - offset) / block * block } else { 0 };
        let written = bytes.max(ahead);
        active.blocks.fill_to(active.record.finish(number, offset, active.synced), written as usize);
        if let Err(error) = active.file.write_at(&active.blocks, offset) {
            active.failed = true;
            return Err(failed("write")(error));
        }
        active.end = offset + bytes;
        active.written = active.written.max(offset + written);
        active.ahead += written - bytes;
        if sync {
            active.sync()?;
        }
        let mut shelf = self.shelf.lock();
        shelf.index.apply(number, offset, active.record.payload()).map_err(|source| LogError::Corrupt {
            group: GroupId(0),
            key: format!("segment {number} at {offset}"),
            source,
        })?;
        if let Some(segment) = shelf.segments.get_mut(&number) {
            segment.end = active.end;
        }
        Ok(bytes)
    }

    /// Frees the files of segments in which nothing counts any more.
    fn free_dead(&self, active: &mut Active) -> Result<(), LogError> {
        let dead: Vec<u64> = {
            let shelf = self.shelf.lock();
            let dead =
                shelf.segments.keys().filter(|number| **number != active.number && shelf.index.live(**number) == 0);
            dead.copied().collect()
        };
        if dead.is_empty() {
            return Ok(());
        }
        if active.failed {
            // What made them superfluous may be lost with the failed segment: a new one says it again.
            self.rotate(active, 0)?;
        } else if active.synced < active.end {
            active.sync()?;
        }
        for number in dead {
            let Some(segment) = self.shelf.lock().segments.remove(&number) else { continue };
            let name = segment_name(number);
            // A reader that still holds the file must not see it overwritten.
            let unread = Arc::strong_count(&segment.file) == 1;
            let is_fit = number >= active.reused_from && segment.size == self.limits.segment_bytes;
            if unread && is_fit && active.free.len() < FREE_FILES_MAX {
                let free = recovery::free_name(number);
                self.disk.rename(&name, &free).map_err(failed("free a segment of"))?;
                active.free.push((free, segment.end));
            } else {
                self.disk.remove(&name).map_err(failed("remove a segment of"))?;
            }
        }
        Ok(())
    }

    /// Moves the entries of the oldest segment to the active one if the log is larger than it should be and that segment
    /// holds little: what one idle or broken replica keeps must not keep everything else. Says whether it did.
    /// Only segments before `newest` are moved: what is moved takes a checkpoint with it, and must not be moved for ever.
    fn move_oldest(&self, active: &mut Active, newest: u64) -> Result<bool, LogError> {
        if self.size().bytes <= self.limits.log_bytes {
            return Ok(false);
        }
        let (file, entries) = {
            let shelf = self.shelf.lock();
            let Some((number, segment)) = shelf.segments.range(..newest).next() else {
                return Ok(false);
            };
            if shelf.index.live(*number) > segment.size / 2 {
                return Ok(false);
            }
            (segment.file.clone(), shelf.index.entries_in(*number))
        };
        self.move_entries(active, &*file, entries)?;
        drop(file);
        self.free_dead(active)?;
        Ok(true)
    }

    /// Writes entries of an earlier segment into the active one.
    fn move_entries(
        &self,
        active: &mut Active,
        file: &dyn DiskFile,
        entries: Vec<(GroupId, u64, Location)>,
    ) -> Result<(), LogError> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            active.record.clear();
            while active.record.len() < MOVE_BYTES
                && let Some((group, index, location)) = entries.next()
            {
                let item = read_item(file, location)?;
                let row = format::entry_row(&item, group, index).and_then(row::check_entry);
                row.map_err(|source| corrupt_entry(group, index, source))?;
                active.record.moved(group, &item[format::ITEM_HEADER_BYTES..]);
            }
            self.append(active, true)?;
        }
        Ok(())
    }

    /// Removes the files that hold nothing that counts.
    fn remove_free(&self, active: &mut Active) -> Result<(), LogError> {
        while let Some((name, written)) = active.free.pop() {
            if let Err(error) = self.disk.remove(&name) {
                active.free.push((name, written));
                return Err(failed("remove a segment of")(error));
            }
        }
        Ok(())
    }

    /// Moves what still counts of the oldest segment before `newest` to the active one. Says whether there was such a segment.
    fn move_whatever_counts(&self, active: &mut Active, newest: u64) -> Result<bool, LogError> {
        let (file, entries) = {
            let shelf = self.shelf.lock();
            let Some((number, segment)) = shelf.segments.range(..newest).next() else { return Ok(false) };
            (segment.file.clone(), shelf.index.entries_in(*number))
        };
        self.move_entries(active, &*file, entries)?;
        drop(file);
        self.free_dead(active)?;
        Ok(true)
    }
}

fn read_item(file: &dyn DiskFile, location: Location) -> Result<Vec<u8>, LogError> {
    let mut item = vec![0; location.len as usize];
    file.read_at(&mut item, u64::from(location.offset)).map_err(failed("read"))?;
    Ok(item)
}

fn corrupt_entry(group: GroupId, index: u64, source: row::BadRow) -> LogError {
    LogError::Corrupt { group, key: format!("entry {index}"), source }
}

impl LogEngine for SegmentLog {
    fn write(&self, ops: &[(GroupId, LogOp)]) -> Result<Written, LogError> {
        let sync = ops.iter().any(|(_, op)| op.wants_sync());
        let mut active = self.active.lock();
        active.record.clear();
        for (group, op) in ops {
            active.record.op(*group, op);
        }
        if active.record.payload().is_empty() {
            return Ok(Written::default());
        }
        let bytes = self.append(&mut active, sync)?;
        active.record.shrink(BUFFER_BYTES_KEPT);
        active.blocks.shrink(BUFFER_BYTES_KEPT);
        let (ahead, syncs) = (std::mem::take(&mut active.ahead), std::mem::take(&mut active.syncs));
        Ok(Written { bytes, ahead, syncs })
    }

    fn groups(&self) -> Result<Vec<(GroupId, Incarnation)>, LogError> {
        let shelf = self.shelf.lock();
        let hosted = shelf.index.groups().filter(|(_, rows)| rows.hosted);
        Ok(hosted.map(|(group, rows)| (group, rows.incarnation)).collect())
    }

    fn head(&self, group: GroupId) -> Result<LogHead, LogError> {
        let (mut head, last) = {
            let shelf = self.shelf.lock();
            let Some(rows) = shelf.index.group(group) else {
                return Ok(LogHead::default());
            };
            if let Some(index) = rows.hole() {
                return Err(LogError::Hole { group, index });
            }
            let head = LogHead {
                vote: rows.vote,
                committed: rows.committed,
                purged: rows.purged,
                last: rows.purged,
                installing: rows.installing.clone(),
            };
            (head, rows.entries.last_key_value().map(|(index, _)| *index))
        };
        if let Some(last) = last {
            let entries = self.entries(group, last..last + 1, 0)?;
            let entry = entries.first().ok_or(LogError::Hole { group, index: last })?;
            head.last = Some(entry.log_id);
        }
        Ok(head)
    }

    fn entries(&self, group: GroupId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut found: Vec<(u64, Location, Arc<dyn DiskFile>)> = Vec::new();
        {
            let shelf = self.shelf.lock();
            let Some(rows) = shelf.index.group(group) else {
                return Ok(Vec::new());
            };
            let mut bytes = 0;
            for (index, location) in rows.entries.range(range) {
                // A gap after the first entry is damage; before it, the entries were purged.
                if let Some((previous, ..)) = found.last()
                    && *index != previous + 1
                {
                    return Err(LogError::Hole { group, index: previous + 1 });
                }
                bytes += location.len as usize + types::ENTRY_OVERHEAD_BYTES;
                if !found.is_empty() && bytes > bytes_max {
                    break;
                }
                let segment = shelf.segments.get(&location.segment).ok_or(LogError::Hole { group, index: *index })?;
                found.push((*index, *location, segment.file.clone()));
            }
        }
        let mut entries = Vec::with_capacity(found.len());
        for (index, location, file) in found {
            let item = read_item(&*file, location)?;
            let entry = format::entry_row(&item, group, index).and_then(|row| row::decode_entry(index, row));
            entries.push(entry.map_err(|source| corrupt_entry(group, index, source))?);
        }
        Ok(entries)
    }

    fn claim(&self, node: NodeId) -> Result<NodeId, LogError> {
        if let Some(owner) = self.shelf.lock().index.owner {
            return Ok(owner);
        }
        let mut active = self.active.lock();
        active.record.clear();
        active.record.owner(node);
        self.append(&mut active, true)?;
        Ok(node)
    }

    fn reclaim(&self) -> Result<(), LogError> {
        let newest = {
            let mut active = self.active.lock();
            self.free_dead(&mut active)?;
            active.number
        };
        // The lock is given up between segments: writers come first.
        while self.move_oldest(&mut self.active.lock(), newest)? {}
        Ok(())
    }

    fn vacuum(&self) -> Result<(), LogError> {
        let newest = {
            let mut active = self.active.lock();
            // Behind the records of a file that is used again lies what it held before: no segment begins in such a file
            // from here on, neither for what is moved nor for who writes meanwhile.
            self.remove_free(&mut active)?;
            active.reused_from = active.last_number + 1;
            // What was purged stands in the segment that is written to as well.
            self.rotate(&mut active, 0)?;
            self.free_dead(&mut active)?;
            active.number
        };
        // The lock is given up between segments: writers come first.
        while self.move_whatever_counts(&mut self.active.lock(), newest)? {}
        let mut active = self.active.lock();
        active.syncs += 1;
        self.disk.sync_names().map_err(failed("forget a segment of"))
    }

    fn size(&self) -> LogSize {
        let shelf = self.shelf.lock();
        LogSize {
            bytes: shelf.segments.values().map(|segment| segment.size).sum(),
            bytes_max: self.limits.log_bytes,
            segments: shelf.segments.len(),
        }
    }
}

/// The file of a log that has not begun a segment yet.
struct Nowhere;

impl DiskFile for Nowhere {
    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn write_at(&self, _: &Blocks, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}
