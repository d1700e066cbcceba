//! Blobs are held for a command that is still to come.
//!
//! Whoever will refer to blobs pins them before he looks for them in the object stores: from then on no sweep deletes them.
//! The pin has the name of the command's own request, and is let go in the apply of that command, carried out or refused. A
//! writer that died leaves it behind; then it goes with time, by the shard's clock.

use postrider_api::id::RequestId;
use postrider_api::limit::{PARTS_MAX, PIN_MS};
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, BlobRecord, NewMessage, PinRecord, Refusal};

use crate::blobs::{hash_of, known, named, put};
use crate::key::{Key, KeyRange, Table};
use crate::mailbox::account::Mailbox;
use crate::store::{Direction, Rows};
use crate::turn::{Stop, Turn, id, malformed, refuse};
use crate::{Broken, row};

/// Between two looks for expired pins, milliseconds.
const TRIM_EVERY_MS: i64 = 10_000;
/// Expired pins that one command lets go of; more than any command adds, so that they do not pile up.
const TRIM_PINS_MAX: usize = 16;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::PinBlobs) -> Result<Made, Stop> {
    let request: RequestId = id(&command.request, "request")?;
    if command.blobs.is_empty() || command.blobs.len() > PARTS_MAX {
        return Err(malformed(format!("blobs: 1 to {PARTS_MAX}")));
    }
    if command.blobs.windows(2).any(|pair| pair[0].hash >= pair[1].hash) {
        return Err(malformed("blobs: each once, in the order of their hashes"));
    }
    check_quota(turn, command)?;
    let key = Key::Pin(request);
    if let Some(pinned) = row::get::<PinRecord>(turn.rows, key)? {
        return match pinned.blobs == command.blobs {
            true => Ok(Made::Done(pb::Done {})),
            false => Err(refuse(Refusal::Conflict, format!("request: other blobs are pinned for {request}"))),
        };
    }
    let mut records = Vec::with_capacity(command.blobs.len());
    for blob in &command.blobs {
        let hash = hash_of(blob)?;
        let record = known(turn.rows, hash, blob.bytes)?;
        records.push((Key::Blob(hash), BlobRecord { bytes: blob.bytes, pins: record.pins + 1, ..record }));
    }
    for (key, record) in records {
        row::put(turn.rows, key, &record);
    }
    let pin = PinRecord { blobs: command.blobs.clone(), expires_at_ms: turn.now.saturating_add(PIN_MS) };
    row::put(turn.rows, key, &pin);
    row::put_empty(turn.rows, Key::PinExpiry(pin.expires_at_ms, request));
    Ok(Made::Done(pb::Done {}))
}

/// A message that its recipient's or sender's quota has no room for is refused before its blobs are stored.
fn check_quota(turn: &Turn<'_, impl Rows>, command: &pb::PinBlobs) -> Result<(), Stop> {
    if command.user_id.is_empty() {
        return Ok(());
    }
    match Mailbox::open(turn, id(&command.user_id, "user_id")?)? {
        Some(mailbox) if mailbox.is_over_quota(command.size) => {
            let detail = format!("{} bytes are more than the mailbox has left", command.size);
            Err(refuse(Refusal::QuotaExceeded, detail))
        }
        _ => Ok(()),
    }
}

pub(crate) fn unpin(turn: &mut Turn<'_, impl Rows>, command: &pb::UnpinBlobs) -> Result<Made, Stop> {
    let request: RequestId = id(&command.request, "request")?;
    let_go(turn, request)?;
    Ok(Made::Done(pb::Done {}))
}

/// The command that the pin was for has had its turn.
pub(crate) fn end_of_turn(turn: &mut Turn<'_, impl Rows>, op: &Op) -> Result<(), Broken> {
    let message = match op {
        Op::Accept(command) => command.message.as_ref(),
        Op::Send(command) => command.message.as_ref(),
        Op::Deliver(command) => command.message.as_ref(),
        Op::Settle(command) => command.report.as_ref(),
        Op::SaveDraft(command) => command.message.as_ref(),
        _ => None,
    };
    match (turn.request, message.is_some_and(has_blobs)) {
        (Some(request), true) => let_go(turn, request),
        _ => Ok(()),
    }
}

fn has_blobs(message: &NewMessage) -> bool {
    message.pieces.iter().any(|piece| !piece.blob.is_empty())
}

/// Removes a pin, if there is one.
fn let_go(turn: &mut Turn<'_, impl Rows>, request: RequestId) -> Result<(), Broken> {
    let key = Key::Pin(request);
    let Some(pin) = row::get::<PinRecord>(turn.rows, key)? else { return Ok(()) };
    for blob in &pin.blobs {
        let key = Key::Blob(named(blob)?);
        let mut record: BlobRecord = row::need(turn.rows, key)?;
        record.pins = record.pins.checked_sub(1).ok_or_else(|| Broken::corrupt(key, "pins would fall below zero"))?;
        put(turn.rows, key, &record);
    }
    row::delete(turn.rows, key);
    row::delete(turn.rows, Key::PinExpiry(pin.expires_at_ms, request));
    Ok(())
}

/// Lets go of pins whose time is over, a bounded number at a time.
pub(crate) fn trim(turn: &mut Turn<'_, impl Rows>) -> Result<(), Broken> {
    let trimmed_ms = turn.state.pins_trimmed_ms;
    if turn.now.saturating_sub(trimmed_ms) < TRIM_EVERY_MS {
        return Ok(());
    }
    let mut expired = Vec::new();
    let range = KeyRange::expiring(Table::PinsByExpiry, trimmed_ms, turn.now);
    for found in turn.rows.scan(&range, Direction::Forward).take(TRIM_PINS_MAX) {
        match Key::decode(found?.0.as_ref())? {
            Key::PinExpiry(ms, request) => expired.push((ms, request)),
            other => return Err(Broken::corrupt(other, "stands in the range of pins_by_expiry")),
        }
    }
    turn.state.pins_trimmed_ms = match expired.last() {
        // Others may have expired in the same millisecond.
        Some((ms, _)) if expired.len() == TRIM_PINS_MAX => ms - 1,
        _ => turn.now,
    };
    expired.into_iter().try_for_each(|(_, request)| let_go(turn, request))
}
