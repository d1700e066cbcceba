//! What the log holds, in memory: where each entry lies, and everything else as it is now.
//!
//! Invariant: the index changes only by the items of records, the same way when they are written and when they are read
//! again after a restart.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ids::{GroupId, Incarnation, NodeId};
use crate::log::engine::LogOp;
use crate::log::row::BadRow;
use crate::log::segment::format::{self, Item, Placed, RECORD_HEADER_BYTES, RecordWriter};
use crate::types::{self, LogId, Vote};
use crate::wire::InstallRecord;

/// Where an entry's item lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: u64,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// All that is known of one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupRows {
    pub(crate) hosted: bool,
    /// Which making of the group all this is of, also when it is hosted no more: the vote was given in it, and binds in no other.
    pub(crate) incarnation: Incarnation,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) installing: Option<InstallRecord>,
    pub(crate) entries: BTreeMap<u64, Location>,
}

impl GroupRows {
    fn is_empty(&self) -> bool {
        !self.hosted && self.vote.is_none() && self.entries.is_empty()
    }

    /// The first index that is missing, if the entries do not follow each other from the purged one on.
    pub(crate) fn hole(&self) -> Option<u64> {
        let (first, last) = (self.entries.first_key_value()?.0, self.entries.last_key_value()?.0);
        let expected = types::next_index(self.purged.as_ref());
        if *first != expected {
            return Some(expected);
        }
        let complete = last - first + 1 == self.entries.len() as u64;
        (!complete).then(|| (*first..*last).find(|index| !self.entries.contains_key(index)).unwrap_or(*first))
    }
}

/// Everything that the log holds.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) owner: Option<NodeId>,
    groups: BTreeMap<GroupId, GroupRows>,
    /// Bytes of entries that count, by segment; none for a segment that may go.
    live: BTreeMap<u64, u64>,
}

impl Index {
    pub(crate) fn group(&self, group: GroupId) -> Option<&GroupRows> {
        self.groups.get(&group)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupRows)> {
        self.groups.iter().map(|(group, rows)| (*group, rows))
    }

    /// Bytes of entries in `segment` that still count.
    pub(crate) fn live(&self, segment: u64) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// The entries that lie in `segment`.
    pub(crate) fn entries_in(&self, segment: u64) -> Vec<(GroupId, u64, Location)> {
        let mut found = Vec::new();
        for (group, rows) in &self.groups {
            let here = rows.entries.iter().filter(|(_, location)| location.segment == segment);
            found.extend(here.map(|(index, location)| (*group, *index, *location)));
        }
        found
    }

    /// Takes in the record with `payload` that lies at `offset` of `segment`.
    pub(crate) fn apply(&mut self, segment: u64, offset: u64, payload: &[u8]) -> Result<(), BadRow> {
        // A record is taken in whole or not at all.
        let items: Vec<Placed> = format::items(payload).collect::<Result<_, _>>()?;
        let base = offset + RECORD_HEADER_BYTES as u64;
        let mut ranges = None;
        for placed in items {
            let location = Location {
                segment,
                offset: u32::try_from(base + placed.at as u64).map_err(|_| BadRow::Malformed("segment too long"))?,
                len: u32::try_from(placed.len).map_err(|_| BadRow::Malformed("item too long"))?,
            };
            self.take(placed.group, placed.item, location, &mut ranges);
        }
        if let Some(ranges) = ranges {
            self.keep_only(&ranges);
        }
        Ok(())
    }

