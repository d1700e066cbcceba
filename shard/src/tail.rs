//! The shard-wide tail of changes (`changes_by_index`): what search and backup follow, by applied index.
//!
//! A row says which object changed and how, so that whoever was away learns what is gone; what the object is now stands in its
//! own row. The rows of one command are all there or all trimmed: from [`ShardRecord::tail_floor`] on the tail is whole, and
//! whoever has read up to an index below the one before it rebuilds from the rows. A floor of 0 says that it reaches back to
//! the shard's first command.
//!
//! It is kept by bytes and by time, whatever the rate of changes; each command trims a little of what is beyond that.
//!
//! [`ShardRecord::tail_floor`]: postrider_api::pb::ShardRecord

use bytes::Bytes;
use postrider_api::id::{BlobHash, EmailId, EntryId, FolderId, LabelId, ModSeq, UserId};
use postrider_api::pb::{ShardRecord, TailKind, TailRecord, TailVerb};
use prost::Message;

use crate::key::{Key, KeyRange, NameHash};
use crate::store::{Direction, Reader, Rows};
use crate::turn::Turn;
use crate::{Broken, row};

/// What a tail is kept by.
#[derive(Clone, Copy)]
struct Retention {
    /// Keys and values, bytes.
    bytes_max: u64,
    /// Of a change, milliseconds of command time.
    age_ms_max: i64,
}

/// About two days of 100 deliveries a second, and a week of everything that is slower: who is away longer rebuilds.
const RETENTION: Retention = Retention { bytes_max: 1 << 30, age_ms_max: 7 * 24 * 60 * 60 * 1000 };
/// Bytes beyond [`Retention::bytes_max`] that wait to be trimmed together: a seek every so many commands, not at each.
const BYTES_SLACK: u64 = 64 * 1024;
/// Between two looks for what is too old, milliseconds of command time.
const LOOK_EVERY_MS: i64 = 10_000;
/// Rows at which one command stops trimming, once all rows of an index are gone; more than any command adds on average over
/// the slack, so the tail does not grow.
const ROWS_TRIMMED_MAX: usize = 4096;

/// What a change is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Object {
    /// A message of a mailbox.
    Message(UserId, EmailId),
    /// A folder of a mailbox.
    Folder(UserId, FolderId),
    /// A label of a mailbox.
    Label(UserId, LabelId),
    /// An account: its profile, its state, its credentials. Deleted: nothing of the user is left.
    Account(UserId),
    /// A session, by the hash of its token.
    Session(UserId, [u8; 32]),
    /// An entry of the queue.
    QueueEntry(EntryId),
    /// A row of the error queue.
    FailedEntry(EntryId),
    /// A blob: created with the shard's first reference to it, deleted with its last.
    Blob(BlobHash),
    /// An address of the directory, by the hash that it stands under.
    Address(UserId, NameHash),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// It is new.
    Created,
    /// It is another than before.
    Updated,
    /// It is gone.
    Deleted,
}

/// One change, as a follower reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The command that made it.
    pub index: u64,
    /// The how manieth change of that command, from 0.
    pub n: u32,
    /// What changed.
    pub object: Object,
    /// How.
    pub verb: Verb,
    /// Its place in the user's own change feed; 0 for what is not in it.
    pub modseq: ModSeq,
    /// The time of the command, milliseconds.
    pub at_ms: i64,
}

/// Changes of whole commands, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The changes; at least all of one command where there are any.
    pub changes: Vec<Change>,
    /// Whether more follow.
    pub more: bool,
}

/// Adds one change of the running command. `modseq` is its place in the user's change feed, [`ModSeq`] 0 where it has none.
pub(crate) fn push(turn: &mut Turn<'_, impl Rows>, object: Object, verb: Verb, modseq: ModSeq) {
    let key = Key::Tail(turn.index, turn.tail_next).bytes();
    turn.tail_next += 1;
    let value: Bytes = record(object, verb, modseq, turn.now).encode_to_vec().into();
    turn.state.tail_bytes += row_bytes(key.as_ref(), &value);
    turn.rows.put(key, value);
}

/// Changes from the index `from` on, of at least so many rows where there are as many: the last command's are all there.
///
/// # Errors
/// When the store cannot be read or a row is corrupt.
pub fn read(reader: &impl Reader, from: u64, rows_min: usize) -> Result<Changes, Broken> {
    let mut changes: Vec<Change> = Vec::new();
    for found in reader.scan(&KeyRange::tail_from(from), Direction::Forward) {
        let (key, value) = found?;
        let (key, record) = row::decode_row::<TailRecord>(key, value)?;
        let change = change(key, &record)?;
        if changes.len() >= rows_min && changes.last().is_some_and(|last| last.index != change.index) {
            return Ok(Changes { changes, more: true });
        }
        changes.push(change);
    }
    Ok(Changes { changes, more: false })
}

/// The index of the newest change that the tail holds.
///
/// # Errors
/// When the store cannot be read or the key is none.
pub fn newest(reader: &impl Reader) -> Result<Option<u64>, Broken> {
    match reader.scan(&KeyRange::tail_from(0), Direction::Backward).next().transpose()? {
        None => Ok(None),
        Some((key, _)) => match Key::decode(key.as_ref())? {
            Key::Tail(index, _) => Ok(Some(index)),
            other => Err(Broken::corrupt(other, "stands in the range of changes_by_index")),
        },
    }
}

/// The index from which on the tail is whole. Whoever has read up to the index before it has missed nothing.
///
/// # Errors
/// When the store cannot be read, the row is corrupt, or the shard is newer than this build.
pub fn floor(reader: &impl Reader) -> Result<u64, Broken> {
    let state: ShardRecord = row::get(reader, Key::Shard)?.unwrap_or_default();
    crate::format::check(&state)?;
    Ok(state.tail_floor)
}

