//! References to blobs: those that bodies name, those that pins name, and the rows that count them.
//!
//! Compared by sums first, like the references to bodies, and counted out only where a sum differs.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use postrider_api::id::BlobHash;
use postrider_api::pb::{BlobRecord, BodyHead, PinRecord, ShardRecord};

use crate::key::{Key, KeyRange, Table};
use crate::store::{Direction, Reader};
use crate::verify::ledger::Ledger;
use crate::{Broken, row};

/// Sums over blobs by first byte of their hashes: of the hash's beginning and the length, as often as the blob is named.
pub(crate) struct BlobSums {
    sums: [u128; 256],
}

impl Default for BlobSums {
    fn default() -> Self {
        Self { sums: [0; 256] }
    }
}

impl BlobSums {
    pub(crate) fn add(&mut self, hash: &[u8], bytes: u64, times: u64) {
        let Some(start) = hash.first_chunk::<16>() else { return };
        let sum = &mut self.sums[usize::from(start[0])];
        let one = u128::from_be_bytes(*start) ^ u128::from(bytes);
        *sum = sum.wrapping_add(one.wrapping_mul(u128::from(times)));
    }

    fn unequal(&self, other: &Self) -> BTreeSet<u8> {
        (0..=u8::MAX).filter(|byte| self.sums[usize::from(*byte)] != other.sums[usize::from(*byte)]).collect()
    }
}

/// `held` is what bodies name.
pub(crate) fn verify(
    reader: &impl Reader,
    state: &ShardRecord,
    held: BlobSums,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    let pinned = pins(reader, state, ledger)?;
    let (mut references, mut pins) = (BlobSums::default(), BlobSums::default());
    let (mut blobs, mut blob_bytes) = (0, 0);
    for found in reader.scan(&KeyRange::table(Table::Blobs), Direction::Forward) {
        let (key, value) = found?;
        ledger.expect(Table::Blobs, 1);
        let Ok((key @ Key::Blob(hash), blob)) = row::decode_row::<BlobRecord>(key, value) else { continue };
        references.add(&hash.0, blob.bytes, blob.references);
        pins.add(&hash.0, blob.bytes, blob.pins);
        blobs += u64::from(blob.references > 0);
        blob_bytes += if blob.references > 0 { blob.bytes } else { 0 };
        match (blob.references > 0 || blob.pins > 0, blob.condemned) {
            (false, 0) => ledger.at(key, "nobody refers to it, and it is not condemned"),
            (true, batch) if batch != 0 => ledger.at(key, "is referred to or pinned, and condemned"),
            (_, batch) if batch != 0 && batch <= state.sweep_batch => {
                ledger.at(key, format!("is condemned in batch {batch}, which is over"));
            }
            _ => {}
        }
    }
    ledger.compare(Key::Shard, "blobs", state.blobs, blobs);
    ledger.compare(Key::Shard, "blob_bytes", state.blob_bytes, blob_bytes);
    let mut unequal = references.unequal(&held);
    unequal.extend(pins.unequal(&pinned));
    match unequal.is_empty() {
        true => Ok(()),
        false => name_unequal(reader, &unequal, ledger),
    }
}

fn pins(reader: &impl Reader, state: &ShardRecord, ledger: &mut Ledger) -> Result<BlobSums, Broken> {
    let mut pinned = BlobSums::default();
    for found in reader.scan(&KeyRange::table(Table::Pins), Direction::Forward) {
        let (key, value) = found?;
        ledger.expect(Table::Pins, 1);
        ledger.expect(Table::PinsByExpiry, 1);
        let Ok((key @ Key::Pin(request), pin)) = row::decode_row::<PinRecord>(key, value) else { continue };
        if pin.expires_at_ms <= state.pins_trimmed_ms {
            ledger
                .at(key, format!("expires at {}, and was not trimmed by {}", pin.expires_at_ms, state.pins_trimmed_ms));
        }
        let by_expiry = Key::PinExpiry(pin.expires_at_ms, request);
        if reader.get(&by_expiry.bytes())?.is_none() {
            ledger.at(by_expiry, "is missing");
        }
        for blob in &pin.blobs {
            pinned.add(&blob.hash, blob.bytes, 1);
        }
    }
    Ok(pinned)
}

/// What bodies and pins say of a blob: how many of each name it, and how many bytes it has.
#[derive(Default)]
struct Named {
    references: u64,
    pins: u64,
    bytes: u64,
}

/// Counts out the blobs whose hashes begin with one of these bytes.
fn name_unequal(reader: &impl Reader, unequal: &BTreeSet<u8>, ledger: &mut Ledger) -> Result<(), Broken> {
    let mut counted: BTreeMap<Bytes, Named> = BTreeMap::new();
    let is_meant = |hash: &Bytes| hash.first().is_some_and(|byte| unequal.contains(byte));
    for found in reader.scan(&KeyRange::table(Table::BodyHeads), Direction::Forward) {
        let (key, value) = found?;
        let Ok((_, head)) = row::decode_row::<BodyHead>(key, value) else { continue };
        for blob in head.blobs.into_iter().filter(|blob| is_meant(&blob.hash)) {
            let named = counted.entry(blob.hash).or_default();
            (named.references, named.bytes) = (named.references + 1, blob.bytes);
        }
    }
    for found in reader.scan(&KeyRange::table(Table::Pins), Direction::Forward) {
        let (key, value) = found?;
        let Ok((_, pin)) = row::decode_row::<PinRecord>(key, value) else { continue };
        for blob in pin.blobs.into_iter().filter(|blob| is_meant(&blob.hash)) {
            let named = counted.entry(blob.hash).or_default();
            (named.pins, named.bytes) = (named.pins + 1, blob.bytes);
        }
    }
    for found in reader.scan(&KeyRange::table(Table::Blobs), Direction::Forward) {
        let (key, value) = found?;
        let Ok((key @ Key::Blob(hash), blob)) = row::decode_row::<BlobRecord>(key, value) else { continue };
        if unequal.contains(&hash.0[0]) {
            let Named { references, pins, bytes } = counted.remove(&hash.0[..]).unwrap_or_default();
            ledger.compare(key, "references", blob.references, references);
            ledger.compare(key, "pins", blob.pins, pins);
            if references + pins > 0 {
                ledger.compare(key, "bytes", blob.bytes, bytes);
            }
        }
    }
    for (hash, Named { references, pins, .. }) in counted {
        if let Ok(hash) = BlobHash::try_from(&hash[..]) {
            ledger.at(Key::Blob(hash), format!("is missing, with {references} references and {pins} pins"));
        }
    }
    Ok(())
}
