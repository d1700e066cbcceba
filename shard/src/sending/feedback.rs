//! What came back of a user's mail: what a host said to a worker, what came to a return path, what people complain of.

use postrider_api::id::{EntryId, UserId};
use postrider_api::limit::{
    FEEDBACK_ADDRESSES_MAX, FEEDBACK_DETAIL_BYTES_MAX, FEEDBACK_ITEMS_MAX, FEEDBACK_ROWS_MAX, SUPPRESSED_HARD_MS,
};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{
    self, FeedbackKind, FeedbackRecord, FeedbackSource, SendingRecord, SentRecord, SuppressionReason, SuppressionRecord,
};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::account::Mailbox;
use crate::sending::{standing, suppression};
use crate::store::{Direction, Rows};
use crate::turn::{Stop, Turn, id, malformed};
use crate::{Broken, row};

/// An enhanced status code (RFC 3463 section 2), bytes.
const CODE_BYTES_MAX: usize = 11;
/// Rows beyond the most that one command removes: more than it adds.
const TRIMMED_MAX: usize = FEEDBACK_ITEMS_MAX + 4;

/// Something that was said of a message.
pub(crate) struct Said<'c> {
    pub(crate) kind: FeedbackKind,
    pub(crate) source: FeedbackSource,
    pub(crate) of: Of<'c>,
    pub(crate) code: &'c str,
    pub(crate) detail: &'c str,
}

/// Whom it was said of.
pub(crate) enum Of<'c> {
    /// The recipient of this number, from 1.
    Number(u32),
    /// The first of these who is a recipient of the message, if any is.
    Addresses(&'c [String]),
}

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RecordFeedback) -> Result<Made, Stop> {
    let user: UserId = id(&command.user_id, "user_id")?;
    let said = check(command)?;
    let recorded = record(turn, user, EntryId(command.entry), &said)?;
    Ok(Made::FeedbackRecorded(pb::FeedbackRecorded {
        is_known: recorded.is_some(),
        recorded: recorded.unwrap_or_default(),
    }))
}

fn check(command: &pb::RecordFeedback) -> Result<Vec<Said<'_>>, Stop> {
    if command.items.len() > FEEDBACK_ITEMS_MAX {
        return Err(malformed(format!("items: at most {FEEDBACK_ITEMS_MAX}")));
    }
    let mut said = Vec::with_capacity(command.items.len());
    for item in &command.items {
        if item.kind() == FeedbackKind::Unspecified || item.source() == FeedbackSource::Unspecified {
            return Err(malformed("items: kind and source are wanted"));
        }
        if item.addresses.len() > FEEDBACK_ADDRESSES_MAX {
            return Err(malformed(format!("items.addresses: at most {FEEDBACK_ADDRESSES_MAX}")));
        }
        if item.detail.len() > FEEDBACK_DETAIL_BYTES_MAX || item.code.len() > CODE_BYTES_MAX {
            let detail =
                format!("items: at most {FEEDBACK_DETAIL_BYTES_MAX} bytes of detail, {CODE_BYTES_MAX} of code");
            return Err(malformed(detail));
        }
        said.push(Said {
            kind: item.kind(),
            source: item.source(),
            of: match command.recipient {
                0 => Of::Addresses(&item.addresses),
                number => Of::Number(number),
            },
            code: &item.code,
            detail: &item.detail,
        });
    }
    Ok(said)
}

/// Records what is news, and what follows from it: whoever cannot be reached or complains is not sent to any more, and an account of
/// which too much comes back is slowed or suspended. How much was news; `None`: no such message was sent, or too long ago.
pub(crate) fn record(
    turn: &mut Turn<'_, impl Rows>,
    user: UserId,
    entry: EntryId,
    said: &[Said<'_>],
) -> Result<Option<u32>, Broken> {
    // Of an account that is going nothing is written any more.
    if Mailbox::open(turn, user)?.is_none() {
        return Ok(None);
    }
    let key = Key::SentMessage(user, entry);
    let Some(mut sent) = row::get::<SentRecord>(turn.rows, key)? else { return Ok(None) };
    let mut sending = standing::get(turn.rows, user)?;
    let mut recorded = 0;
    for said in said {
        let Some(address) = news(&mut sent, said) else { continue };
        recorded += 1;
        standing::count_feedback(&mut sending, turn.now, said.kind);
        if let Some(reason) = suppresses(said.kind).filter(|_| !address.is_empty()) {
            let until_ms =
                if reason == SuppressionReason::Hard { turn.now.saturating_add(SUPPRESSED_HARD_MS) } else { 0 };
            let record = SuppressionRecord {
                address: address.clone(),
                reason: reason.into(),
                detail: said.detail.to_owned(),
                since_ms: turn.now,
                until_ms,
            };
            suppression::add(turn.rows, user, &mut sending, record)?;
        }
        sending.feedback_last += 1;
        sending.feedback_rows += 1;
        let record = FeedbackRecord {
            sequence: sending.feedback_last,
            at_ms: turn.now,
            kind: said.kind.into(),
            source: said.source.into(),
            address,
            code: said.code.to_owned(),
            detail: said.detail.to_owned(),
            entry: entry.0,
            sent_copy: sent.sent_copy.clone(),
        };
        row::put(turn.rows, Key::Feedback(user, record.sequence), &record);
    }
    if recorded > 0 {
        row::put(turn.rows, key, &sent);
        trim(turn.rows, user, &mut sending)?;
        standing::close(turn, user, sending, None)?;
    }
    Ok(Some(recorded))
}

/// Whom it is of, where it is worse than what is known of him already; empty where nobody knows whom.
fn news(sent: &mut SentRecord, said: &Said<'_>) -> Option<String> {
    let place = match said.of {
        Of::Number(number) => (number as usize).checked_sub(1).filter(|place| *place < sent.recipients.len()),
        Of::Addresses(addresses) => addresses.iter().find_map(|address| {
            sent.recipients.iter().position(|recipient| suppression::is_same(&recipient.address, address))
        }),
    };
    let place = match (place, &sent.recipients[..]) {
        // There is nobody else.
        (None, [_]) => Some(0),
        (place, _) => place,
    };
    let (known, address) = match place {
        Some(place) => {
            let recipient = &mut sent.recipients[place];
            (&mut recipient.feedback, recipient.address.clone())
        }
        None => (&mut sent.unnamed, String::new()),
    };
    let kind = i32::from(said.kind);
    if kind <= *known {
        return None;
    }
    *known = kind;
    Some(address)
}

fn suppresses(kind: FeedbackKind) -> Option<SuppressionReason> {
    match kind {
        FeedbackKind::Hard => Some(SuppressionReason::Hard),
        FeedbackKind::Complaint => Some(SuppressionReason::Complaint),
        FeedbackKind::Soft | FeedbackKind::Unspecified => None,
    }
}

/// Removes the oldest of more than there may be.
fn trim(rows: &mut impl Rows, user: UserId, sending: &mut SendingRecord) -> Result<(), Broken> {
    let surplus = (sending.feedback_rows as usize).saturating_sub(FEEDBACK_ROWS_MAX).min(TRIMMED_MAX);
    let mut oldest = Vec::with_capacity(surplus);
    for found in rows.scan(&KeyRange::user(Table::Feedback, user), Direction::Backward).take(surplus) {
        oldest.push(found?.0);
    }
    sending.feedback_rows -= oldest.len() as u32;
    oldest.into_iter().for_each(|key| rows.delete(key));
    Ok(())
}
