//! P-6: a request that comes again gets the first outcome, and nothing happens twice.
//!
//! Two tables. `dedup` is by [`Command::request`] and lasts [`DEDUP_MS`] of command time. `transfers` is by the request of
//! one target of a `Deliver` and lasts until the source says `Forget`: a source that was cut off for a week may ask again.
//!
//! A refusal is an outcome too, and is kept: whoever asks again must not get another answer because a quota has changed in
//! between. Only the mismatch of fingerprints is not, for it is the answer to another request.
//!
//! [`Command::request`]: postrider_api::pb::Command

use bytes::Bytes;
use postrider_api::id::RequestId;
use postrider_api::limit::DEDUP_MS;
use postrider_api::pb::{self, DedupRecord, Refusal};
use prost::Message;

use crate::key::{Key, KeyRange};
use crate::store::{Direction, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// Between two looks for expired rows, milliseconds: a seek every so often, not at each command.
const TRIM_EVERY_MS: i64 = 10_000;
/// Expired rows that one command removes. A command adds at most one, so the table does not grow beyond its time.
const TRIM_ROWS_MAX: usize = 256;

/// The first outcome of this command's request, if it has been carried out before.
pub(crate) fn first_outcome(
    turn: &mut Turn<'_, impl Rows>,
    command: &pb::Command,
) -> Result<Option<pb::Outcome>, Stop> {
    if command.request.is_empty() {
        return Ok(None);
    }
    let request = crate::turn::id::<RequestId>(&command.request, "request")?;
    let key = Key::Dedup(request);
    let Some(record) = row::get::<DedupRecord>(turn.rows, key)? else { return Ok(None) };
    if record.expires_at_ms <= turn.now {
        row::delete(turn.rows, key);
        row::delete(turn.rows, Key::DedupExpiry(record.expires_at_ms, request));
        return Ok(None);
    }
    if record.fingerprint != command.fingerprint {
        let detail = "another request was made under this request id";
        return Err(refuse(Refusal::FingerprintMismatch, detail));
    }
    row::decode(key, record.outcome).map(Some).map_err(Stop::Broken)
}

/// Keeps the outcome of this command's request.
pub(crate) fn keep(turn: &mut Turn<'_, impl Rows>, command: &pb::Command, outcome: &pb::Outcome) {
    // A request id of another length was refused as malformed, and has no row.
    let Ok(request) = RequestId::try_from(&command.request) else { return };
    let expires_at_ms = turn.now.saturating_add(DEDUP_MS);
    let record = DedupRecord {
        fingerprint: command.fingerprint.clone(),
        outcome: outcome.encode_to_vec().into(),
        expires_at_ms,
    };
    row::put(turn.rows, Key::Dedup(request), &record);
    row::put_empty(turn.rows, Key::DedupExpiry(expires_at_ms, request));
}

/// The delivery that a transfer made when it came first.
pub(crate) fn transferred(turn: &Turn<'_, impl Rows>, request: RequestId) -> Result<Option<pb::Delivery>, Broken> {
    let key = Key::Transfer(request);
    let Some(record) = row::get::<DedupRecord>(turn.rows, key)? else { return Ok(None) };
    let outcome: pb::Outcome = row::decode(key, record.outcome)?;
    match outcome.result {
        Some(pb::outcome::Result::Delivered(delivered)) if delivered.deliveries.len() == 1 => {
            Ok(delivered.deliveries.into_iter().next())
        }
        _ => Err(Broken::corrupt(key, "holds no single delivery")),
    }
}

/// Keeps what a transfer made, until [`forget`].
pub(crate) fn keep_transfer(turn: &mut Turn<'_, impl Rows>, request: RequestId, delivery: &pb::Delivery) {
    let outcome = pb::Outcome {
        result: Some(pb::outcome::Result::Delivered(pb::Delivered {
            deliveries: vec![delivery.clone()],
            ..Default::default()
        })),
    };
    let record = DedupRecord { fingerprint: Bytes::new(), outcome: outcome.encode_to_vec().into(), expires_at_ms: 0 };
    row::put(turn.rows, Key::Transfer(request), &record);
}

/// Transfers that one command forgets.
const FORGET_MAX: usize = 1000;

/// The source of these transfers has forgotten them and will not ask again.
pub(crate) fn forget(turn: &mut Turn<'_, impl Rows>, command: &pb::Forget) -> Result<pb::outcome::Result, Stop> {
    if command.requests.len() > FORGET_MAX {
        return Err(malformed(format!("requests: at most {FORGET_MAX}")));
    }
    let mut requests = Vec::with_capacity(command.requests.len());
    for request in &command.requests {
        requests.push(crate::turn::id::<RequestId>(request, "requests")?);
    }
    for request in requests {
        row::delete(turn.rows, Key::Transfer(request));
    }
    Ok(pb::outcome::Result::Done(pb::Done {}))
}

/// Removes rows of `dedup` whose time is over, a bounded number.
pub(crate) fn trim(turn: &mut Turn<'_, impl Rows>) -> Result<(), Broken> {
    let trimmed = turn.state.dedup_trimmed_ms;
    if turn.now.saturating_sub(trimmed) < TRIM_EVERY_MS {
        return Ok(());
    }
    let mut expired = Vec::new();
    for found in turn.rows.scan(&KeyRange::expiring(trimmed, turn.now), Direction::Forward).take(TRIM_ROWS_MAX) {
        match Key::decode(found?.0.as_ref())? {
            Key::DedupExpiry(ms, request) => expired.push((ms, request)),
            other => return Err(Broken::corrupt(other, "stands in the range of dedup_by_expiry")),
        }
    }
    turn.state.dedup_trimmed_ms = match expired.last() {
        // Others may have expired in the same millisecond.
        Some((ms, _)) if expired.len() == TRIM_ROWS_MAX => ms - 1,
        _ => turn.now,
    };
    for (ms, request) in expired {
        row::delete(turn.rows, Key::DedupExpiry(ms, request));
        row::delete(turn.rows, Key::Dedup(request));
    }
    Ok(())
}
