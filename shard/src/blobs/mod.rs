//! Blobs: which of them this shard refers to, and which may be referred to (P-11).
//!
//! A body names the blobs of its message ([`BodyHead::blobs`]) and refers to them for as long as it is here, however many
//! mailboxes, queue entries and rows of the error queue refer to the body: so the counts here change only when a body is made
//! or goes, in that very apply, and deleting whatever had the message releases them by itself.
//!
//! Invariant: a body is made only of blobs that another body here refers to, or that are pinned for the command that makes it
//! ([`pin`]). Invariant: what a sweep has condemned ([`condemn`]) nothing refers to and nobody pins. So whatever every shard
//! of a zone has condemned may be deleted, and whatever is referred to was in the object stores when it was pinned, and stays
//! there (`docs/adr/055-blobs-are-pinned-and-condemned.md`).
//!
//! [`BodyHead::blobs`]: postrider_api::pb::BodyHead

pub(crate) mod condemn;
pub(crate) mod pin;
pub(crate) mod read;

use postrider_api::id::{BlobHash, ModSeq};
use postrider_api::pb::{BlobRecord, BlobRef, Piece, PinRecord, Refusal};

use crate::key::Key;
use crate::store::{Reader, Rows};
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// The blobs of a message, each once, by hash; `None` where the pieces contradict each other.
pub(crate) fn of_pieces(pieces: &[Piece]) -> Option<Vec<BlobRef>> {
    let cut = pieces.iter().filter(|piece| !piece.blob.is_empty());
    let mut blobs: Vec<BlobRef> =
        cut.map(|piece| BlobRef { hash: piece.blob.clone(), bytes: piece.blob_length }).collect();
    blobs.sort_by(|a, b| (&a.hash, a.bytes).cmp(&(&b.hash, b.bytes)));
    blobs.dedup();
    let is_sound =
        blobs.iter().all(|blob| blob.hash.len() == 32) && blobs.windows(2).all(|pair| pair[0].hash != pair[1].hash);
    is_sound.then_some(blobs)
}

/// Checks, before anything is written, that a new body may refer to these blobs.
pub(crate) fn check(turn: &Turn<'_, impl Rows>, blobs: &[BlobRef]) -> Result<(), Stop> {
    if blobs.is_empty() {
        return Ok(());
    }
    let pinned = match turn.request {
        Some(request) => row::get::<PinRecord>(turn.rows, Key::Pin(request))?.unwrap_or_default(),
        None => PinRecord::default(),
    };
    for blob in blobs {
        let hash = hash_of(blob)?;
        let known = known(turn.rows, hash, blob.bytes)?;
        if known.references == 0 && !pinned.blobs.contains(blob) {
            let detail = format!("message.pieces: blob {hash} is neither pinned for this request nor referred to here");
            return Err(refuse(Refusal::BlobsNotPinned, detail));
        }
    }
    Ok(())
}

/// A new body refers to these blobs.
pub(crate) fn hold(turn: &mut Turn<'_, impl Rows>, blobs: &[BlobRef]) -> Result<(), Broken> {
    for blob in blobs {
        let hash = named(blob)?;
        let key = Key::Blob(hash);
        let mut record = row::get::<BlobRecord>(turn.rows, key)?.unwrap_or_default();
        record.bytes = blob.bytes;
        if record.references == 0 {
            tail::push(turn, Object::Blob(hash), Verb::Created, ModSeq(0));
            turn.state.blobs += 1;
            turn.state.blob_bytes += blob.bytes;
        }
        record.references += 1;
        row::put(turn.rows, key, &record);
    }
    Ok(())
}

/// A body that referred to these blobs has gone.
pub(crate) fn release(turn: &mut Turn<'_, impl Rows>, blobs: &[BlobRef]) -> Result<(), Broken> {
    for blob in blobs {
        let hash = named(blob)?;
        let key = Key::Blob(hash);
        let mut record: BlobRecord = row::need(turn.rows, key)?;
        record.references =
            record.references.checked_sub(1).ok_or_else(|| Broken::corrupt(key, "references would fall below zero"))?;
        if record.references == 0 {
            tail::push(turn, Object::Blob(hash), Verb::Deleted, ModSeq(0));
            let below = || Broken::corrupt(Key::Shard, "blobs or blob_bytes would fall below zero");
            turn.state.blobs = turn.state.blobs.checked_sub(1).ok_or_else(below)?;
            turn.state.blob_bytes = turn.state.blob_bytes.checked_sub(record.bytes).ok_or_else(below)?;
        }
        put(turn.rows, key, &record);
    }
    Ok(())
}

/// What the shard knows of a blob that a command wants to refer to or to pin.
fn known(reader: &impl Reader, hash: BlobHash, bytes: u64) -> Result<BlobRecord, Stop> {
    let Some(record) = row::get::<BlobRecord>(reader, Key::Blob(hash))? else { return Ok(BlobRecord::default()) };
    if record.condemned != 0 {
        return Err(refuse(
            Refusal::BlobCondemned,
            format!("blob {hash} is being deleted; it may come again in a moment"),
        ));
    }
    if record.bytes != bytes {
        let detail = format!("blob {hash}: has {} bytes, the command says {bytes}", record.bytes);
        return Err(refuse(Refusal::Conflict, detail));
    }
    Ok(record)
}

/// Keeps a row for as long as it says something.
fn put(rows: &mut impl Rows, key: Key, record: &BlobRecord) {
    if record.references == 0 && record.pins == 0 && record.condemned == 0 {
        row::delete(rows, key);
    } else {
        row::put(rows, key, record);
    }
}

fn hash_of(blob: &BlobRef) -> Result<BlobHash, Stop> {
    BlobHash::try_from(&blob.hash[..]).map_err(|error| malformed(format!("blobs.hash: {error}")))
}

/// Of a blob that a row names.
fn named(blob: &BlobRef) -> Result<BlobHash, Broken> {
    BlobHash::try_from(&blob.hash[..])
        .map_err(|error| Broken::corrupt(Key::Shard, format!("a body or a pin names a blob: {error}")))
}
