//! P-6: a request that comes again gets the first outcome, and nothing happens twice.
//!
//! Two tables. `dedup` is by [`Command::request`] and lasts [`DEDUP_MS`] of command time. `transfers` is by the request of
//! one target of a `Deliver` and lasts until the source says `Forget`, or [`TRANSFER_MS`] where that never comes: a source that
//! was cut off for a week may ask again.
//!
//! What was forgotten cannot be delivered again, and no timer outside has a part in it. A `Deliver` brings the time of its
//! lease, and is refused [`DELIVER_AGE_MS_MAX`] later; a `Forget` brings the time of the last lease, and is refused until
//! [`FORGET_AGE_MS_MIN`] later. Both times are held against the shard's own, which never goes back. What expired cannot either:
//! a target without a row is delivered to only within [`UNDELIVERED_MS_MAX`] of the time at which he certainly did not have
//! the message, when a row would still be there.
//!
//! A refusal is an outcome too, and is kept: whoever asks again must not get another answer because a quota has changed in
//! between. Only two are not: the mismatch of fingerprints, for it is the answer to another request; and what is said of blobs
//! that are not pinned or are being deleted, for it decides nothing of the request and has its cure.
//!
//! [`Command::request`]: postrider_api::pb::Command

use postrider_api::id::RequestId;
use postrider_api::limit::{
    DEDUP_MS, DELIVER_AGE_MS_MAX, FORGET_AGE_MS_MIN, RECIPIENTS_MAX, TRANSFER_MS, UNDELIVERED_MS_MAX,
};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{self, DedupRecord, Missing, Refusal, TransferRecord};
use prost::Message;

use crate::key::{Key, KeyRange, Table};
use crate::query::QueryError;
use crate::store::{Direction, Reader, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// Between two looks for expired rows, milliseconds: a seek every so often, not at each command.
const TRIM_EVERY_MS: i64 = 10_000;
/// Expired rows of each table that one command removes: more than any command adds, so no table grows beyond its time.
const TRIM_ROWS_MAX: usize = 256;
const _: () = assert!(TRIM_ROWS_MAX > RECIPIENTS_MAX);

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
        return Err(refuse(Refusal::FingerprintMismatch, MISMATCH));
    }
    row::decode(key, record.outcome).map(Some).map_err(Stop::Broken)
}

const MISMATCH: &str = "another request was made under this request id";

/// Answers what became of a request, by the same rules as [`first_outcome`].
pub(crate) fn answer(reader: &impl Reader, now_ms: i64, query: &pb::GetOutcome) -> Result<Answer, QueryError> {
    let key = Key::Dedup(crate::query::id::<RequestId>(&query.request, "request")?);
    let record = row::get::<DedupRecord>(reader, key)?.filter(|record| record.expires_at_ms > now_ms);
    let outcome = match record {
        None => return Ok(crate::query::missing(Missing::Request)),
        Some(record) if record.fingerprint != query.fingerprint => {
            let refused = pb::Refused {
                refusal: Refusal::FingerprintMismatch.into(),
                detail: MISMATCH.to_owned(),
                ..Default::default()
            };
            pb::Outcome { result: Some(pb::outcome::Result::Refused(refused)) }
        }
        Some(record) => row::decode(key, record.outcome)?,
    };
    Ok(Answer::Outcome(outcome))
}

