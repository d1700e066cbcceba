//! The queue and the error queue: when entries are due, who stands in which line, what waits for whom, from whom and for which
//! destination, whose outbox an entry is in.
//!
//! What it is for above all: nobody waits without a time at which he is looked at, unless he is parked behind somebody who has one or an
//! operator holds him.

use postrider_api::id::EntryId;
use postrider_api::pb::{
    DestinationRecord, FailedRecord, LineRecord, PendingRecipient, QueueCount, QueueRecord, ShardRecord,
};

use crate::key::{Key, KeyRange, Table, name_hash};
use crate::queue::count::Counted;
use crate::queue::entry::{self, NEVER_DUE_MS, lines, message_bytes};
use crate::queue::line::{Line, place};
use crate::queue::who::{self, Who};
use crate::queue::{body_of, destination};
use crate::store::{Direction, Reader};
use crate::verify::bodies::{References, pieces_of};
use crate::verify::ledger::Ledger;
use crate::verify::shard::{each, expect_index};
use crate::{Broken, row};

pub(crate) fn verify(
    reader: &impl Reader,
    state: &ShardRecord,
    references: &mut References,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    waiting(reader, state, references, ledger)?;
    failed(reader, state, references, ledger)
}

fn waiting(
    reader: &impl Reader,
    state: &ShardRecord,
    references: &mut References,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    let mut entries = 0;
    let mut counts = Counts::default();
    each::<QueueRecord>(reader, Table::Queue, ledger, |key, record, ledger| {
        let Key::Queue(entry) = key else { return Ok(()) };
        ledger.compare(key, "entry", record.entry, entry.0);
        if entry.0 > state.entry_last {
            ledger.at(key, format!("is later than entry_last, {}", state.entry_last));
        }
        if record.pending.is_empty() {
            ledger.at(key, "nobody waits in it");
        }
        entries += 1;
        counts.add(key, &record)?;
        is_looked_at(reader, key, entry, &record, ledger)?;
        for line in lines(entry, &record.pending)? {
            stands_in(reader, line, &record, ledger)?;
        }
        for name in destination::tally(entry, &record.pending)?.keys() {
            expect_index(reader, Key::DestinationEntry(name_hash(name), entry), ledger)?;
        }
        if let Some(sender) = entry::sender(key, &record)? {
            expect_index(reader, Key::Outbox(sender, entry), ledger)?;
        }
        references.add(body_of(key, record.message.as_ref())?, pieces_of(record.message.as_ref()));
        Ok(())
    })?;
    ledger.compare(Key::Shard, "queue_entries", state.queue_entries, entries);
    counts.compare(reader, ledger)?;
    let mut known = None;
    for table in [Table::MailboxLines, Table::ShardLines, Table::DestinationLines] {
        for found in reader.scan(&KeyRange::table(table), Direction::Forward) {
            let (key, value) = found?;
            let Ok((key, record)) = row::decode_row::<LineRecord>(key, value) else { continue };
            let (line, _) = place(key.bytes().as_ref())?;
            if known.replace(line) != Some(line) && record.parked {
                ledger.at(key, "is the first of its line, and parked");
            }
        }
    }
    Ok(())
}

/// Everybody in the entry has his time, or a reason to have none; and the entry has the first of them.
fn is_looked_at(
    reader: &impl Reader,
    key: Key,
    entry: EntryId,
    record: &QueueRecord,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    for pending in &record.pending {
        is_in_order(key, pending, ledger)?;
    }
    let first_ms = record.pending.iter().map(|pending| pending.due_ms).min().unwrap_or(NEVER_DUE_MS);
    ledger.compare(key, "due_ms", record.due_ms, first_ms);
    match record.due_ms {
        NEVER_DUE_MS => Ok(()),
        due_ms => expect_index(reader, Key::QueueDue(due_ms, entry), ledger),
    }
}

fn is_in_order(key: Key, pending: &PendingRecipient, ledger: &mut Ledger) -> Result<(), Broken> {
    let line = Line::of(key, pending)?;
    let is_never_due = pending.due_ms == NEVER_DUE_MS;
    if pending.parked && line.is_none() {
        ledger.at(key, "somebody in it is parked, and stands in no line");
    }
    if pending.held && (line.is_some() || !is_never_due) {
        ledger.at(key, "somebody in it is held, and stands in a line or has a time");
    }
    // The sender of somebody outside is told of him also while he is parked.
    let may_have_none = pending.held || (pending.parked && !who::is_remote(pending));
    if is_never_due != may_have_none {
        ledger.at(key, format!("somebody in it is looked at {}", if is_never_due { "never" } else { "out of turn" }));
    }
    Ok(())
}

