//! The bytes of a segment.
//!
//! ```text
//! segment   header, then records one after the other, each from the beginning of a block of 4 KiB; what lies behind the
//!           last one is left from the file's earlier use
//! header    magic "PRLOGSEG", version u32 = 1, number u64, crc32c u32 of what precedes
//! record    magic u32, length u32 of the payload, durable u64, crc32c u32 of (segment number, offset, length, durable,
//!           payload), payload: items one after the other
//! item      tag u8, group u32, length u32 of the body, body
//! ```
//! Numbers are big-endian. A record's checksum covers where it lies, so that a record from the file's earlier use, or in
//! another place, never counts. `durable` says how far the segment had been synced when the record was written: it tells a
//! write that a power cut tore from damage to what was acknowledged.

use crate::ids::{GroupId, Incarnation, NodeId};
use crate::log::disk::BLOCK_BYTES;
use crate::log::engine::LogOp;
use crate::log::row::{self, BadRow};
use crate::types::{LogId, Vote};
use crate::wire::InstallRecord;

const HEADER_MAGIC: [u8; 8] = *b"PRLOGSEG";
const HEADER_VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 8 + 4 + 8 + 4;
/// Where the first record begins.
pub(crate) const RECORDS_START: u64 = BLOCK_BYTES as u64;
const RECORD_MAGIC: [u8; 4] = *b"\xf5Rec";
pub(crate) const RECORD_HEADER_BYTES: usize = 4 + 4 + 8 + 4;
pub(crate) const ITEM_HEADER_BYTES: usize = 1 + 4 + 4;

const OWNER: u8 = 1;
const HOST: u8 = 2;
const FORGET: u8 = 3;
const APPEND: u8 = 4;
const VOTE: u8 = 5;
const COMMITTED: u8 = 6;
const TRUNCATE: u8 = 7;
const PURGE: u8 = 8;
const INSTALLING: u8 = 9;
const MOVED: u8 = 10;
const CHECKPOINT: u8 = 11;
const SEGMENT: u8 = 12;
const RANGE: u8 = 13;

/// The header of segment `number`.
pub(crate) fn encode_header(number: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&HEADER_MAGIC);
    header[8..12].copy_from_slice(&HEADER_VERSION.to_be_bytes());
    header[12..20].copy_from_slice(&number.to_be_bytes());
    let checksum = crc32c::crc32c(&header[..20]);
    header[20..].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// Whether `header` is that of segment `number`: not if it never got one since the file's earlier use.
///
/// # Errors
/// When a later version of this program wrote it.
pub(crate) fn check_header(number: u64, header: &[u8; HEADER_BYTES]) -> Result<bool, BadRow> {
    let stored = u32_at(header, 20);
    if header[..8] != HEADER_MAGIC || crc32c::crc32c(&header[..20]) != stored || u64_at(header, 12) != number {
        return Ok(false);
    }
    match u32_at(header, 8) {
        HEADER_VERSION => Ok(true),
        version => Err(BadRow::Newer(u8::try_from(version).unwrap_or(u8::MAX))),
    }
}

/// A record that is being put together.
#[derive(Default)]
pub(crate) struct RecordWriter {
    bytes: Vec<u8>,
}

