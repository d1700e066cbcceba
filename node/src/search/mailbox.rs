//! What changes of a mailbox's messages, in memory: folder, keywords, labels, thread. Read once from the user's own change feed and
//! brought to the moment of each query by the same feed, so a flag costs a few bytes here and nothing in the index.
//!
//! Invariant: a message is in here exactly if it is in the rows of the snapshot that this was brought to. So no hit of an index that
//! has not heard of a deletion is one, and none is one twice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postrider_api::id::{EmailId, ModSeq, ShardId, UserId};
use postrider_api::pb::{self, ChangeKind};
use postrider_shard::Broken;
use postrider_shard::key::{Key, KeyRange, Table};
use postrider_shard::store::{Direction, Reader};
use prost::Message;

use super::bits::Bits;
use super::index::Doc;
use super::recent::Recent;

/// Of all mailboxes that are kept, bytes. The one that was searched longest ago goes first.
const KEPT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// A mailbox that is larger is read for each query anew, bytes: about a million messages.
const MAILBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// One that nobody has searched for so long is let go.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// Texts that are kept of one mailbox, bytes.
const TEXTS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What one message takes here, bytes.
const MESSAGE_BYTES: usize = 56;

/// The messages of one mailbox, oldest first. A message's number is its place here.
#[derive(Default)]
pub(super) struct Mailbox {
    /// The change that this was brought to.
    modseq: u64,
    /// The change that made each: rising, and never another message's.
    sequences: Vec<u64>,
    pub(super) ids: Vec<[u8; 16]>,
    pub(super) threads: Vec<[u8; 16]>,
    pub(super) folders: Vec<u32>,
    pub(super) keywords: Vec<u32>,
    /// Of those that have any.
    labels: BTreeMap<u64, Vec<u32>>,
    /// Those that have not been deleted.
    live: Option<Bits>,
    dead: usize,
    ranks: Ranks,
    /// The beginnings of texts that hits were shown of. Somebody who types asks for the same hits with each letter.
    texts: RefCell<Texts>,
    /// Messages that the index did not have when somebody searched last: the next who does need not read them again.
    pub(super) unindexed: BTreeMap<u64, Arc<Doc>>,
    /// The words of what the index did not have then.
    pub(super) recent: Recent,
}

/// Texts by the change that made their message, and their bytes.
#[derive(Default)]
struct Texts {
    kept: BTreeMap<u64, Arc<str>>,
    bytes: usize,
}

impl Mailbox {
    /// The text of a message, read by `read` where it is not here yet.
    pub(super) fn text<E>(&self, at: usize, read: impl FnOnce() -> Result<String, E>) -> Result<Arc<str>, E> {
        if let Some(text) = self.texts.borrow().kept.get(&self.sequences[at]) {
            return Ok(text.clone());
        }
        let text: Arc<str> = read()?.into();
        let texts = &mut *self.texts.borrow_mut();
        if texts.bytes + text.len() > TEXTS_BYTES_MAX {
            *texts = Texts::default();
        }
        texts.bytes += text.len();
        texts.kept.insert(self.sequences[at], text.clone());
        Ok(text)
    }

    /// Brings it to the moment of `rows`.
    pub(super) fn catch_up(&mut self, rows: &impl Reader, user: UserId) -> Result<(), Broken> {
        let modseq = postrider_shard::modseq(rows, user)?.map_or(0, |modseq| modseq.0);
        if modseq < self.modseq || self.dead > 1024.max(self.sequences.len() / 4) {
            *self = Self::default();
        }
        if modseq == self.modseq && self.live.is_some() {
            return Ok(());
        }
        let mut live = self.live.take().unwrap_or_else(|| Bits::none(0));
        let mut added = Vec::new();
        for found in rows.scan(&KeyRange::since(Table::Changes, user, ModSeq(self.modseq)), Direction::Forward) {
            let (key, value) = found?;
            let Ok(change) = pb::ChangeRecord::decode(value) else {
                return Err(Broken::Corrupt {
                    table: Table::Changes.name(),
                    key: super::extract::hex(key.as_ref()),
                    reason: "it does not decode".to_owned(),
                });
            };
            let known = self.number(change.created_modseq);
            match (change.kind(), known) {
                (ChangeKind::MessageCreated | ChangeKind::MessageUpdated, Some(at)) => self.update(at, &change),
                (ChangeKind::MessageCreated | ChangeKind::MessageUpdated, None) => added.push(change),
                (ChangeKind::MessageDeleted, Some(at)) if live.has(at) => {
                    live.unset(at);
                    self.dead += 1;
                }
                _ => {}
            }
        }
        // The feed is in the order of the last change of each.
        added.sort_unstable_by_key(|change| change.created_modseq);
        for change in added {
            self.push(&change);
            live.push(true);
        }
        self.live = Some(live);
        self.modseq = modseq;
        self.ranks.extend(&self.sequences);
        Ok(())
    }

