//! To whom a user does not send any more: whom no host knows, who complained, and whom somebody named.
//!
//! Two addresses are the same here where they differ in case alone: whoever is named in another case than the one that was tried is
//! meant, and no host in use tells them apart.

use postrider_api::address::RemoteAddress;
use postrider_api::id::UserId;
use postrider_api::limit::{FEEDBACK_DETAIL_BYTES_MAX, SUPPRESSIONS_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal, SendingRecord, SuppressionReason, SuppressionRecord};

use crate::key::{Key, name_hash};
use crate::mailbox::account::Mailbox;
use crate::sending::standing;
use crate::store::{Reader, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// Recipients that one refusal names.
const NAMED_MAX: usize = 10;

/// Whether two addresses are one.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.eq_ignore_ascii_case(other) || one.to_lowercase() == other.to_lowercase()
}

pub(crate) fn key(user: UserId, address: &str) -> Key {
    Key::Suppression(user, name_hash(&address.to_lowercase()))
}

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::Suppress) -> Result<Made, Stop> {
    let mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let address = RemoteAddress::parse(&command.address).map_err(|error| malformed(format!("address: {error}")))?;
    if command.reason() == SuppressionReason::Unspecified {
        return Err(malformed("reason: is missing"));
    }
    check_detail(&command.detail)?;
    let record = SuppressionRecord {
        address: address.as_str().to_owned(),
        reason: command.reason,
        detail: command.detail.clone(),
        since_ms: turn.now,
        until_ms: command.until_ms,
    };
    let mut sending = standing::get(turn.rows, mailbox.user)?;
    if !add(turn.rows, mailbox.user, &mut sending, record)? {
        let detail = format!("{SUPPRESSIONS_MAX} addresses are suppressed already: some have to go first");
        return Err(refuse(Refusal::SuppressionsTooMany, detail));
    }
    row::put(turn.rows, Key::Sending(mailbox.user), &sending);
    Ok(Made::Done(pb::Done {}))
}

/// Once more is no error.
pub(crate) fn remove(turn: &mut Turn<'_, impl Rows>, command: &pb::Unsuppress) -> Result<Made, Stop> {
    let mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let key = key(mailbox.user, &command.address);
    if row::get::<SuppressionRecord>(turn.rows, key)?.is_some() {
        let mut sending = standing::get(turn.rows, mailbox.user)?;
        let left = sending.suppressions.checked_sub(1);
        sending.suppressions =
            left.ok_or_else(|| Broken::corrupt(Key::Sending(mailbox.user), "suppressions would fall below zero"))?;
        row::delete(turn.rows, key);
        row::put(turn.rows, Key::Sending(mailbox.user), &sending);
    }
    Ok(Made::Done(pb::Done {}))
}

/// Whether there was room for it. The caller writes `sending`. What somebody has named by hand, or forbidden himself, is not replaced by
/// what a host says.
pub(crate) fn add(
    rows: &mut impl Rows,
    user: UserId,
    sending: &mut SendingRecord,
    record: SuppressionRecord,
) -> Result<bool, Broken> {
    let key = key(user, &record.address);
    match row::get::<SuppressionRecord>(rows, key)? {
        Some(known) if record.reason() == SuppressionReason::Hard && counts(&known, record.since_ms) => {
            if known.reason() != SuppressionReason::Hard {
                return Ok(true);
            }
        }
        Some(_) => {}
        None if sending.suppressions as usize >= SUPPRESSIONS_MAX => return Ok(false),
        None => sending.suppressions += 1,
    }
    row::put(rows, key, &record);
    Ok(true)
}

/// Why somebody is on a list, as it may be kept.
pub(crate) fn check_detail(detail: &str) -> Result<(), Stop> {
    match detail.len() > FEEDBACK_DETAIL_BYTES_MAX || detail.chars().any(char::is_control) {
        true => Err(malformed(format!("detail: at most {FEEDBACK_DETAIL_BYTES_MAX} bytes and no control characters"))),
        false => Ok(()),
    }
}

/// Whether it still does.
pub(crate) fn counts(record: &SuppressionRecord, now_ms: i64) -> bool {
    record.until_ms == 0 || record.until_ms > now_ms
}

/// Why a user does not send to an address now, if he does not.
pub(crate) fn find(
    reader: &impl Reader,
    user: UserId,
    address: &str,
    now_ms: i64,
) -> Result<Option<SuppressionRecord>, Broken> {
    let record = row::get::<SuppressionRecord>(reader, key(user, address))?;
    Ok(record.filter(|record| counts(record, now_ms)))
}

/// Refuses what would go to somebody who is not sent to.
pub(crate) fn check<'a>(
    turn: &Turn<'_, impl Rows>,
    user: UserId,
    outside: impl Iterator<Item = &'a str>,
) -> Result<(), Stop> {
    let mut named = Vec::new();
    for address in outside {
        if named.len() < NAMED_MAX
            && let Some(record) = find(turn.rows, user, address, turn.now)?
        {
            named.push(sentence(address, &record));
        }
    }
    match named.is_empty() {
        true => Ok(()),
        false => Err(refuse(Refusal::RecipientSuppressed, named.join("; "))),
    }
}

/// Why an address is not sent to, for people.
pub(crate) fn sentence(address: &str, record: &SuppressionRecord) -> String {
    let why = match record.reason() {
        SuppressionReason::Hard => "it could not be reached",
        SuppressionReason::Complaint => "a complaint came from there",
        SuppressionReason::Unsubscribed => "the recipient has unsubscribed",
        SuppressionReason::Manual | SuppressionReason::Unspecified => "it was named",
    };
    match record.detail.is_empty() {
        true => format!("{address} is suppressed: {why}"),
        false => format!("{address} is suppressed: {why} ({})", record.detail),
    }
}
