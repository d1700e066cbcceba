//! How much a user may send to the outside: held against what he used to send, and against what comes back. Whoever sends spam, or
//! whose account was stolen, is slowed first and suspended then, in the apply that shows it.
//!
//! Integers and the command's clock alone (P-12). A command is never refused for what it shows itself: it is carried out, and the next one
//! is refused, since a refused command writes nothing.

use postrider_api::id::UserId;
use postrider_api::limit::{SENDING_DAYS_MAX, SENDING_GROWTH_MAX, SLOWED_MS, SLOWED_RECIPIENTS_MAX, SLOWED_TIMES_MAX};
use postrider_api::pb::{FeedbackKind, Refusal, SendingDay, SendingLimits, SendingRecord};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::suspend_account;
use crate::store::{Reader, Rows};
use crate::turn::{Stop, Turn, refuse};
use crate::{Broken, row};

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Days, today's with them, whose feedback is held against what was sent in them: what comes back comes back late.
const JUDGED_DAYS: i64 = 2;

/// When what came back is too much: so many at least, and so many of a thousand recipients.
struct Share {
    count: u64,
    of_thousand: u64,
}

/// Large senders see 2 % where lists are kept; a bought list brings 20 to 60 %.
const HARD_SLOWED: Share = Share { count: 25, of_thousand: 200 };
const HARD_SUSPENDED: Share = Share { count: 100, of_thousand: 400 };
/// Receivers ask for less than one in a thousand, and act at three.
const COMPLAINTS_SLOWED: Share = Share { count: 3, of_thousand: 5 };
const COMPLAINTS_SUSPENDED: Share = Share { count: 10, of_thousand: 10 };

impl Share {
    fn is_reached(&self, count: u64, recipients: u64) -> bool {
        count >= self.count && count.saturating_mul(1000) >= recipients.saturating_mul(self.of_thousand)
    }
}

/// What a user has sent; nothing yet where there is no row.
pub(crate) fn get(reader: &impl Reader, user: UserId) -> Result<SendingRecord, Broken> {
    Ok(row::get(reader, Key::Sending(user))?.unwrap_or_default())
}

/// Today, which is the last day of the record from now on.
fn today(sending: &mut SendingRecord, now: i64) -> &mut SendingDay {
    let day = now.div_euclid(DAY_MS);
    if sending.days.last().is_none_or(|last| last.day < day) {
        sending.days.push(SendingDay { day, ..SendingDay::default() });
        sending.days.retain(|known| known.day > day - SENDING_DAYS_MAX);
    }
    let last = sending.days.len() - 1;
    &mut sending.days[last]
}

pub(crate) fn count_feedback(sending: &mut SendingRecord, now: i64, kind: FeedbackKind) {
    let today = today(sending, now);
    match kind {
        FeedbackKind::Soft => today.soft += 1,
        FeedbackKind::Hard => today.hard += 1,
        FeedbackKind::Complaint => today.complaints += 1,
        FeedbackKind::Unspecified => {}
    }
}

/// Refuses so many recipients outside of a user who is slowed.
pub(crate) fn check(turn: &Turn<'_, impl Rows>, user: UserId, recipients: usize) -> Result<(), Stop> {
    if recipients == 0 {
        return Ok(());
    }
    let sending = get(turn.rows, user)?;
    if sending.slowed_until_ms <= turn.now {
        return Ok(());
    }
    let of_hour = if sending.hour == turn.now.div_euclid(HOUR_MS) { sending.hour_recipients as usize } else { 0 };
    match of_hour.saturating_add(recipients) > SLOWED_RECIPIENTS_MAX {
        false => Ok(()),
        true => {
            let detail =
                format!("the account is slowed to {SLOWED_RECIPIENTS_MAX} recipients outside an hour: {}", sending.why);
            Err(refuse(Refusal::SendingSlowed, detail))
        }
    }
}

/// Counts recipients outside whom a user sends to, and slows him where they are far more than they used to be.
pub(crate) fn count_sent(
    turn: &mut Turn<'_, impl Rows>,
    user: UserId,
    recipients: usize,
    limits: Option<&SendingLimits>,
) -> Result<(), Broken> {
    if recipients == 0 {
        return Ok(());
    }
    let mut sending = get(turn.rows, user)?;
    today(&mut sending, turn.now).recipients += recipients as u64;
    let hour = turn.now.div_euclid(HOUR_MS);
    if sending.hour != hour {
        (sending.hour, sending.hour_recipients) = (hour, 0);
    }
    sending.hour_recipients = sending.hour_recipients.saturating_add(recipients as u32);
    close(turn, user, sending, limits)
}

/// Writes the record, and slows or suspends whoever deserves it.
pub(crate) fn close(
    turn: &mut Turn<'_, impl Rows>,
    user: UserId,
    mut sending: SendingRecord,
    limits: Option<&SendingLimits>,
) -> Result<(), Broken> {
    let suspended = judge(&mut sending, turn.now, limits.map_or(0, |limits| limits.recipients_per_day));
    let why = sending.why.clone();
    row::put(turn.rows, Key::Sending(user), &sending);
    if suspended && let Some(mailbox) = Mailbox::open(turn, user)? {
        suspend_account::by_itself(turn, mailbox, &why)?;
    }
    Ok(())
}

