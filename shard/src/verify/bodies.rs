//! References to bodies, across all users and the queue.

use std::collections::{BTreeMap, BTreeSet};

use postrider_api::id::BodyId;
use postrider_api::pb::{BodyHead, EmailRecord, FailedRecord, QueueRecord, ShardRecord};

use crate::key::{Key, KeyRange, Table};
use crate::queue::body_of;
use crate::store::{Direction, Reader};
use crate::verify::ledger::Ledger;
use crate::{Broken, row};

/// Sums of the ids of the bodies that are referred to, by first byte. Ids are random, so two sums are equal when each
/// body of that byte is referred to as often as its head says, and by accident once in 2^128 times.
pub(crate) struct References {
    sums: [u128; 256],
}

impl Default for References {
    fn default() -> Self {
        Self { sums: [0; 256] }
    }
}

impl References {
    pub(crate) fn add(&mut self, body: BodyId) {
        self.add_times(body, 1);
    }

    fn add_times(&mut self, body: BodyId, times: u64) {
        let sum = &mut self.sums[usize::from(body.0[0])];
        *sum = sum.wrapping_add(u128::from_be_bytes(body.0).wrapping_mul(u128::from(times)));
    }
}

pub(crate) fn verify(
    reader: &impl Reader,
    state: &ShardRecord,
    references: &References,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    let mut stored = References::default();
    let mut bytes = 0;
    for found in reader.scan(&KeyRange::table(Table::BodyHeads), Direction::Forward) {
        let (key, value) = found?;
        ledger.expect(Table::BodyHeads, 1);
        ledger.expect(Table::Bodies, 1);
        let Ok((key @ Key::BodyHead(body), head)) = row::decode_row::<BodyHead>(key, value) else { continue };
        stored.add_times(body, head.references);
        bytes += head.stored_length;
        match reader.get(&Key::Body(body).bytes())? {
            Some(text) => ledger.compare(key, "stored_length", head.stored_length, text.len() as u64),
            None => ledger.at(Key::Body(body), "is missing"),
        }
    }
    ledger.compare(Key::Shard, "bytes", state.bytes, bytes);
    let unequal: BTreeSet<u8> =
        (0..=u8::MAX).filter(|byte| stored.sums[usize::from(*byte)] != references.sums[usize::from(*byte)]).collect();
    match unequal.is_empty() {
        true => Ok(()),
        false => name_unequal(reader, &unequal, ledger),
    }
}

/// Counts out the bodies whose ids begin with one of these bytes.
fn name_unequal(reader: &impl Reader, unequal: &BTreeSet<u8>, ledger: &mut Ledger) -> Result<(), Broken> {
    let mut counted: BTreeMap<BodyId, u64> = BTreeMap::new();
    let mut count = |body: Result<BodyId, Broken>| {
        if let Ok(body) = body
            && unequal.contains(&body.0[0])
        {
            *counted.entry(body).or_default() += 1;
        }
    };
    for found in reader.scan(&KeyRange::table(Table::Emails), Direction::Forward) {
        let (key, value) = found?;
        if let Ok((key, email)) = row::decode_row::<EmailRecord>(key, value) {
            count(row::id(key, &email.body_id));
        }
    }
    for found in reader.scan(&KeyRange::table(Table::Queue), Direction::Forward) {
        let (key, value) = found?;
        if let Ok((key, entry)) = row::decode_row::<QueueRecord>(key, value) {
            count(body_of(key, entry.message.as_ref()));
        }
    }
    for found in reader.scan(&KeyRange::table(Table::Failed), Direction::Forward) {
        let (key, value) = found?;
        if let Ok((key, failed)) = row::decode_row::<FailedRecord>(key, value) {
            count(body_of(key, failed.message.as_ref()));
        }
    }
    for found in reader.scan(&KeyRange::table(Table::BodyHeads), Direction::Forward) {
        let (key, value) = found?;
        let Ok((key @ Key::BodyHead(body), head)) = row::decode_row::<BodyHead>(key, value) else { continue };
        if unequal.contains(&body.0[0]) {
            ledger.compare(key, "references", head.references, counted.remove(&body).unwrap_or_default());
        }
    }
    for (body, references) in counted {
        ledger.at(Key::BodyHead(body), format!("is missing, and is referred to {references} times"));
    }
    Ok(())
}