impl RecordWriter {
    /// Empties it; the memory stays.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(RECORD_HEADER_BYTES, 0);
    }

    /// How long it would be if it ended here.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn item(&mut self, tag: u8, group: GroupId, body: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&group.0.to_be_bytes());
        let length = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        body(&mut self.bytes);
        let written = (self.bytes.len() - length - 4) as u32;
        self.bytes[length..length + 4].copy_from_slice(&written.to_be_bytes());
    }

    pub(crate) fn op(&mut self, group: GroupId, op: &LogOp) {
        match op {
            LogOp::Host(incarnation) => {
                self.item(HOST, group, |body| body.extend_from_slice(&incarnation.0.to_be_bytes()))
            }
            LogOp::Forget => self.item(FORGET, group, |_| {}),
            LogOp::Append { entries, committed } => {
                if committed.is_some() {
                    self.op(group, &LogOp::Committed(*committed));
                }
                for entry in entries {
                    self.item(APPEND, group, |body| {
                        body.extend_from_slice(&entry.log_id.index.to_be_bytes());
                        row::encode_entry(entry, body);
                    });
                }
            }
            LogOp::Vote(vote) => self.item(VOTE, group, |body| body.extend(row::encode_vote(vote))),
            LogOp::Committed(id) => {
                self.item(COMMITTED, group, |body| body.extend(id.iter().flat_map(row::encode_log_id)))
            }
            LogOp::Truncate { from } => self.item(TRUNCATE, group, |body| body.extend_from_slice(&from.to_be_bytes())),
            LogOp::Purge { upto } => self.item(PURGE, group, |body| body.extend(row::encode_log_id(upto))),
            LogOp::Installing(record) => self.item(INSTALLING, group, |body| {
                body.extend(record.iter().flat_map(prost::Message::encode_to_vec));
            }),
            LogOp::Barrier => {}
        }
    }

    pub(crate) fn owner(&mut self, node: NodeId) {
        self.item(OWNER, GroupId(0), |body| body.extend(row::encode_owner(node)));
    }

    /// An entry that lies elsewhere, as its item there says it, is here from now on.
    pub(crate) fn moved(&mut self, group: GroupId, body: &[u8]) {
        self.item(MOVED, group, |item| item.extend_from_slice(body));
    }

    /// What follows is all that is known, entries aside: nothing that was said before counts.
    pub(crate) fn checkpoint(&mut self) {
        self.item(CHECKPOINT, GroupId(0), |_| {});
    }

    /// An earlier segment counts, up to `end`.
    pub(crate) fn segment(&mut self, number: u64, end: u64) {
        self.item(SEGMENT, GroupId(0), |body| {
            body.extend_from_slice(&number.to_be_bytes());
            body.extend_from_slice(&end.to_be_bytes());
        });
    }

    /// The entries that a group has.
    pub(crate) fn range(&mut self, group: GroupId, first: u64, next: u64) {
        self.item(RANGE, group, |body| {
            body.extend_from_slice(&first.to_be_bytes());
            body.extend_from_slice(&next.to_be_bytes());
        });
    }

    /// The finished record, for `offset` in segment `number` that is synced up to `durable`.
    pub(crate) fn finish(&mut self, number: u64, offset: u64, durable: u64) -> &[u8] {
        let length = (self.bytes.len() - RECORD_HEADER_BYTES) as u32;
        self.bytes[..4].copy_from_slice(&RECORD_MAGIC);
        self.bytes[4..8].copy_from_slice(&length.to_be_bytes());
        self.bytes[8..16].copy_from_slice(&durable.to_be_bytes());
        let checksum = record_checksum(number, offset, &self.bytes[4..16], &self.bytes[RECORD_HEADER_BYTES..]);
        self.bytes[16..RECORD_HEADER_BYTES].copy_from_slice(&checksum.to_be_bytes());
        &self.bytes
    }

    /// Gives memory back beyond `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if self.bytes.capacity() > bytes {
            self.bytes = Vec::new();
        }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[RECORD_HEADER_BYTES..]
    }
}

fn record_checksum(number: u64, offset: u64, sizes: &[u8], payload: &[u8]) -> u32 {
    let checksum = crc32c::crc32c(&number.to_be_bytes());
    let checksum = crc32c::crc32c_append(checksum, &offset.to_be_bytes());
    let checksum = crc32c::crc32c_append(checksum, sizes);
    crc32c::crc32c_append(checksum, payload)
}

/// Bytes of all blocks that `bytes` take.
pub(crate) fn blocks(bytes: usize) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES) as u64
}

/// A record that is whole and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// How far the segment had been synced before it.
    pub(crate) durable: u64,
    /// Its items.
    pub(crate) payload: &'a [u8],
}

impl Record<'_> {
    /// Where the next one begins when this one begins at `offset`.
    pub(crate) fn next(&self, offset: u64) -> u64 {
        offset + blocks(RECORD_HEADER_BYTES + self.payload.len())
    }
}

/// The record at `offset` of segment `number`, whose bytes from there on are `bytes`; `None` when there is none.
pub(crate) fn decode_record(number: u64, offset: u64, bytes: &[u8]) -> Option<Record<'_>> {
    let header: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
    if header[..4] != RECORD_MAGIC {
        return None;
    }
    let length = usize::try_from(u32_at(header, 4)).ok()?;
    let payload = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES.checked_add(length)?)?;
    (record_checksum(number, offset, &header[4..16], payload) == u32_at(header, 16))
        .then(|| Record { durable: u64_at(header, 8), payload })
}

