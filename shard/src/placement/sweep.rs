//! The sweep of a zone's object stores, as a recorded operation: what is done, and the batch in hand (P-11).
//!
//! Whoever leads placement drives it, and records each step before the next begins, so that any new leader goes on from there.
//!
//! Invariant: a step names the one before it, so of two drivers at most one gets on. Invariant: from DELETING there is no way
//! back but through the deletion: a driver that was overtaken may still be deleting what was doomed, and nothing else.
//! Invariant: while a batch is condemned or deleted the zone gets no new mailbox shard, which would not have condemned it.

use bytes::Bytes;
use postrider_api::limit::SWEEP_BATCH_BLOBS_MAX;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{
    self, AdvanceSweep, Refusal, Region, StartSweep, Sweep, SweepPhase, SweepTally, Sweeps, SweptBlob,
};

use crate::key::{Key, KeyRange, Table, name_hash};
use crate::placement::{check_name, done};
use crate::query::QueryError;
use crate::store::{Direction, Reader, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// Copies of one blob: one a region of its zone.
const COPIES_MAX: usize = 64;
/// A version, bytes: what S3 calls an ETag.
const VERSION_BYTES_MAX: usize = 128;

pub(crate) fn start(turn: &mut Turn<'_, impl Rows>, command: &StartSweep) -> Result<Made, Stop> {
    check_name("zone", &command.zone)?;
    if !has_region(turn.rows, &command.zone)? {
        return Err(malformed(format!("zone: no region is in zone {:?}", command.zone)));
    }
    let key = Key::Sweep(name_hash(&command.zone));
    let was = row::get::<Sweep>(turn.rows, key)?.unwrap_or_default();
    if was.phase() != SweepPhase::Unspecified && was.phase() != SweepPhase::Ended {
        let detail = format!("zone {:?}: sweep {} is running", command.zone, was.number);
        return Err(refuse(Refusal::Conflict, detail));
    }
    let begun = Sweep {
        zone: command.zone.clone(),
        number: was.number + 1,
        phase: SweepPhase::Comparing.into(),
        reads: command.reads,
        batch: was.batch,
        step: was.step + 1,
        started_ms: turn.now,
        ended_ms: was.ended_ms,
        tally: Some(SweepTally::default()),
        last: was.last,
        awaited: was.awaited,
        ..Default::default()
    };
    row::put(turn.rows, key, &begun);
    Ok(done())
}

pub(crate) fn advance(turn: &mut Turn<'_, impl Rows>, command: &AdvanceSweep) -> Result<Made, Stop> {
    let key = Key::Sweep(name_hash(&command.zone));
    let was: Sweep = row::get(turn.rows, key)?
        .ok_or_else(|| refuse(Refusal::Conflict, format!("zone {:?}: there was never a sweep", command.zone)))?;
    if was.step != command.step {
        let detail = format!("step: {} is the last, the command follows {}", was.step, command.step);
        return Err(refuse(Refusal::Conflict, detail));
    }
    let tally = command.tally.or(was.tally);
    let mut next = Sweep { step: was.step + 1, phase: command.phase, tally, ..was.clone() };
    match (was.phase(), command.phase()) {
        (SweepPhase::Comparing, SweepPhase::Comparing) => next.cursor = forward(&was.cursor, &command.cursor)?,
        (SweepPhase::Comparing, SweepPhase::Ended) => {
            next.cursor = Bytes::new();
            next.ended_ms = turn.now;
            next.last = tally;
        }
        (SweepPhase::Comparing, SweepPhase::Condemning) => {
            check_batch(&command.blobs)?;
            next.until = forward(&was.cursor, &command.cursor)?;
            next.batch = was.batch + 1;
            next.blobs = command.blobs.clone();
        }
        (SweepPhase::Condemning, SweepPhase::Deleting) => doom(&mut next.blobs, &command.doomed)?,
        // Nothing is doomed, or some shard does not answer.
        (SweepPhase::Condemning | SweepPhase::Deleting, SweepPhase::Pardoning) => {}
        (SweepPhase::Pardoning, SweepPhase::Comparing) => {
            next.cursor = std::mem::take(&mut next.until);
            next.blobs = Vec::new();
        }
        (from, to) => return Err(malformed(format!("phase: from {from:?} to {to:?} is no step of a sweep"))),
    }
    row::put(turn.rows, key, &next);
    Ok(done())
}

/// A shard of the zone has moved. A sweep that is running may have passed over what is only now where it does not belong.
pub(crate) fn await_next(turn: &mut Turn<'_, impl Rows>, zone: &str) -> Result<(), Stop> {
    let key = Key::Sweep(name_hash(zone));
    let mut sweep: Sweep = row::get(turn.rows, key)?.unwrap_or_default();
    if sweep.phase() == SweepPhase::Unspecified {
        sweep.set_phase(SweepPhase::Ended);
    }
    sweep.zone = zone.to_owned();
    sweep.awaited = sweep.number + 1;
    row::put(turn.rows, key, &sweep);
    Ok(())
}

/// Refuses to let go of a region's store while a file of a message that came in during a move may be nowhere else.
pub(crate) fn check_swept(reader: &impl Reader, zone: &str) -> Result<(), Stop> {
    let sweep = row::get::<Sweep>(reader, Key::Sweep(name_hash(zone)))?.unwrap_or_default();
    let ended = if sweep.phase() == SweepPhase::Ended { sweep.number } else { sweep.number.saturating_sub(1) };
    if ended >= sweep.awaited {
        return Ok(());
    }
    let detail = format!("zone {zone:?}: a shard has moved since its stores were last swept; `ctl blobs check` first");
    Err(refuse(Refusal::Conflict, detail))
}

/// Every zone's sweep, by name.
pub(crate) fn answer(reader: &impl Reader) -> Result<Answer, QueryError> {
    let mut sweeps = Vec::new();
    for found in reader.scan(&KeyRange::table(Table::Sweeps), Direction::Forward) {
        let (key, value) = found?;
        sweeps.push(row::decode_row::<Sweep>(key, value)?.1);
    }
    sweeps.sort_by(|a, b| a.zone.cmp(&b.zone));
    Ok(Answer::Sweeps(Sweeps { sweeps }))
}

/// Refuses a new mailbox shard for a zone of which some blobs are condemned.
pub(crate) fn check_new_shard(reader: &impl Reader, zone: &str) -> Result<(), Stop> {
    let sweep = row::get::<Sweep>(reader, Key::Sweep(name_hash(zone)))?.unwrap_or_default();
    match sweep.phase() {
        SweepPhase::Condemning | SweepPhase::Deleting => {
            let detail = format!("shard: a sweep is deleting garbage of zone {zone:?}; try again in a moment");
            Err(refuse(Refusal::Conflict, detail))
        }
        _ => Ok(()),
    }
}

fn has_region(reader: &impl Reader, zone: &str) -> Result<bool, Broken> {
    for found in reader.scan(&KeyRange::table(Table::Regions), Direction::Forward) {
        let (key, value) = found?;
        if row::decode_row::<Region>(key, value)?.1.zone == zone {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A cursor never goes back.
fn forward(was: &Bytes, to: &Bytes) -> Result<Bytes, Stop> {
    match to.len() == 32 && to >= was {
        true => Ok(to.clone()),
        false => Err(malformed("cursor: a hash is wanted, not before the one that was reached")),
    }
}

fn check_batch(blobs: &[SweptBlob]) -> Result<(), Stop> {
    if blobs.is_empty() || blobs.len() > SWEEP_BATCH_BLOBS_MAX {
        return Err(malformed(format!("blobs: 1 to {SWEEP_BATCH_BLOBS_MAX}")));
    }
    for blob in blobs {
        let is_long = |copy: &pb::BlobCopy| copy.version.len() > VERSION_BYTES_MAX;
        if blob.hash.len() != 32 || blob.doomed || blob.copies.len() > COPIES_MAX || blob.copies.iter().any(is_long) {
            return Err(malformed("blobs: a hash and its copies are wanted"));
        }
    }
    Ok(())
}

fn doom(batch: &mut [SweptBlob], doomed: &[Bytes]) -> Result<(), Stop> {
    for hash in doomed {
        let blob = batch.iter_mut().find(|blob| blob.hash == hash);
        blob.ok_or_else(|| malformed("doomed: is not in the batch"))?.doomed = true;
    }
    Ok(())
}
