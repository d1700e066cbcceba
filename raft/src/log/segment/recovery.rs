//! Reading the segments again after a restart.
//!
//! The last segment that was begun, header and checkpoint, says which earlier ones count and up to where: there, every
//! record must be whole. Its own records end where the first one is not; that is a write which a power cut tore, unless a
//! later record shows that the place had been synced.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::GroupId;
use crate::log::disk::BLOCK_BYTES;
use crate::log::disk::{Disk, DiskFile};
use crate::log::engine::LogError;
use crate::log::row::BadRow;
use crate::log::segment::format::{self, HEADER_BYTES, Item, RECORDS_START, Record};
use crate::log::segment::index::Index;
use crate::log::segment::{failed, segment_name};

/// What a directory holds.
pub(super) struct Found {
    pub(super) index: Index,
    pub(super) segments: BTreeMap<u64, FoundSegment>,
    /// Files that hold nothing.
    pub(super) free: Vec<String>,
    /// No file has a greater number.
    pub(super) last_number: u64,
}

pub(super) struct FoundSegment {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) end: u64,
    pub(super) size: u64,
}

/// The name of a file that was segment `number` and holds nothing now.
pub(super) fn free_name(number: u64) -> String {
    format!("{number:016x}.free")
}

fn damaged(number: u64, offset: u64, source: BadRow) -> LogError {
    LogError::Corrupt { group: GroupId(0), key: format!("of {} at {offset}", segment_name(number)), source }
}

struct Loaded {
    number: u64,
    file: Arc<dyn DiskFile>,
    bytes: Vec<u8>,
}

impl Loaded {
    fn read(disk: &dyn Disk, number: u64) -> Result<Self, LogError> {
        let file = disk.open(&segment_name(number)).map_err(failed("open a segment of"))?;
        let size = usize::try_from(file.size().map_err(failed("measure"))?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size];
        file.read_at(&mut bytes, 0).map_err(failed("read"))?;
        Ok(Self { number, file, bytes })
    }

    fn has_header(&self) -> Result<bool, LogError> {
        let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else { return Ok(false) };
        format::check_header(self.number, header).map_err(|source| damaged(self.number, 0, source))
    }

    fn record(&self, offset: u64) -> Option<Record<'_>> {
        let rest = self.bytes.get(usize::try_from(offset).ok()?..)?;
        format::decode_record(self.number, offset, rest)
    }

    /// The earlier segments that count and up to where, if this one was begun.
    fn begun(&self) -> Result<Option<BTreeMap<u64, u64>>, LogError> {
        if !self.has_header()? {
            return Ok(None);
        }
        let start = RECORDS_START;
        let Some(record) = self.record(start) else { return Ok(None) };
        let mut segments = BTreeMap::new();
        let mut is_checkpoint = false;
        for placed in format::items(record.payload) {
            match placed.map_err(|source| damaged(self.number, start, source))?.item {
                Item::Checkpoint => is_checkpoint = true,
                Item::Segment { number, end } => {
                    segments.insert(number, end);
                }
                _ => {}
            }
        }
        if !is_checkpoint {
            return Err(damaged(self.number, start, BadRow::Malformed("a segment begins without a checkpoint")));
        }
        Ok(Some(segments))
    }

    /// Takes in the records up to `end`, or up to the first that is none; says where that is.
    fn replay(&self, index: &mut Index, end: Option<u64>) -> Result<u64, LogError> {
        let mut offset = RECORDS_START;
        while end.is_none_or(|end| offset < end) {
            let Some(record) = self.record(offset) else {
                if end.is_some() {
                    return Err(damaged(self.number, offset, BadRow::Checksum));
                }
                break;
            };
            let fits = index.apply(self.number, offset, record.payload);
            fits.map_err(|source| damaged(self.number, offset, source))?;
            offset = record.next(offset);
        }
        if end.is_some_and(|end| offset != end) {
            return Err(damaged(self.number, offset, BadRow::Malformed("a record crosses the end of its segment")));
        }
        Ok(offset)
    }

    /// Whether a record at or behind `from` was written when everything up to more than `synced` was on disk.
    fn synced_beyond(&self, from: u64, synced: u64) -> bool {
        (from..self.bytes.len() as u64)
            .step_by(BLOCK_BYTES)
            .filter_map(|at| self.record(at))
            .any(|record| record.durable > synced)
    }
}

/// Reads what `disk` holds, and removes what does not count.
pub(super) fn recover(disk: &dyn Disk) -> Result<Found, LogError> {
    let (numbers, free) = names(disk)?;
    let last_number = numbers.last().copied().unwrap_or(0);
    let mut superfluous = Vec::new();
    let mut last = None;
    for number in numbers.iter().rev() {
        let loaded = Loaded::read(disk, *number)?;
        if let Some(earlier) = loaded.begun()? {
            last = Some((loaded, earlier));
            break;
        }
        // A segment that was never begun holds no more than a part of its checkpoint; one whose beginning is damaged holds
        // records that were written when the checkpoint was on disk.
        if loaded.synced_beyond(RECORDS_START, RECORDS_START) {
            return Err(damaged(*number, 0, BadRow::Malformed("the beginning of a segment is damaged")));
        }
        superfluous.push(*number);
    }
    let mut index = Index::default();
    let mut segments = BTreeMap::new();
    if let Some((last, earlier)) = last {
        for number in numbers.iter().filter(|number| **number < last.number) {
            let Some(end) = earlier.get(number) else {
                superfluous.push(*number);
                continue;
            };
            let loaded = Loaded::read(disk, *number)?;
            if !loaded.has_header()? {
                return Err(damaged(*number, 0, BadRow::Malformed("a segment that counts has no header")));
            }
            loaded.replay(&mut index, Some(*end))?;
            let size = loaded.bytes.len() as u64;
            segments.insert(*number, FoundSegment { file: loaded.file, end: *end, size });
        }
        let end = last.replay(&mut index, None)?;
        if last.synced_beyond(end, end) {
            return Err(damaged(last.number, end, BadRow::Checksum));
        }
        let size = last.bytes.len() as u64;
        segments.insert(last.number, FoundSegment { file: last.file, end, size });
    }
    for number in superfluous {
        disk.remove(&segment_name(number)).map_err(failed("remove a segment of"))?;
    }
    Ok(Found { index, segments, free, last_number })
}

/// The numbers of all segments, ascending, and the names of free files.
fn names(disk: &dyn Disk) -> Result<(Vec<u64>, Vec<String>), LogError> {
    let mut numbers = Vec::new();
    let mut free = Vec::new();
    for name in disk.list().map_err(failed("list"))? {
        let number = name.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        match (number, name.get(16..)) {
            (Some(number), Some(".log")) if name == segment_name(number) => numbers.push(number),
            (Some(_), Some(".free")) => free.push(name),
            _ => {
                let reason = format!("{name:?} is not a file of the log");
                return Err(LogError::Engine { action: "open", reason });
            }
        }
    }
    numbers.sort_unstable();
    Ok((numbers, free))
}
