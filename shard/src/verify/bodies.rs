//! References to bodies, across all users and the queue, and to the blobs that bodies have.

use std::collections::{BTreeMap, BTreeSet};

use postrider_api::id::BodyId;
use postrider_api::pb::{BlobRef, BodyHead, EmailRecord, FailedRecord, NewMessage, Piece, QueueRecord, ShardRecord};

use crate::key::{Key, KeyRange, Table};
use crate::queue::body_of;
use crate::store::{Direction, Reader};
use crate::verify::blobs::BlobSums;
use crate::verify::ledger::Ledger;
use crate::{Broken, blobs, row};

/// Sums over the bodies that are referred to, by first byte of their ids: of a hash of the body's id and its blobs. Two sums are
/// equal when each body of that byte is referred to as often as its head says, with the blobs that it says, and by accident
/// once in 2^128 times.
pub(crate) struct References {
    sums: [u128; 256],
}

impl Default for References {
    fn default() -> Self {
        Self { sums: [0; 256] }
    }
}

impl References {
    /// A message whose pieces are these refers to a body.
    pub(crate) fn add(&mut self, body: BodyId, pieces: &[Piece]) {
        self.add_times(body, &blobs::of_pieces(pieces).unwrap_or_default(), 1);
    }

    fn add_times(&mut self, body: BodyId, blobs: &[BlobRef], times: u64) {
        let sum = &mut self.sums[usize::from(body.0[0])];
        *sum = sum.wrapping_add(fingerprint(body, blobs).wrapping_mul(u128::from(times)));
    }
}

fn fingerprint(body: BodyId, blobs: &[BlobRef]) -> u128 {
    if blobs.is_empty() {
        return u128::from_be_bytes(body.0);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&body.0);
    for blob in blobs {
        hasher.update(&blob.hash);
        hasher.update(&blob.bytes.to_be_bytes());
    }
    let mut fingerprint = [0; 16];
    hasher.finalize_xof().fill(&mut fingerprint);
    u128::from_be_bytes(fingerprint)
}

pub(crate) fn verify(
    reader: &impl Reader,
    state: &ShardRecord,
    references: &References,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    let mut stored = References::default();
    let mut held = BlobSums::default();
    let mut bytes = 0;
    for found in reader.scan(&KeyRange::table(Table::BodyHeads), Direction::Forward) {
        let (key, value) = found?;
        ledger.expect(Table::BodyHeads, 1);
        ledger.expect(Table::Bodies, 1);
        let Ok((key @ Key::BodyHead(body), head)) = row::decode_row::<BodyHead>(key, value) else { continue };
        stored.add_times(body, &head.blobs, head.references);
        for blob in &head.blobs {
            held.add(&blob.hash, blob.bytes, 1);
        }
        bytes += head.stored_length;
        match reader.get(&Key::Body(body).bytes())? {
            Some(text) => ledger.compare(key, "stored_length", head.stored_length, text.len() as u64),
            None => ledger.at(Key::Body(body), "is missing"),
        }
    }
    ledger.compare(Key::Shard, "bytes", state.bytes, bytes);
    super::blobs::verify(reader, state, held, ledger)?;
    let unequal: BTreeSet<u8> =
        (0..=u8::MAX).filter(|byte| stored.sums[usize::from(*byte)] != references.sums[usize::from(*byte)]).collect();
    match unequal.is_empty() {
        true => Ok(()),
        false => name_unequal(reader, &unequal, ledger),
    }
}

/// The pieces of a message that waits or was given up.
pub(crate) fn pieces_of(message: Option<&NewMessage>) -> &[Piece] {
    message.map_or(&[], |message| &message.pieces)
}

/// Counts out the bodies whose ids begin with one of these bytes.
fn name_unequal(reader: &impl Reader, unequal: &BTreeSet<u8>, ledger: &mut Ledger) -> Result<(), Broken> {
    let mut counted: BTreeMap<BodyId, u64> = BTreeMap::new();
    let mut count = |key: Key, body: Result<BodyId, Broken>, pieces: &[Piece], ledger: &mut Ledger| {
        let Ok(body) = body else { return Ok(()) };
        if unequal.contains(&body.0[0]) {
            *counted.entry(body).or_default() += 1;
            let head: Option<BodyHead> = ledger.note(row::get(reader, Key::BodyHead(body)))?.flatten();
            if head.is_some_and(|head| Some(head.blobs) != blobs::of_pieces(pieces)) {
                ledger.at(key, format!("has other blobs than its body {body}"));
            }
        }
        Ok::<(), Broken>(())
    };
    for found in reader.scan(&KeyRange::table(Table::Emails), Direction::Forward) {
        let (key, value) = found?;
        if let Ok((key, email)) = row::decode_row::<EmailRecord>(key, value) {
            count(key, row::id(key, &email.body_id), &email.pieces, ledger)?;
        }
    }
    for found in reader.scan(&KeyRange::table(Table::Queue), Direction::Forward) {
        let (key, value) = found?;
        if let Ok((key, entry)) = row::decode_row::<QueueRecord>(key, value) {
            count(key, body_of(key, entry.message.as_ref()), pieces_of(entry.message.as_ref()), ledger)?;
        }
    }
    for found in reader.scan(&KeyRange::table(Table::Failed), Direction::Forward) {
        let (key, value) = found?;
        if let Ok((key, failed)) = row::decode_row::<FailedRecord>(key, value) {
            count(key, body_of(key, failed.message.as_ref()), pieces_of(failed.message.as_ref()), ledger)?;
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