/// Bytes that a row counts for.
pub(crate) fn row_bytes(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

fn record(object: Object, verb: Verb, modseq: ModSeq, at_ms: i64) -> TailRecord {
    let (kind, user, object) = match &object {
        Object::Message(user, email) => (TailKind::Message, Some(user), Bytes::copy_from_slice(&email.0)),
        Object::Folder(user, folder) => (TailKind::Folder, Some(user), Bytes::copy_from_slice(&folder.0.to_be_bytes())),
        Object::Label(user, label) => (TailKind::Label, Some(user), Bytes::copy_from_slice(&label.0.to_be_bytes())),
        Object::Account(user) => (TailKind::Account, Some(user), Bytes::new()),
        Object::Session(user, hash) => (TailKind::Session, Some(user), Bytes::copy_from_slice(hash)),
        Object::QueueEntry(entry) => (TailKind::QueueEntry, None, Bytes::copy_from_slice(&entry.0.to_be_bytes())),
        Object::FailedEntry(entry) => (TailKind::FailedEntry, None, Bytes::copy_from_slice(&entry.0.to_be_bytes())),
        Object::Blob(hash) => (TailKind::Blob, None, Bytes::copy_from_slice(&hash.0)),
        Object::Address(user, hash) => (TailKind::Address, Some(user), Bytes::copy_from_slice(hash)),
    };
    let verb = match verb {
        Verb::Created => TailVerb::Created,
        Verb::Updated => TailVerb::Updated,
        Verb::Deleted => TailVerb::Deleted,
    };
    TailRecord {
        user_id: user.map(|user| user.to_bytes()).unwrap_or_default(),
        modseq: modseq.0,
        kind: kind.into(),
        verb: verb.into(),
        object,
        at_ms,
    }
}

/// What a row says.
pub(crate) fn change(key: Key, record: &TailRecord) -> Result<Change, Broken> {
    let Key::Tail(index, n) = key else {
        return Err(Broken::corrupt(key, "stands in the range of changes_by_index"));
    };
    let user = || row::id::<UserId>(key, &record.user_id);
    let object = match record.kind() {
        TailKind::Message => Object::Message(user()?, row::id(key, &record.object)?),
        TailKind::Folder => Object::Folder(user()?, FolderId(u32::from_be_bytes(fixed(key, &record.object)?))),
        TailKind::Label => Object::Label(user()?, LabelId(u32::from_be_bytes(fixed(key, &record.object)?))),
        TailKind::Account => Object::Account(user()?),
        TailKind::Session => Object::Session(user()?, fixed(key, &record.object)?),
        TailKind::QueueEntry => Object::QueueEntry(EntryId(u64::from_be_bytes(fixed(key, &record.object)?))),
        TailKind::FailedEntry => Object::FailedEntry(EntryId(u64::from_be_bytes(fixed(key, &record.object)?))),
        TailKind::Blob => Object::Blob(BlobHash(fixed(key, &record.object)?)),
        TailKind::Address => Object::Address(user()?, fixed(key, &record.object)?),
        TailKind::Unspecified => return Err(Broken::corrupt(key, "is a change of nothing")),
    };
    let verb = match record.verb() {
        TailVerb::Created => Verb::Created,
        TailVerb::Updated => Verb::Updated,
        TailVerb::Deleted => Verb::Deleted,
        TailVerb::Unspecified => return Err(Broken::corrupt(key, "does not say what became of its object")),
    };
    Ok(Change { index, n, object, verb, modseq: ModSeq(record.modseq), at_ms: record.at_ms })
}

fn fixed<const N: usize>(key: Key, bytes: &Bytes) -> Result<[u8; N], Broken> {
    <[u8; N]>::try_from(&bytes[..]).map_err(|_| Broken::corrupt(key, format!("its object has not {N} bytes")))
}

/// Drops what is beyond the retention, a bounded number of rows at a time.
pub(crate) fn trim(turn: &mut Turn<'_, impl Rows>) -> Result<(), Broken> {
    trim_to(turn, RETENTION)
}

fn trim_to(turn: &mut Turn<'_, impl Rows>, retention: Retention) -> Result<(), Broken> {
    let surplus = turn.state.tail_bytes.saturating_sub(retention.bytes_max);
    if surplus <= BYTES_SLACK && turn.now.saturating_sub(turn.state.tail_looked_ms) < LOOK_EVERY_MS {
        return Ok(());
    }
    let too_old_ms = turn.now.saturating_sub(retention.age_ms_max);
    let (mut old, mut bytes, mut last, mut is_done) = (Vec::new(), 0, None, true);
    for found in turn.rows.scan(&KeyRange::tail_from(turn.state.tail_floor), Direction::Forward) {
        let (key, value) = found?;
        let size = row_bytes(key.as_ref(), &value);
        let (decoded, record) = row::decode_row::<TailRecord>(key, value)?;
        let index = change(decoded, &record)?.index;
        // All rows of a command, or none.
        if last != Some(index) {
            if old.len() >= ROWS_TRIMMED_MAX {
                is_done = false;
                break;
            }
            if bytes >= surplus && record.at_ms > too_old_ms {
                break;
            }
            last = Some(index);
        }
        bytes += size;
        old.push(key);
    }
    for key in old {
        turn.rows.delete(key);
    }
    if let Some(last) = last {
        turn.state.tail_floor = last + 1;
    }
    turn.state.tail_bytes = turn
        .state
        .tail_bytes
        .checked_sub(bytes)
        .ok_or_else(|| Broken::corrupt(Key::Shard, "tail_bytes would fall below zero"))?;
    // Where more is to go, the next command goes on.
    if is_done {
        turn.state.tail_looked_ms = turn.now;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