/// Whether the account is to be suspended. Whom it slows it has slowed.
fn judge(sending: &mut SendingRecord, now: i64, recipients_per_day: u32) -> bool {
    let since = now.div_euclid(DAY_MS) - JUDGED_DAYS;
    let judged = || sending.days.iter().filter(|day| day.day > since);
    let recipients: u64 = judged().map(|day| day.recipients).sum();
    let hard: u64 = judged().map(|day| day.hard).sum();
    let complaints: u64 = judged().map(|day| day.complaints).sum();
    let bounced = || format!("{hard} of {recipients} recipients in two days do not exist");
    let complained = || format!("{complaints} complaints of {recipients} recipients in two days");
    if HARD_SUSPENDED.is_reached(hard, recipients) {
        sending.why = bounced();
        return true;
    }
    if COMPLAINTS_SUSPENDED.is_reached(complaints, recipients) {
        sending.why = complained();
        return true;
    }
    if sending.slowed_until_ms > now {
        return false;
    }
    let why = match excess(sending, now, recipients_per_day) {
        _ if HARD_SLOWED.is_reached(hard, recipients) => bounced(),
        _ if COMPLAINTS_SLOWED.is_reached(complaints, recipients) => complained(),
        Some(why) => why,
        None => return false,
    };
    sending.slowed_times += 1;
    sending.why = why;
    if sending.slowed_times > SLOWED_TIMES_MAX {
        return true;
    }
    sending.slowed_until_ms = now.saturating_add(SLOWED_MS);
    false
}

/// What is too much about today, beside the days before it.
fn excess(sending: &SendingRecord, now: i64, recipients_per_day: u32) -> Option<String> {
    let day = now.div_euclid(DAY_MS);
    let today = sending.days.last().filter(|last| last.day == day && recipients_per_day > 0)?;
    let before = sending.days.iter().filter(|known| known.day < day).map(|known| known.recipients);
    let usual = before.max().unwrap_or_default();
    let allowed = usual.saturating_mul(SENDING_GROWTH_MAX).max(recipients_per_day.into());
    let count = today.recipients.saturating_sub(today.forgiven);
    (count > allowed).then(|| format!("{count} recipients outside today, {usual} on the busiest day before"))
}

/// An operator has looked at it: what was, is forgiven.
pub(crate) fn release(turn: &mut Turn<'_, impl Rows>, user: UserId) -> Result<(), Broken> {
    let Some(mut sending) = row::get::<SendingRecord>(turn.rows, Key::Sending(user))? else { return Ok(()) };
    for day in &mut sending.days {
        day.forgiven = day.recipients;
        (day.soft, day.hard, day.complaints) = (0, 0, 0);
    }
    (sending.slowed_until_ms, sending.slowed_times, sending.released_ms) = (0, 0, turn.now);
    sending.why.clear();
    row::put(turn.rows, Key::Sending(user), &sending);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 20_000 * DAY_MS + 5 * HOUR_MS;

    /// Some days, the last of them today.
    fn sent(recipients: &[u64]) -> SendingRecord {
        let first = NOW / DAY_MS + 1 - recipients.len() as i64;
        let days = (first..).zip(recipients).map(|(day, recipients)| SendingDay {
            day,
            recipients: *recipients,
            ..SendingDay::default()
        });
        SendingRecord { days: days.collect(), ..SendingRecord::default() }
    }

    #[test]
    fn much_is_what_is_far_more_than_it_used_to_be() {
        let is_slowed = |recipients: &[u64], per_day| {
            let mut sending = sent(recipients);
            assert!(!judge(&mut sending, NOW, per_day));
            sending.slowed_until_ms > NOW
        };
        assert!(!is_slowed(&[500], 500) && is_slowed(&[501], 500), "somebody new");
        assert!(!is_slowed(&[1000, 0, 5000], 500) && is_slowed(&[1000, 0, 5001], 500), "somebody who sends much");
        assert!(!is_slowed(&[1_000_000], 0), "as many as it likes");
    }

    #[test]
    fn whoever_is_slowed_again_and_again_is_suspended() {
        let mut sending = sent(&[1000]);
        let mut now = NOW - 5 * HOUR_MS;
        for time in 1..=SLOWED_TIMES_MAX {
            assert!(!judge(&mut sending, now, 500));
            assert_eq!(sending.slowed_times, time);
            assert!(!judge(&mut sending, now + 1, 500), "once for each time");
            now = sending.slowed_until_ms;
            sending.days[0].day = now.div_euclid(DAY_MS);
        }
        assert!(judge(&mut sending, now, 500));
        assert!(sending.why.contains("1000 recipients"), "{}", sending.why);
    }

    #[test]
    fn what_comes_back_is_held_against_what_was_sent() {
        let judged = |recipients: u64, hard, complaints| {
            let mut sending = sent(&[recipients / 2, recipients - recipients / 2]);
            (sending.days[0].hard, sending.days[1].complaints) = (hard, complaints);
            let suspended = judge(&mut sending, NOW, 0);
            (suspended, sending.slowed_until_ms > 0)
        };
        assert_eq!(judged(1000, 199, 0), (false, false));
        assert_eq!(judged(1000, 200, 0), (false, true));
        assert_eq!(judged(1000, 400, 0), (true, false));
        assert_eq!(judged(30, 24, 0), (false, false), "few are no share");
        assert_eq!(judged(1000, 0, 4), (false, false));
        assert_eq!(judged(1000, 0, 5), (false, true));
        assert_eq!(judged(1000, 0, 10), (true, false));
        assert_eq!(judged(2, 0, 2), (false, false), "two who quarrel");
    }

    #[test]
    fn days_are_few() {
        let mut sending = SendingRecord::default();
        for day in 0..100 {
            today(&mut sending, day * DAY_MS).recipients += 1;
            today(&mut sending, day * DAY_MS + 1).hard += 1;
            assert!(sending.days.len() as i64 <= SENDING_DAYS_MAX);
        }
        assert_eq!(sending.days.len() as i64, SENDING_DAYS_MAX);
        assert!(sending.days.iter().all(|day| day.recipients == 1 && day.hard == 1));
    }
}