/// What one item of a record says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Owner(NodeId),
    Host(Incarnation),
    Forget,
    /// An entry; its row is not looked at.
    Append {
        index: u64,
    },
    Moved {
        index: u64,
    },
    Vote(Vote),
    Committed(Option<LogId>),
    Truncate {
        from: u64,
    },
    Purge(LogId),
    Installing(Option<InstallRecord>),
    Checkpoint,
    Segment {
        number: u64,
        end: u64,
    },
    Range {
        first: u64,
        next: u64,
    },
}

/// An item with its group and where it lies in the payload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed {
    pub(crate) group: GroupId,
    pub(crate) at: usize,
    pub(crate) len: usize,
    pub(crate) item: Item,
}

/// The items of a record's payload.
pub(crate) fn items(payload: &[u8]) -> impl Iterator<Item = Result<Placed, BadRow>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == payload.len() {
            return None;
        }
        let decoded = decode_item(payload, at);
        at = decoded.as_ref().map_or(payload.len(), |placed| at + placed.len);
        Some(decoded)
    })
}

fn decode_item(payload: &[u8], at: usize) -> Result<Placed, BadRow> {
    let short = BadRow::Malformed("log item is too short");
    let rest = &payload[at..];
    let header: &[u8; ITEM_HEADER_BYTES] = rest.first_chunk().ok_or(short.clone())?;
    let length = u32_at(header, 5) as usize;
    let body = rest.get(ITEM_HEADER_BYTES..ITEM_HEADER_BYTES + length).ok_or(short)?;
    Ok(Placed {
        group: GroupId(u32_at(header, 1)),
        at,
        len: ITEM_HEADER_BYTES + length,
        item: decode_body(header[0], body)?,
    })
}

fn decode_body(tag: u8, body: &[u8]) -> Result<Item, BadRow> {
    let numbers = |what| -> Result<[u64; 2], BadRow> {
        let body: &[u8; 16] = body.try_into().map_err(|_| BadRow::Malformed(what))?;
        Ok([u64_at(body, 0), u64_at(body, 8)])
    };
    let nothing = |item| if body.is_empty() { Ok(item) } else { Err(BadRow::Malformed("log item with a body")) };
    let index = || body.first_chunk::<8>().map(|index| u64::from_be_bytes(*index)).ok_or(BadRow::Malformed("index"));
    match tag {
        OWNER => row::decode_owner(body).map(Item::Owner),
        HOST if body.len() == 8 => Ok(Item::Host(Incarnation(index()?))),
        FORGET => nothing(Item::Forget),
        APPEND => Ok(Item::Append { index: index()? }),
        MOVED => Ok(Item::Moved { index: index()? }),
        VOTE => row::decode_vote(body).map(Item::Vote),
        COMMITTED if body.is_empty() => Ok(Item::Committed(None)),
        COMMITTED => row::decode_log_id(body).map(|id| Item::Committed(Some(id))),
        TRUNCATE if body.len() == 8 => Ok(Item::Truncate { from: index()? }),
        PURGE => row::decode_log_id(body).map(Item::Purge),
        INSTALLING if body.is_empty() => Ok(Item::Installing(None)),
        INSTALLING => prost::Message::decode(body)
            .map(|record| Item::Installing(Some(record)))
            .map_err(|_| BadRow::Malformed("installation record")),
        CHECKPOINT => nothing(Item::Checkpoint),
        SEGMENT => numbers("segment").map(|[number, end]| Item::Segment { number, end }),
        RANGE => numbers("range").map(|[first, next]| Item::Range { first, next }),
        _ => Err(BadRow::Malformed("log item tag")),
    }
}

/// The entry that an item of `group` holds at `index`: its row.
pub(crate) fn entry_row(item: &[u8], group: GroupId, index: u64) -> Result<&[u8], BadRow> {
    let header: &[u8; ITEM_HEADER_BYTES] = item.first_chunk().ok_or(BadRow::Malformed("entry item is too short"))?;
    let body = &item[ITEM_HEADER_BYTES..];
    let (found, row) = body.split_first_chunk::<8>().ok_or(BadRow::Malformed("entry item is too short"))?;
    // What is read is what was asked for: the border where a wrong address would show.
    if !matches!(header[0], APPEND | MOVED) || u32_at(header, 1) != group.0 || u64::from_be_bytes(*found) != index {
        return Err(BadRow::Malformed("another entry lies here"));
    }
    Ok(row)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(number)
}