    fn push(&mut self, change: &pb::ChangeRecord) {
        debug_assert!(self.sequences.last().is_none_or(|last| *last < change.created_modseq));
        self.sequences.push(change.created_modseq);
        self.ids.push(id(&change.email_id));
        self.threads.push([0; 16]);
        self.folders.push(0);
        self.keywords.push(0);
        self.update(self.ids.len() - 1, change);
    }

    fn update(&mut self, at: usize, change: &pb::ChangeRecord) {
        self.threads[at] = id(&change.thread_id);
        self.folders[at] = change.folder_id;
        self.keywords[at] = change.keywords;
        match change.labels.is_empty() {
            true => self.labels.remove(&self.sequences[at]),
            false => self.labels.insert(self.sequences[at], change.labels.clone()),
        };
    }

    /// How many numbers there are; those of deleted messages are among them.
    pub(super) fn length(&self) -> usize {
        self.sequences.len()
    }

    pub(super) fn live(&self) -> Bits {
        self.live.clone().unwrap_or_else(|| Bits::none(self.length()))
    }

    /// The number of the message that this change made, if it is still known.
    pub(super) fn number(&self, sequence: u64) -> Option<usize> {
        self.ranks.number(sequence, &self.sequences)
    }

    pub(super) fn sequence(&self, at: usize) -> u64 {
        self.sequences[at]
    }

    pub(super) fn email(&self, at: usize) -> EmailId {
        EmailId(self.ids[at])
    }

    /// How many messages arrived before this time, milliseconds: ids begin with when they did (RFC 9562 section 5.7).
    pub(super) fn before_ms(&self, ms: i64) -> usize {
        let Ok(ms) = u64::try_from(ms) else { return 0 };
        self.ids.partition_point(|id| milliseconds(id) < ms)
    }

    /// When a message arrived.
    pub(super) fn arrived_ms(&self, at: usize) -> i64 {
        // 48 bits.
        milliseconds(&self.ids[at]) as i64
    }

    pub(super) fn labelled(&self, label: u32) -> impl Iterator<Item = usize> {
        let with = self.labels.iter().filter(move |(_, labels)| labels.contains(&label));
        with.filter_map(|(sequence, _)| self.number(*sequence))
    }

    fn bytes(&self) -> usize {
        self.length() * MESSAGE_BYTES
            + self.labels.len() * 64
            + self.ranks.bytes()
            + self.texts.borrow().bytes
            + self.unindexed.values().map(|doc| doc.bytes()).sum::<usize>()
            + self.recent.bytes()
    }
}

fn milliseconds(id: &[u8; 16]) -> u64 {
    id[..6].iter().fold(0, |at, byte| at << 8 | u64::from(*byte))
}

fn id(bytes: &[u8]) -> [u8; 16] {
    bytes.try_into().unwrap_or_default()
}

/// Finds the number of a sequence at once, where they are not too far apart.
#[derive(Default)]
struct Ranks {
    /// A bit for each sequence there is, and before each 64 of them how many there were.
    there: Vec<(u64, u32)>,
    /// Of how many sequences this tells.
    known: usize,
    sparse: bool,
}

/// Sequences a message, above which they are too far apart: each takes a quarter of a byte.
const SPREAD_MAX: u64 = 64;

impl Ranks {
    fn extend(&mut self, sequences: &[u64]) {
        let last = sequences.last().copied().unwrap_or(0);
        self.sparse = last > SPREAD_MAX * (sequences.len() as u64 + 1024);
        if self.sparse {
            *self = Self { sparse: true, ..Self::default() };
            return;
        }
        let words = (last / 64 + 1) as usize;
        for _ in self.there.len()..words {
            self.there.push((0, self.known as u32));
        }
        for sequence in &sequences[self.known..] {
            self.there[(sequence / 64) as usize].0 |= 1 << (sequence % 64);
        }
        // What was added stands behind all that was there.
        let from = sequences.get(self.known).map_or(words, |first| (first / 64) as usize);
        for at in from.max(1)..words {
            self.there[at].1 = self.there[at - 1].1 + self.there[at - 1].0.count_ones();
        }
        self.known = sequences.len();
    }

    fn number(&self, sequence: u64, sequences: &[u64]) -> Option<usize> {
        if self.sparse || self.known < sequences.len() {
            return sequences.binary_search(&sequence).ok();
        }
        let (there, before) = *self.there.get((sequence / 64) as usize)?;
        let bit = 1 << (sequence % 64);
        (there & bit != 0).then(|| before as usize + (there & (bit - 1)).count_ones() as usize)
    }

    fn bytes(&self) -> usize {
        self.there.len() * size_of::<(u64, u32)>()
    }
}

type Shared = Arc<Mutex<Mailbox>>;

