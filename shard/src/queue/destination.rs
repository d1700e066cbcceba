//! What waits for each destination outside: its counts, its entries, and what it said last. Why mail waits is one read (P-13).

use std::collections::BTreeMap;

use postrider_api::id::EntryId;
use postrider_api::limit::QUEUE_DESTINATION_ENTRIES_MAX;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{
    Destination, DestinationRecord, Destinations, ListDestinations, PendingRecipient, QueueRecord,
};

use crate::key::{Key, KeyRange, NameHash, Table, name_hash};
use crate::query::{QueryError, malformed};
use crate::queue::entry::NEVER_DUE_MS;
use crate::queue::line::{Line, first};
use crate::queue::who;
use crate::store::{Direction, Reader, Rows};
use crate::{Broken, page, row};

/// What a destination that was read counts for in a page, bytes: it is read with the entry that stands for it.
const READ_BYTES: usize = 1024;

/// How many recipients wait for each destination in one entry.
pub(crate) type Tally = BTreeMap<String, u64>;

pub(crate) fn tally(id: EntryId, pending: &[PendingRecipient]) -> Result<Tally, Broken> {
    let mut tally = Tally::new();
    for pending in pending {
        if let Some(destination) = who::destination(Key::Queue(id), pending)? {
            *tally.entry(destination).or_default() += 1;
        }
    }
    Ok(tally)
}

/// Brings counts and entries of destinations from what an entry's recipients were to what they are.
pub(crate) fn recount(
    rows: &mut impl Rows,
    id: EntryId,
    bytes: u64,
    before: &Tally,
    after: &Tally,
) -> Result<(), Broken> {
    let news = after.iter().filter(|(name, _)| !before.contains_key(*name)).map(|(name, now)| (name, 0, *now));
    let olds = before.iter().map(|(name, was)| (name, *was, after.get(name).copied().unwrap_or_default()));
    for (name, was, now) in olds.chain(news).filter(|(_, was, now)| was != now) {
        let hash = name_hash(name);
        let key = Key::QueueDestination(hash);
        let mut record: DestinationRecord = row::get(rows, key)?.unwrap_or_default();
        record.destination.clone_from(name);
        let below = || Broken::corrupt(key, "would fall below zero");
        record.recipients = (record.recipients + now).checked_sub(was).ok_or_else(below)?;
        if was == 0 {
            record.entries += 1;
            record.bytes += bytes;
            row::put_empty(rows, Key::DestinationEntry(hash, id));
        }
        if now == 0 {
            record.entries = record.entries.checked_sub(1).ok_or_else(below)?;
            record.bytes = record.bytes.checked_sub(bytes).ok_or_else(below)?;
            row::delete(rows, Key::DestinationEntry(hash, id));
        }
        match record.entries {
            0 => row::delete(rows, key),
            _ => row::put(rows, key, &record),
        }
    }
    Ok(())
}

/// Keeps what a destination said, if somebody still waits for it.
pub(crate) fn note(rows: &mut impl Rows, destination: &str, reply: &str, now: i64) -> Result<(), Broken> {
    let key = Key::QueueDestination(name_hash(destination));
    if let Some(record) = row::get::<DestinationRecord>(rows, key)? {
        row::put(rows, key, &DestinationRecord { reply: reply.to_owned(), reply_ms: now, ..record });
    }
    Ok(())
}

/// Whether as much waits for the destination as may.
pub(crate) fn is_full(reader: &impl Reader, destination: &str) -> Result<bool, Broken> {
    let record: Option<DestinationRecord> = row::get(reader, Key::QueueDestination(name_hash(destination)))?;
    Ok(record.is_some_and(|record| record.entries >= QUEUE_DESTINATION_ENTRIES_MAX))
}

/// Why mail waits, by destination.
pub(crate) fn answer(reader: &impl Reader, query: &ListDestinations) -> Result<Answer, QueryError> {
    let range = match (&query.destination[..], &query.after[..]) {
        ("", []) => KeyRange::table(Table::QueueDestinations),
        ("", after) => {
            let hash = NameHash::try_from(after).map_err(|_| malformed("after: a hash of 32 bytes is wanted"))?;
            KeyRange::destinations_behind(hash)
        }
        (name, _) => KeyRange::one(Key::QueueDestination(name_hash(name))),
    };
    let mut until = NameHash::default();
    let page = page::read(reader, &range, query.limit, |key, value| {
        let (key, count) = row::decode_row::<DestinationRecord>(key, value)?;
        let Key::QueueDestination(hash) = key else {
            return Err(Broken::corrupt(key, "stands among the destinations"));
        };
        until = hash;
        Ok((standing(reader, hash, count)?, READ_BYTES))
    })?;
    let until = if page.rows.is_empty() { Default::default() } else { until.to_vec().into() };
    Ok(Answer::Destinations(Destinations { destinations: page.rows, more: page.more, until }))
}

/// A destination with the entry that is tried for it.
fn standing(reader: &impl Reader, hash: NameHash, count: DestinationRecord) -> Result<Destination, Broken> {
    let line = Line::Destination(hash);
    let in_line = first(reader, line)?;
    let entry = match in_line {
        Some(entry) => entry,
        None => oldest(reader, hash)?,
    };
    let key = Key::Queue(entry);
    let record: QueueRecord = row::need(reader, key)?;
    let mut found: Option<&PendingRecipient> = None;
    for pending in &record.pending {
        let is_of = who::destination(key, pending)?.is_some_and(|name| name_hash(&name) == hash);
        let is_in_line = in_line.is_none() || Line::of(key, pending)? == Some(line);
        if is_of && is_in_line && found.is_none_or(|found| pending.due_ms < found.due_ms) {
            found = Some(pending);
        }
    }
    let pending = found.ok_or_else(|| Broken::corrupt(key, "stands for a destination that nobody in it waits for"))?;
    Ok(Destination {
        count: Some(count),
        entry: entry.0,
        created_ms: record.created_ms,
        due_ms: if pending.held { NEVER_DUE_MS } else { pending.due_ms },
        attempts: pending.attempts,
        reason: pending.reason.clone(),
        in_line: in_line.is_some(),
        held: pending.held,
    })
}

fn oldest(reader: &impl Reader, hash: NameHash) -> Result<EntryId, Broken> {
    let range = KeyRange::destination_entries(hash, EntryId(0));
    let found = reader.scan(&range, Direction::Forward).next().transpose()?;
    let (key, _) =
        found.ok_or_else(|| Broken::corrupt(Key::QueueDestination(hash), "counts entries that are not there"))?;
    entry_of(Key::decode(key.as_ref())?)
}

/// The entry of a key of `entries_by_destination`.
pub(crate) fn entry_of(key: Key) -> Result<EntryId, Broken> {
    match key {
        Key::DestinationEntry(_, entry) => Ok(entry),
        other => Err(Broken::corrupt(other, "stands among the entries of a destination")),
    }
}