/// Keeps the outcome of this command's request.
pub(crate) fn keep(turn: &mut Turn<'_, impl Rows>, command: &pb::Command, outcome: &pb::Outcome) {
    if is_for_the_moment(outcome) {
        return;
    }
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

/// Whether the same request is to come again.
fn is_for_the_moment(outcome: &pb::Outcome) -> bool {
    match &outcome.result {
        Some(pb::outcome::Result::Refused(refused)) => {
            matches!(refused.refusal(), Refusal::BlobsNotPinned | Refusal::BlobCondemned)
        }
        _ => false,
    }
}

/// Refuses a `Deliver` that comes so long after its lease that the transfer may have been forgotten.
pub(crate) fn check_lease(turn: &Turn<'_, impl Rows>, command: &pb::Deliver) -> Result<(), Stop> {
    let age_ms = turn.now.saturating_sub(command.leased_ms);
    if age_ms > DELIVER_AGE_MS_MAX {
        let detail =
            format!("leased_ms: the entry was leased {age_ms} ms ago, at most {DELIVER_AGE_MS_MAX} are wanted");
        return Err(refuse(Refusal::LeaseTooOld, detail));
    }
    Ok(())
}

/// Whether a transfer may have been carried out so long ago that its row is gone.
pub(crate) fn may_have_expired(turn: &Turn<'_, impl Rows>, undelivered_ms: i64) -> bool {
    turn.now.saturating_sub(undelivered_ms) > UNDELIVERED_MS_MAX
}

/// The delivery that a transfer made when it came first.
pub(crate) fn transferred(turn: &Turn<'_, impl Rows>, request: RequestId) -> Result<Option<pb::Delivery>, Broken> {
    let key = Key::Transfer(request);
    let Some(record) = row::get::<TransferRecord>(turn.rows, key)? else { return Ok(None) };
    record.delivery.ok_or_else(|| Broken::corrupt(key, "holds no delivery")).map(Some)
}

/// Keeps what a transfer made, until [`forget`] or for [`TRANSFER_MS`].
pub(crate) fn keep_transfer(
    turn: &mut Turn<'_, impl Rows>,
    command: &pb::Deliver,
    request: RequestId,
    delivery: &pb::Delivery,
) {
    let expires_at_ms = turn.now.saturating_add(TRANSFER_MS);
    let record = TransferRecord {
        delivery: Some(delivery.clone()),
        source_shard: command.source_shard,
        entry: command.entry,
        expires_at_ms,
    };
    row::put(turn.rows, Key::Transfer(request), &record);
    row::put_empty(turn.rows, Key::TransferExpiry(expires_at_ms, request));
}

/// Transfers that one command forgets.
const FORGET_MAX: usize = 1000;

/// The source of these transfers has settled them and will not ask again.
pub(crate) fn forget(turn: &mut Turn<'_, impl Rows>, command: &pb::Forget) -> Result<pb::outcome::Result, Stop> {
    if command.requests.len() > FORGET_MAX {
        return Err(malformed(format!("requests: at most {FORGET_MAX}")));
    }
    if command.leased_ms <= 0 {
        return Err(malformed("leased_ms: is missing"));
    }
    let age_ms = turn.now.saturating_sub(command.leased_ms);
    if age_ms < FORGET_AGE_MS_MIN {
        let detail = format!("leased_ms: the last lease is {age_ms} ms old, at least {FORGET_AGE_MS_MIN} are wanted");
        return Err(refuse(Refusal::Conflict, detail));
    }
    let mut known = Vec::with_capacity(command.requests.len());
    for request in &command.requests {
        let request = crate::turn::id::<RequestId>(request, "requests")?;
        if let Some(record) = row::get::<TransferRecord>(turn.rows, Key::Transfer(request))? {
            known.push((request, record.expires_at_ms));
        }
    }
    for (request, expires_at_ms) in known {
        row::delete(turn.rows, Key::Transfer(request));
        row::delete(turn.rows, Key::TransferExpiry(expires_at_ms, request));
    }
    Ok(pb::outcome::Result::Done(pb::Done {}))
}

/// Removes rows whose time is over, a bounded number of each table.
pub(crate) fn trim(turn: &mut Turn<'_, impl Rows>) -> Result<(), Broken> {
    turn.state.dedup_trimmed_ms = trim_table(turn, Table::DedupByExpiry, turn.state.dedup_trimmed_ms)?;
    turn.state.transfers_trimmed_ms = trim_table(turn, Table::TransfersByExpiry, turn.state.transfers_trimmed_ms)?;
    Ok(())
}

/// Removes what an index by expiry names behind `trimmed_ms`, and gives the time up to which nothing is left.
fn trim_table(turn: &mut Turn<'_, impl Rows>, index: Table, trimmed_ms: i64) -> Result<i64, Broken> {
    if turn.now.saturating_sub(trimmed_ms) < TRIM_EVERY_MS {
        return Ok(trimmed_ms);
    }
    let mut expired = Vec::new();
    let range = KeyRange::expiring(index, trimmed_ms, turn.now);
    for found in turn.rows.scan(&range, Direction::Forward).take(TRIM_ROWS_MAX) {
        match Key::decode(found?.0.as_ref())? {
            key @ Key::DedupExpiry(ms, request) => expired.push((ms, key, Key::Dedup(request))),
            key @ Key::TransferExpiry(ms, request) => expired.push((ms, key, Key::Transfer(request))),
            other => return Err(Broken::corrupt(other, "stands in the range of an index by expiry")),
        }
    }
    let trimmed_ms = match expired.last() {
        // Others may have expired in the same millisecond.
        Some((ms, ..)) if expired.len() == TRIM_ROWS_MAX => ms - 1,
        _ => turn.now,
    };
    for (_, by_expiry, key) in expired {
        row::delete(turn.rows, by_expiry);
        row::delete(turn.rows, key);
    }
    Ok(trimmed_ms)
}
