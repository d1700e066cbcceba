//! Messages to the outside, for as long as something may come back of them. The queue forgets whoever was delivered to; a host that took
//! the message and cannot deliver it says so afterwards, and names a return path at best.

use bytes::Bytes;
use postrider_api::id::{EntryId, UserId};
use postrider_api::limit::SENT_MS;
use postrider_api::pb::{FeedbackKind, SendOptions, SentRecipient, SentRecord};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::incoming::To;
use crate::queue::enqueue::Submission;
use crate::store::{Direction, Rows};
use crate::turn::Turn;
use crate::{Broken, row};

/// Between two looks for rows whose time is over, milliseconds.
const TRIM_EVERY_MS: i64 = 10_000;
/// Rows that one command removes: more than any command adds.
const TRIM_ROWS_MAX: usize = 64;

/// The recipients of a command who are outside, in the order in which their return paths number them.
pub(crate) fn outside<'c>(recipients: &'c [To<'_>]) -> impl Iterator<Item = &'c str> {
    recipients.iter().filter(|to| to.who.user().is_none()).map(|to| to.recipient.address.as_str())
}

/// Keeps what a user sends to the outside. Nothing for a message that goes to nobody there.
pub(crate) fn note(
    turn: &mut Turn<'_, impl Rows>,
    sender: UserId,
    entry: EntryId,
    sent_copy: &Bytes,
    options: Option<&SendOptions>,
    recipients: &[To<'_>],
) {
    let recipients: Vec<SentRecipient> = outside(recipients)
        .map(|address| SentRecipient { address: address.to_owned(), feedback: FeedbackKind::Unspecified.into() })
        .collect();
    if recipients.is_empty() {
        return;
    }
    let sent_ms = Submission::not_before_ms(options).max(turn.now);
    let record = SentRecord {
        sent_copy: sent_copy.clone(),
        expires_at_ms: sent_ms.saturating_add(SENT_MS),
        recipients,
        unnamed: FeedbackKind::Unspecified.into(),
    };
    row::put(turn.rows, Key::SentMessage(sender, entry), &record);
    row::put_empty(turn.rows, Key::SentExpiry(record.expires_at_ms, sender, entry));
}

/// The sender took it back before anybody was tried, or his account goes: nothing will come back.
pub(crate) fn forget(turn: &mut Turn<'_, impl Rows>, sender: UserId, entry: EntryId) -> Result<(), Broken> {
    let key = Key::SentMessage(sender, entry);
    if let Some(record) = row::get::<SentRecord>(turn.rows, key)? {
        row::delete(turn.rows, key);
        row::delete(turn.rows, Key::SentExpiry(record.expires_at_ms, sender, entry));
    }
    Ok(())
}

/// Removes what nothing comes back of any more, a bounded number at a time.
pub(crate) fn trim(turn: &mut Turn<'_, impl Rows>) -> Result<(), Broken> {
    let trimmed_ms = turn.state.sent_trimmed_ms;
    if turn.now.saturating_sub(trimmed_ms) < TRIM_EVERY_MS {
        return Ok(());
    }
    let mut expired = Vec::new();
    let range = KeyRange::expiring(Table::SentByExpiry, trimmed_ms, turn.now);
    for found in turn.rows.scan(&range, Direction::Forward).take(TRIM_ROWS_MAX) {
        match Key::decode(found?.0.as_ref())? {
            Key::SentExpiry(ms, user, entry) => expired.push((ms, user, entry)),
            other => return Err(Broken::corrupt(other, "stands in the range of sent_by_expiry")),
        }
    }
    turn.state.sent_trimmed_ms = match expired.last() {
        // Others may have expired in the same millisecond.
        Some((ms, ..)) if expired.len() == TRIM_ROWS_MAX => ms - 1,
        _ => turn.now,
    };
    expired.into_iter().try_for_each(|(_, user, entry)| forget(turn, user, entry))
}