/// The entry has its place in a line, and those of its recipients who stand there say the same.
fn stands_in(reader: &impl Reader, line: Line, entry: &QueueRecord, ledger: &mut Ledger) -> Result<(), Broken> {
    let id = EntryId(entry.entry);
    let key = line.key(id);
    ledger.expect(key.table(), 1);
    let Some(LineRecord { parked }) = row::get(reader, key)? else {
        ledger.at(key, "is missing");
        return Ok(());
    };
    for pending in &entry.pending {
        if Line::of(Key::Queue(id), pending)? == Some(line) {
            ledger.compare(key, "parked", parked, pending.parked);
        }
    }
    Ok(())
}

/// What waits for whom, from whom and for which destination, as sums in which each key has a weight of its own: two are equal when every
/// count is, and by accident once in 2^128 times. A map of all recipients would not be bounded.
#[derive(Default)]
struct Counts {
    recipients: Sums,
    senders: Sums,
    destinations: Sums,
    /// Recipients for destinations; the others are counted by entry.
    outside: Sums,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    entries: u128,
    bytes: u128,
}

impl Sums {
    fn add(&mut self, key: Key, count: QueueCount) {
        let hash = blake3::hash(key.bytes().as_ref());
        let mut weight = [0; 16];
        weight.copy_from_slice(&hash.as_bytes()[..16]);
        let weight = u128::from_be_bytes(weight);
        self.entries = self.entries.wrapping_add(weight.wrapping_mul(count.entries.into()));
        self.bytes = self.bytes.wrapping_add(weight.wrapping_mul(count.bytes.into()));
    }
}

impl Counts {
    fn add(&mut self, key: Key, record: &QueueRecord) -> Result<(), Broken> {
        let one = QueueCount { entries: 1, bytes: record.message.as_ref().map_or(0, message_bytes) };
        for pending in &record.pending {
            if let Some(user) = Who::of_pending(key, pending)?.user() {
                self.recipients.add(Key::QueueRecipient(user), one);
            }
        }
        if let Some(key) = Counted::Sender(&record.mail_from).key() {
            self.senders.add(key, one);
        }
        for (name, recipients) in destination::tally(EntryId(record.entry), &record.pending)? {
            let key = Key::QueueDestination(name_hash(&name));
            self.destinations.add(key, one);
            self.outside.add(key, QueueCount { entries: recipients, bytes: 0 });
        }
        Ok(())
    }

    fn compare(self, reader: &impl Reader, ledger: &mut Ledger) -> Result<(), Broken> {
        for (table, derived) in [(Table::QueueRecipients, self.recipients), (Table::QueueSenders, self.senders)] {
            let mut stored = Sums::default();
            each::<QueueCount>(reader, table, ledger, |key, count, ledger| {
                if count.entries == 0 {
                    ledger.at(key, "counts nothing");
                }
                stored.add(key, count);
                Ok(())
            })?;
            if stored != derived {
                ledger.differ(format!("{}: the counts are not those of the queue", table.name()));
            }
        }
        let (mut stored, mut outside) = (Sums::default(), Sums::default());
        each::<DestinationRecord>(reader, Table::QueueDestinations, ledger, |key, count, ledger| {
            ledger.compare(key, "destination", Key::QueueDestination(name_hash(&count.destination)), key);
            if count.entries == 0 {
                ledger.at(key, "counts nothing");
            }
            stored.add(key, QueueCount { entries: count.entries, bytes: count.bytes });
            outside.add(key, QueueCount { entries: count.recipients, bytes: 0 });
            Ok(())
        })?;
        if stored != self.destinations || outside != self.outside {
            ledger.differ(format!("{}: the counts are not those of the queue", Table::QueueDestinations.name()));
        }
        Ok(())
    }
}

fn failed(
    reader: &impl Reader,
    state: &ShardRecord,
    references: &mut References,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    let mut entries = 0;
    each::<FailedRecord>(reader, Table::Failed, ledger, |key, record, ledger| {
        let Key::Failed(entry) = key else { return Ok(()) };
        entries += 1;
        ledger.compare(key, "entry", record.entry, entry.0);
        if entry.0 > state.entry_last {
            ledger.at(key, format!("is later than entry_last, {}", state.entry_last));
        }
        if record.recipients.is_empty() {
            ledger.at(key, "nobody was given up in it");
        }
        for recipient in &record.recipients {
            Who::of_failed(key, recipient)?;
        }
        references.add(body_of(key, record.message.as_ref())?, pieces_of(record.message.as_ref()));
        Ok(())
    })?;
    ledger.compare(Key::Shard, "failed_entries", state.failed_entries, entries);
    Ok(())
}
