//! A sweep's word, and its end.
//!
//! What one shard has condemned may still be needed by another: only what every shard of the zone has condemned is deleted. The
//! batch's number rises, and a shard remembers the newest that was pardoned: a command that comes late, from a driver that was
//! overtaken, condemns nothing any more.

use bytes::Bytes;
use postrider_api::id::BlobHash;
use postrider_api::limit::SWEEP_BATCH_BLOBS_MAX;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, BlobRecord, Refusal};

use crate::blobs::put;
use crate::key::Key;
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::CondemnBlobs) -> Result<Made, Stop> {
    let keys = keys(command.batch, &command.blobs)?;
    if command.batch <= turn.state.sweep_batch {
        let detail = format!("batch: {} is over, so is everything up to {}", command.batch, turn.state.sweep_batch);
        return Err(refuse(Refusal::Conflict, detail));
    }
    let mut kept = Vec::new();
    let mut condemned = Vec::new();
    for (key, hash) in keys.into_iter().zip(&command.blobs) {
        let record = row::get::<BlobRecord>(turn.rows, key)?.unwrap_or_default();
        match record.references == 0 && record.pins == 0 {
            true => condemned.push(key),
            false => kept.push(hash.clone()),
        }
    }
    for key in condemned {
        row::put(turn.rows, key, &BlobRecord { condemned: command.batch, ..Default::default() });
    }
    Ok(Made::BlobsCondemned(pb::BlobsCondemned { kept }))
}

pub(crate) fn pardon(turn: &mut Turn<'_, impl Rows>, command: &pb::PardonBlobs) -> Result<Made, Stop> {
    let mut condemned = Vec::new();
    for key in keys(command.batch, &command.blobs)? {
        match row::get::<BlobRecord>(turn.rows, key)? {
            Some(record) if record.condemned == command.batch => condemned.push((key, record)),
            // It was kept, or is another batch's.
            _ => {}
        }
    }
    for (key, record) in condemned {
        put(turn.rows, key, &BlobRecord { condemned: 0, ..record });
    }
    turn.state.sweep_batch = turn.state.sweep_batch.max(command.batch);
    Ok(Made::Done(pb::Done {}))
}

fn keys(batch: u64, blobs: &[Bytes]) -> Result<Vec<Key>, Stop> {
    if batch == 0 {
        return Err(malformed("batch: is missing"));
    }
    if blobs.len() > SWEEP_BATCH_BLOBS_MAX {
        return Err(malformed(format!("blobs: at most {SWEEP_BATCH_BLOBS_MAX}")));
    }
    let key = |blob: &Bytes| BlobHash::try_from(&blob[..]).map(Key::Blob);
    blobs.iter().map(|blob| key(blob).map_err(|error| malformed(format!("blobs: {error}")))).collect()
}