/// The mailboxes that were searched lately.
#[derive(Default)]
pub(super) struct Mailboxes {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    mailboxes: BTreeMap<(ShardId, UserId), Entry>,
    uses: u64,
    bytes: usize,
}

struct Entry {
    mailbox: Shared,
    used: u64,
    last: Instant,
    bytes: usize,
}

impl Mailboxes {
    /// A user's mailbox; to be brought to the moment of the query.
    pub(super) fn of(&self, shard: ShardId, user: UserId) -> Shared {
        let kept = &mut *self.kept.lock();
        kept.uses += 1;
        let entry = kept.mailboxes.entry((shard, user)).or_insert_with(|| Entry {
            mailbox: Shared::default(),
            used: 0,
            last: Instant::now(),
            bytes: 0,
        });
        (entry.used, entry.last) = (kept.uses, Instant::now());
        entry.mailbox.clone()
    }

    /// Counts what a mailbox takes now, and lets go of others for it.
    pub(super) fn used(&self, shard: ShardId, user: UserId, mailbox: &Mailbox) {
        let kept = &mut *self.kept.lock();
        let bytes = mailbox.bytes();
        if let Some(entry) = kept.mailboxes.get_mut(&(shard, user)) {
            kept.bytes = kept.bytes - entry.bytes + bytes;
            entry.bytes = bytes;
        }
        if bytes > MAILBOX_BYTES_MAX {
            kept.remove(shard, user);
        }
        while kept.bytes > KEPT_BYTES_MAX {
            let oldest =
                kept.mailboxes.iter().filter(|(key, _)| **key != (shard, user)).min_by_key(|(_, entry)| entry.used);
            let Some((&(shard, user), _)) = oldest else { break };
            kept.remove(shard, user);
        }
    }

    /// Lets go of those that nobody has searched for a while.
    pub(super) fn tidy(&self) {
        let kept = &mut *self.kept.lock();
        let idle = kept.mailboxes.iter().filter(|(_, entry)| entry.last.elapsed() >= IDLE);
        let idle: Vec<_> = idle.map(|(key, _)| *key).collect();
        idle.into_iter().for_each(|(shard, user)| kept.remove(shard, user));
    }

    pub(super) fn forget(&self, shard: ShardId, user: UserId) {
        self.kept.lock().remove(shard, user);
    }

    /// The shard's rows may be others than before, or it rests.
    pub(super) fn forget_shard(&self, shard: ShardId) {
        let kept = &mut *self.kept.lock();
        let (first, last) = ((shard, UserId([0; 16])), (shard, UserId([0xff; 16])));
        let users: Vec<UserId> = kept.mailboxes.range(first..=last).map(|((_, user), _)| *user).collect();
        users.into_iter().for_each(|user| kept.remove(shard, user));
    }
}

impl Kept {
    fn remove(&mut self, shard: ShardId, user: UserId) {
        if let Some(entry) = self.mailboxes.remove(&(shard, user)) {
            self.bytes -= entry.bytes;
        }
    }
}

/// The change that made each message of a mailbox, for whoever reads the messages themselves.
pub(super) fn sequences(rows: &impl Reader, user: UserId) -> Result<BTreeMap<EmailId, u64>, Broken> {
    let mut mailbox = Mailbox::default();
    mailbox.catch_up(rows, user)?;
    Ok((0..mailbox.length()).map(|at| (mailbox.email(at), mailbox.sequence(at))).collect())
}

/// A message's row in the list of its folder.
pub(super) fn line(rows: &impl Reader, user: UserId, mailbox: &Mailbox, at: usize) -> Result<pb::ListRow, Broken> {
    let key = Key::FolderEmail(user, postrider_api::id::FolderId(mailbox.folders[at]), mailbox.email(at));
    let broken = |reason: &str| Broken::Corrupt {
        table: Table::FolderEmails.name(),
        key: super::extract::hex(key.bytes().as_ref()),
        reason: reason.to_owned(),
    };
    let row = rows.get(&key.bytes())?.ok_or_else(|| broken("the change feed names it, and it is not there"))?;
    pb::ListRow::decode(row).map_err(|error| broken(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_near_and_far() {
        for spread in [1, 3, 64, 1000] {
            let sequences: Vec<u64> = (1..=5000u64).map(|n| n * spread).collect();
            let mut ranks = Ranks::default();
            for known in [0, 1, 70, 4000, 5000] {
                ranks.extend(&sequences[..known]);
                for (at, sequence) in sequences[..known].iter().enumerate() {
                    assert_eq!(ranks.number(*sequence, &sequences[..known]), Some(at), "{spread} {known}");
                    assert_eq!(
                        ranks.number(sequence + 1, &sequences[..known]).is_some(),
                        spread == 1 && at + 1 < known
                    );
                }
            }
        }
    }
}
