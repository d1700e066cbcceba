//! Ranges of keys: every scan there is.

use std::ops::Bound;

use postrider_api::id::{BlobHash, EmailId, EntryId, FolderId, LabelId, ModSeq, ShardId, UserId};

use super::{DomainHash, Key, KeyBytes, NameHash, Table};

/// Keys from `start` (with it) to `end` (without it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: KeyBytes,
    /// The first key behind the range; `None`: to the end of the shard.
    pub end: Option<KeyBytes>,
}

impl KeyRange {
    /// The whole shard.
    pub fn all() -> Self {
        Self { start: KeyBytes { length: 0, bytes: [0; super::KEY_BYTES_MAX] }, end: None }
    }

    /// Every key that begins with `prefix`.
    pub(crate) fn prefix(prefix: KeyBytes) -> Self {
        let mut end = prefix;
        while end.length > 0 {
            let last = usize::from(end.length) - 1;
            if end.bytes[last] < 0xff {
                end.bytes[last] += 1;
                return Self { start: prefix, end: Some(end) };
            }
            end.length -= 1;
        }
        Self { start: prefix, end: None }
    }

    /// A whole table.
    pub fn table(table: Table) -> Self {
        Self::prefix(KeyBytes::of_table(table))
    }

    /// Everything of one user in a table that is keyed by user first.
    pub fn user(table: Table, user: UserId) -> Self {
        Self::prefix(KeyBytes::of_table(table).with(&user.0))
    }

    /// One folder of a table that is keyed by user and folder first.
    pub fn folder(table: Table, user: UserId, folder: FolderId) -> Self {
        Self::prefix(list(table, user, folder.0))
    }

    /// One folder newest first, from the one before `before` on.
    pub fn folder_before(table: Table, user: UserId, folder: FolderId, before: Option<EmailId>) -> Self {
        Self::list_before(list(table, user, folder.0), before)
    }

    /// One label of a table that is keyed by user and label first.
    pub fn label(table: Table, user: UserId, label: LabelId) -> Self {
        Self::prefix(list(table, user, label.0))
    }

    /// One label newest first, from the one before `before` on.
    pub fn label_before(table: Table, user: UserId, label: LabelId, before: Option<EmailId>) -> Self {
        Self::list_before(list(table, user, label.0), before)
    }

    fn list_before(list: KeyBytes, before: Option<EmailId>) -> Self {
        let mut range = Self::prefix(list);
        if let Some(before) = before {
            range.start = list.with(&super::complement(before));
            range.skip_start();
        }
        range
    }

    /// What the versions of the map behind `since` have changed.
    pub(crate) fn map_changes(since: u64) -> Self {
        let mut range = Self::table(Table::MapChanges);
        range.start = KeyBytes::of_table(Table::MapChanges).with(&since.to_be_bytes());
        range.skip_start();
        range
    }

    /// Attachments of one message.
    pub fn attachments(user: UserId, email: EmailId) -> Self {
        Self::prefix(KeyBytes::of_table(Table::Attachments).with(&user.0).with(&email.0))
    }

    /// Changes or tombstones above `since`.
    pub fn since(table: Table, user: UserId, since: ModSeq) -> Self {
        let mut range = Self::user(table, user);
        range.start = KeyBytes::of_table(table).with(&user.0).with(&since.0.to_be_bytes());
        range.skip_start();
        range
    }

    /// The tail of changes from an applied index on.
    pub fn tail_from(index: u64) -> Self {
        Self { start: Key::Tail(index, 0).bytes(), ..Self::table(Table::Tail) }
    }

    /// Rows of an index by expiry that expire after `from_ms` and at or before `to_ms`.
    pub fn expiring(index: Table, from_ms: i64, to_ms: i64) -> Self {
        let at = |ms: i64| KeyBytes::of_table(index).with(&super::time(ms));
        let mut range = Self { start: at(from_ms), end: Self::prefix(at(to_ms)).end };
        range.skip_start();
        range
    }

    /// Queue entries due from `from_ms` on and at or before `until_ms`. Whoever knows that nothing is due earlier begins there:
    /// a scan from the table's start walks over every entry that was settled and not yet compacted away.
    pub fn due(from_ms: i64, until_ms: i64) -> Self {
        let at = |ms: i64| KeyBytes::of_table(Table::QueueByDue).with(&super::time(ms));
        Self { start: at(from_ms), end: Self::prefix(at(until_ms)).end }
    }

