//! Counts what this node's replicas hold, from their changes alone.
//!
//! The counts are metrics; above all they are the proof that the tail of changes is whole: `ctl verify` holds them against a
//! count of the rows. A change that was not told, told twice or told wrong is a difference there, before a search or a backup
//! lacks it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use postrider_api::id::ShardId;
use postrider_shard::Broken;
use postrider_shard::key::{KeyRange, Table};
use postrider_shard::store::{Direction, Reader};
use postrider_shard::tail::{self, Change, Object, Verb};
use prost::Message;

use super::{Batch, FollowError, Follower, Whole};

/// What is counted, as metrics and differences name it, and the table that holds one row of each.
const KINDS: [(&str, Table); 8] = [
    ("accounts", Table::Accounts),
    ("sessions", Table::Sessions),
    ("folders", Table::Folders),
    ("messages", Table::Emails),
    ("queue_entries", Table::Queue),
    ("failed_entries", Table::Failed),
    ("addresses", Table::Addresses),
    ("labels", Table::Labels),
];

/// The place of an object's kind in [`KINDS`]; `None` for what is not counted.
fn kind(object: &Object) -> Option<usize> {
    Some(match object {
        Object::Account(_) => 0,
        Object::Session(..) => 1,
        Object::Folder(..) => 2,
        Object::Message(..) => 3,
        Object::QueueEntry(_) => 4,
        Object::FailedEntry(_) => 5,
        Object::Address(..) => 6,
        Object::Label(..) => 7,
        Object::Blob(_) => return None,
    })
}

/// Metrics' names of changes.
fn labels(change: &Change) -> (&'static str, &'static str) {
    let kind = match change.object {
        Object::Account(_) => "account",
        Object::Session(..) => "session",
        Object::Folder(..) => "folder",
        Object::Label(..) => "label",
        Object::Message(..) => "message",
        Object::QueueEntry(_) => "queue_entry",
        Object::FailedEntry(_) => "failed_entry",
        Object::Blob(_) => "blob",
        Object::Address(..) => "address",
    };
    let verb = match change.verb {
        Verb::Created => "created",
        Verb::Updated => "updated",
        Verb::Deleted => "deleted",
    };
    (kind, verb)
}

/// How many there are of each kind; below zero where the changes are wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts([i64; KINDS.len()]);

impl Counts {
    fn take_in(&mut self, change: &Change, sign: i64) {
        let Some(kind) = kind(&change.object) else { return };
        match change.verb {
            Verb::Created => self.0[kind] += sign,
            Verb::Deleted => self.0[kind] -= sign,
            Verb::Updated => {}
        }
    }

    /// Of the rows themselves.
    fn of_rows(rows: &impl Reader) -> Result<Self, Broken> {
        let mut counts = Self::default();
        for (kind, (_, table)) in KINDS.iter().enumerate() {
            for found in rows.scan(&KeyRange::table(*table), Direction::Forward) {
                found?;
                counts.0[kind] += 1;
            }
        }
        Ok(counts)
    }
}

/// A shard as its changes up to an index tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ShardTally {
    through: u64,
    counts: Counts,
}

/// The tallies of this node's shards, for whoever holds them against the rows.
#[derive(Default)]
pub(crate) struct Tallies(Mutex<BTreeMap<ShardId, ShardTally>>);

/// Changes that are read at a time while a tally is brought to an index.
const ROWS_AT_ONCE: usize = 1000;

impl Tallies {
    /// What the changes of a shard tell otherwise than `rows`, a snapshot of it, hold. `newer` reads the shard later than that:
    /// the tally may be at changes that the snapshot does not have.
    ///
    /// Nothing can be said while the tally is to be built anew.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub(crate) fn differences(
        &self,
        shard: ShardId,
        rows: &impl Reader,
        newer: &impl Reader,
    ) -> Result<Vec<String>, Broken> {
        let held = Counts::of_rows(rows)?;
        let at = tail::newest(rows)?.unwrap_or(tail::floor(rows)?.saturating_sub(1));
        let Some(tally) = self.0.lock().get(&shard).copied() else { return Ok(Vec::new()) };
        let mut told = tally.counts;
        let is_known = if tally.through <= at {
            bring(&mut told, rows, tally.through, at, 1)?
        } else {
            // After a crash the rows may have to come back to where the tally was kept.
            tail::newest(newer)? >= Some(tally.through) && bring(&mut told, newer, at, tally.through, -1)?
        };
        if !is_known {
            return Ok(Vec::new());
        }
        let counts = KINDS.iter().zip(told.0.iter().zip(held.0));
        Ok(counts
            .filter(|(_, (told, held))| **told != *held)
            .map(|((name, _), (told, held))| format!("changes_by_index: tells of {told} {name}, there are {held}"))
            .collect())
    }
}

/// Takes in the changes behind `from` up to `to`, or takes them out; whether the tail still has them.
fn bring(counts: &mut Counts, rows: &impl Reader, from: u64, to: u64, sign: i64) -> Result<bool, Broken> {
    let mut next = from + 1;
    while next <= to {
        let read = tail::read(rows, next, ROWS_AT_ONCE)?;
        read.changes.iter().filter(|change| change.index <= to).for_each(|change| counts.take_in(change, sign));
        match read.changes.last() {
            Some(last) if read.more => next = last.index + 1,
            _ => break,
        }
    }
    // Looked at afterwards: what was trimmed meanwhile was not read.
    Ok(tail::floor(rows)? <= from + 1)
}

/// The follower.
pub(crate) struct Tally {
    path: PathBuf,
    tallies: Arc<Tallies>,
    is_kept: bool,
}