    fn take(&mut self, group: GroupId, item: Item, at: Location, ranges: &mut Option<BTreeMap<GroupId, Range<u64>>>) {
        match item {
            Item::Owner(node) => self.owner = Some(node),
            Item::Host(incarnation) => {
                let rows = self.rows(group);
                if rows.incarnation != incarnation {
                    *rows =
                        GroupRows { incarnation, entries: std::mem::take(&mut rows.entries), ..GroupRows::default() };
                }
                rows.hosted = true;
            }
            Item::Forget => {
                self.drop_entries(group, 0..u64::MAX);
                let rows = self.rows(group);
                // A node never votes twice in a term, not even after its replica was gone.
                *rows = GroupRows { vote: rows.vote, incarnation: rows.incarnation, ..GroupRows::default() };
            }
            Item::Append { index } => {
                self.drop_entries(group, index..u64::MAX);
                self.insert(group, index, at);
            }
            Item::Moved { index } => {
                self.drop_entries(group, index..index + 1);
                self.insert(group, index, at);
            }
            Item::Vote(vote) => self.rows(group).vote = Some(vote),
            Item::Committed(id) => self.rows(group).committed = id,
            Item::Truncate { from } => self.drop_entries(group, from..u64::MAX),
            Item::Purge(upto) => {
                self.drop_entries(group, 0..upto.index.saturating_add(1));
                self.rows(group).purged = Some(upto);
            }
            Item::Installing(record) => self.rows(group).installing = record,
            Item::Checkpoint => {
                self.owner = None;
                for rows in self.groups.values_mut() {
                    *rows = GroupRows { entries: std::mem::take(&mut rows.entries), ..GroupRows::default() };
                }
                *ranges = Some(BTreeMap::new());
            }
            // Only who opens the log needs to know.
            Item::Segment { .. } => {}
            Item::Range { first, next } => {
                if let Some(ranges) = ranges {
                    ranges.insert(group, first..next);
                }
            }
        }
    }

    fn rows(&mut self, group: GroupId) -> &mut GroupRows {
        self.groups.entry(group).or_default()
    }

    fn insert(&mut self, group: GroupId, index: u64, at: Location) {
        *self.live.entry(at.segment).or_default() += u64::from(at.len);
        self.rows(group).entries.insert(index, at);
    }

    fn drop_entries(&mut self, group: GroupId, range: Range<u64>) {
        let Some(rows) = self.groups.get_mut(&group) else { return };
        let mut dropped = rows.entries.split_off(&range.start);
        rows.entries.append(&mut dropped.split_off(&range.end));
        for location in dropped.into_values() {
            if let Some(live) = self.live.get_mut(&location.segment) {
                *live = live.saturating_sub(u64::from(location.len));
                if *live == 0 {
                    self.live.remove(&location.segment);
                }
            }
        }
    }

    /// Forgets entries that a checkpoint does not name.
    fn keep_only(&mut self, ranges: &BTreeMap<GroupId, Range<u64>>) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            let range = ranges.get(&group).cloned().unwrap_or(0..0);
            self.drop_entries(group, 0..range.start);
            self.drop_entries(group, range.end..u64::MAX);
        }
        self.groups.retain(|_, rows| !rows.is_empty());
    }

    /// Everything but the entries, and which of those there are.
    pub(crate) fn write_checkpoint(&self, segments: impl Iterator<Item = (u64, u64)>, record: &mut RecordWriter) {
        record.checkpoint();
        for (number, end) in segments {
            record.segment(number, end);
        }
        if let Some(owner) = self.owner {
            record.owner(owner);
        }
        for (group, rows) in self.groups() {
            record.op(group, &LogOp::Host(rows.incarnation));
            if let Some(vote) = rows.vote {
                record.op(group, &LogOp::Vote(vote));
            }
            if rows.committed.is_some() {
                record.op(group, &LogOp::Committed(rows.committed));
            }
            if let Some(upto) = rows.purged {
                record.op(group, &LogOp::Purge { upto });
            }
            if rows.installing.is_some() {
                record.op(group, &LogOp::Installing(rows.installing.clone()));
            }
            if let (Some((first, _)), Some((last, _))) = (rows.entries.first_key_value(), rows.entries.last_key_value())
            {
                record.range(group, *first, last.saturating_add(1));
            }
            if !rows.hosted {
                record.op(group, &LogOp::Forget);
            }
        }
    }
}