    /// Queue entries that are due, from this one on.
    pub fn due_from(due_ms: i64, entry: EntryId) -> Self {
        Self { start: Key::QueueDue(due_ms, entry).bytes(), ..Self::table(Table::QueueByDue) }
    }

    /// Those who wait for a shard, the oldest entry first.
    pub(crate) fn shard_line(shard: ShardId) -> Self {
        Self::prefix(KeyBytes::of_table(Table::ShardLines).with(&shard.0.to_be_bytes()))
    }

    /// Those who wait for a destination to take mail, the oldest entry first.
    pub(crate) fn destination_line(hash: NameHash) -> Self {
        Self::prefix(KeyBytes::of_table(Table::DestinationLines).with(&hash))
    }

    /// Entries with somebody for a destination, behind `after`.
    pub(crate) fn destination_entries(hash: NameHash, after: EntryId) -> Self {
        let key = KeyBytes::of_table(Table::DestinationEntries).with(&hash);
        Self::behind_entry(key, after)
    }

    /// Destinations behind the one with this hash.
    pub(crate) fn destinations_behind(hash: NameHash) -> Self {
        let mut range = Self::table(Table::QueueDestinations);
        range.start = Key::QueueDestination(hash).bytes();
        range.skip_start();
        range
    }

    /// A user's outbox behind `after`.
    pub(crate) fn outbox(user: UserId, after: EntryId) -> Self {
        Self::behind_entry(KeyBytes::of_table(Table::Outbox).with(&user.0), after)
    }

    /// One key alone.
    pub(crate) fn one(key: Key) -> Self {
        Self::prefix(key.bytes())
    }

    /// To whom no account of a domain sends.
    pub(crate) fn domain_suppressions(domain: DomainHash) -> Self {
        Self::prefix(KeyBytes::of_table(Table::DomainSuppressions).with(&domain))
    }

    /// What of the range stands behind a key of it.
    pub(crate) fn behind(self, key: Key) -> Self {
        let mut range = Self { start: key.bytes(), ..self };
        range.skip_start();
        range
    }

    /// Keys that are a prefix and an entry, behind `after`.
    fn behind_entry(prefix: KeyBytes, after: EntryId) -> Self {
        let mut range = Self::prefix(prefix);
        range.start = prefix.with(&after.0.to_be_bytes());
        range.skip_start();
        range
    }

    /// A table that is keyed by entry, behind `after`: entries are numbered from 1.
    pub(crate) fn entries_behind(table: Table, after: EntryId) -> Self {
        let mut range = Self::table(table);
        range.start = KeyBytes::of_table(table).with(&after.0.to_be_bytes());
        range.skip_start();
        range
    }

    /// The audit log behind (that is, older than) a record; from the newest on where that is 0.
    pub fn audit_before(sequence: u64) -> Self {
        let mut range = Self::table(Table::Audit);
        if sequence > 0 {
            range.start = Key::Audit(sequence).bytes();
            range.skip_start();
        }
        range
    }

    /// Blobs behind one hash (or from the first), up to another with it (or to the last).
    pub fn blobs(after: Option<BlobHash>, until: Option<BlobHash>) -> Self {
        let mut range = Self::table(Table::Blobs);
        if let Some(until) = until {
            range.end = Self::prefix(Key::Blob(until).bytes()).end;
        }
        if let Some(after) = after {
            range.start = Key::Blob(after).bytes();
            range.skip_start();
        }
        range
    }

    /// Without the keys that begin with the first: the next in byte order is the same with a zero behind it, and no table has
    /// keys of both lengths, so the successor of the same length begins the same rows.
    fn skip_start(&mut self) {
        let successor = Self::prefix(self.start).end;
        // A successor beyond the range, or none at all, leaves nothing.
        self.start = match (successor, self.end) {
            (Some(next), Some(end)) if next < end => next,
            (Some(next), None) => next,
            (_, Some(end)) => end,
            (None, None) => self.start,
        };
    }

    /// As an ordered map takes it. A range that ends before it begins is empty.
    pub(crate) fn bounds(&self) -> (Bound<KeyBytes>, Bound<KeyBytes>) {
        let end = match self.end {
            Some(end) => Bound::Excluded(end.max(self.start)),
            None => Bound::Unbounded,
        };
        (Bound::Included(self.start), end)
    }
}

/// What the keys of one folder or label begin with.
fn list(table: Table, user: UserId, number: u32) -> KeyBytes {
    KeyBytes::of_table(table).with(&user.0).with(&number.to_be_bytes())
}