/// The file: a checksum, and this.
#[derive(Clone, PartialEq, prost::Message)]
struct Kept {
    #[prost(message, repeated, tag = "1")]
    shards: Vec<KeptShard>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeptShard {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, tag = "2")]
    through: u64,
    /// By [`KINDS`]; a file with another number of them is of another build, and is built anew.
    #[prost(sint64, repeated, tag = "3")]
    counts: Vec<i64>,
}

/// Bytes of the checksum, blake3-256 of what follows it.
const CHECKSUM_BYTES: usize = 32;

impl Tally {
    /// Goes on from what was kept in the node's directory `dir`; from nothing where that cannot be read: all of it is derived.
    pub(crate) fn open(dir: &Path) -> Self {
        let path = dir.join("follow").join("tally");
        let tallies = match fs::read(&path) {
            Ok(bytes) => decode(&bytes).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "the tally is damaged or of another build: it is built anew");
                BTreeMap::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the tally cannot be read: it is built anew");
                BTreeMap::new()
            }
        };
        let tally = Self { path, tallies: Arc::new(Tallies(Mutex::new(tallies))), is_kept: true };
        tally.show();
        tally
    }

    pub(crate) fn tallies(&self) -> Arc<Tallies> {
        self.tallies.clone()
    }

    fn set(&mut self, shard: ShardId, tally: ShardTally) {
        self.tallies.0.lock().insert(shard, tally);
        self.is_kept = false;
    }

    /// What all replicas of this node hold together.
    fn show(&self) {
        let mut sum = [0; KINDS.len()];
        for tally in self.tallies.0.lock().values() {
            for (sum, count) in sum.iter_mut().zip(tally.counts.0) {
                *sum += count;
            }
        }
        for ((name, _), sum) in KINDS.iter().zip(sum) {
            metrics::gauge!("postrider_node_objects_count", "kind" => *name).set(sum as f64);
        }
    }

    /// Written beside it, synced, and put in its place: the old one or the new one is there, whole.
    fn write(&self) -> io::Result<()> {
        let tallies = self.tallies.0.lock().clone();
        let shards = tallies.into_iter().map(|(shard, tally)| KeptShard {
            shard: shard.0,
            through: tally.through,
            counts: tally.counts.0.to_vec(),
        });
        let bytes = encode(&Kept { shards: shards.collect() });
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        File::open(dir)?.sync_all()
    }
}

fn encode(kept: &Kept) -> Vec<u8> {
    let body = kept.encode_to_vec();
    [blake3::hash(&body).as_bytes(), &body[..]].concat()
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<ShardId, ShardTally>> {
    let (checksum, body) = bytes.split_at_checked(CHECKSUM_BYTES)?;
    if *blake3::hash(body).as_bytes() != *checksum {
        return None;
    }
    let shards = Kept::decode(body).ok()?.shards.into_iter().map(|kept| {
        let counts = Counts(kept.counts.try_into().ok()?);
        Some((ShardId(kept.shard), ShardTally { through: kept.through, counts }))
    });
    shards.collect()
}

impl Follower for Tally {
    fn name(&self) -> &'static str {
        "tally"
    }

    fn shards(&self) -> Vec<ShardId> {
        self.tallies.0.lock().keys().copied().collect()
    }

    fn watermark(&self, shard: ShardId) -> Option<u64> {
        self.tallies.0.lock().get(&shard).map(|tally| tally.through)
    }

    fn follow(&mut self, shard: ShardId, batch: &Batch<'_>) -> Result<(), FollowError> {
        let mut counts = self.tallies.0.lock().get(&shard).map(|tally| tally.counts).unwrap_or_default();
        for change in batch.changes {
            counts.take_in(change, 1);
            let (kind, verb) = labels(change);
            metrics::counter!("postrider_node_changes_total", "kind" => kind, "verb" => verb).increment(1);
        }
        self.set(shard, ShardTally { through: batch.through, counts });
        Ok(())
    }

    fn rebuild(&mut self, shard: ShardId, whole: &Whole<'_>) -> Result<(), FollowError> {
        tracing::info!(shard = shard.0, reason = ?whole.reason, "the tally is counted anew from the rows");
        let counts = Counts::of_rows(whole.rows)?;
        whole.check()?;
        self.set(shard, ShardTally { through: whole.through, counts });
        Ok(())
    }

    /// Nothing of rows is cached.
    fn restored(&mut self, _: ShardId) {}

    fn removed(&mut self, shard: ShardId) -> Result<(), FollowError> {
        self.tallies.0.lock().remove(&shard);
        self.is_kept = false;
        Ok(())
    }

    fn keep(&mut self, _: bool) -> Result<bool, FollowError> {
        self.show();
        if self.is_kept {
            return Ok(true);
        }
        self.write().map_err(|source| FollowError::Keep { path: self.path.clone(), source })?;
        self.is_kept = true;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_damaged_file_is_none(at in 0usize..200, bit in 0u8..8, cut in 0usize..200) {
            let tally = KeptShard { shard: 1000, through: 77, counts: (0..KINDS.len() as i64).collect() };
            let bytes = encode(&Kept { shards: vec![tally] });
            prop_assert_eq!(decode(&bytes).unwrap().len(), 1);
            let mut damaged = bytes.clone();
            let at = at % damaged.len();
            damaged[at] ^= 1 << bit;
            prop_assert!(decode(&damaged).is_none());
            prop_assert!(decode(&bytes[..cut % bytes.len()]).is_none());
        }
    }
}
