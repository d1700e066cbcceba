//! What became of a leased entry. The lease itself is checked by the leader before it proposes this.

use postrider_api::feedback::of_reply;
use postrider_api::id::{EntryId, ShardId};
use postrider_api::limit::{
    DESTINATION_RETRY_MS_MAX, ENTRY_AGE_MS_MAX, FEEDBACK_DETAIL_BYTES_MAX, FULL_AGE_MS_MAX, OUTGOING_AGE_GRACE_MS,
    OUTGOING_AGE_MS_MAX, OUTGOING_RETRY_MS_MAX, OUTGOING_RETRY_MS_MIN, PEER_REPLY_BYTES_MAX, RECIPIENTS_MAX,
    RETRY_MS_MAX,
};
use postrider_api::notify::Notify;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{
    self, FailedRecipient, FeedbackKind, FeedbackSource, PendingRecipient, RecipientResult, Refusal, Settlement,
};

use crate::Broken;
use crate::key::Key;
use crate::queue::entry::{self, OpenEntry, told_ms};
use crate::queue::failed::{self, Verdict};
use crate::queue::line::Line;
use crate::queue::report::Report;
use crate::queue::who::{self, Who};
use crate::sending::feedback::{self, Of, Said};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

/// A reason, bytes.
const REASON_BYTES_MAX: usize = 1000;
/// An enhanced status code (RFC 3463 section 2), bytes.
const CODE_BYTES_MAX: usize = 11;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::Settle) -> Result<Made, Stop> {
    let results = Results::check(&command.results)?;
    let id = EntryId(command.entry);
    let mut entry = OpenEntry::open(turn.rows, id)?
        .ok_or_else(|| refuse(Refusal::UnknownEntry, format!("entry: there is no queue entry {id}")))?;
    let report = Report::prepare(turn, &entry, command.report.as_ref(), &results)?;
    let settling = Settling {
        results,
        may_give_up: failed::has_room(turn, id)?,
        is_reported: report.is_some(),
        retry_ms: i64::from(command.retry_ms.min(RETRY_MS_MAX)),
    };
    let sender = entry::sender(Key::Queue(id), &entry.record)?;
    let (verdict, refused) = settling.settle(turn, &mut entry)?;
    entry.record.attempts += 1;
    failed::close(turn, entry, verdict)?;
    if let Some(report) = report {
        report.file(turn)?;
    }
    if let Some(sender) = sender.filter(|_| !refused.is_empty()) {
        let said: Vec<Said<'_>> = refused.iter().map(Refused::said).collect();
        feedback::record(turn, sender, id, &said)?;
    }
    Ok(Made::Done(pb::Done {}))
}

/// Results of a command, each with whose it is.
pub(crate) struct Results<'c>(Vec<(Who, &'c RecipientResult)>);

impl<'c> Results<'c> {
    fn check(results: &'c [RecipientResult]) -> Result<Self, Stop> {
        if results.len() > RECIPIENTS_MAX {
            return Err(malformed(format!("results: at most {RECIPIENTS_MAX}")));
        }
        let mut checked = Vec::with_capacity(results.len());
        for result in results {
            let who = Who::of_command(&result.user_id, &result.address, "results")?;
            match (&who, result.settlement()) {
                (_, Settlement::Unspecified) => return Err(malformed("results.settlement: is missing")),
                // It was accepted, and nobody has deleted him: P-1.
                (Who::Remote(_), Settlement::Dropped | Settlement::Full) => {
                    return Err(malformed("results.settlement: is of users only"));
                }
                _ => {}
            }
            if result.reason.len() > REASON_BYTES_MAX {
                return Err(malformed(format!("results.reason: at most {REASON_BYTES_MAX} bytes")));
            }
            if result.reply.len() > PEER_REPLY_BYTES_MAX || result.code.len() > CODE_BYTES_MAX {
                let detail =
                    format!("results: at most {PEER_REPLY_BYTES_MAX} bytes of reply, {CODE_BYTES_MAX} of code");
                return Err(malformed(detail));
            }
            checked.push((who, result));
        }
        Ok(Self(checked))
    }

    /// What became of somebody; `None` where nothing was said of him.
    pub(crate) fn of(&self, who: &Who) -> Option<&'c RecipientResult> {
        self.0.iter().find(|(known, _)| known == who).map(|(_, result)| *result)
    }
}

/// What decides about a recipient beside his result.
struct Settling<'c> {
    results: Results<'c>,
    /// Where nobody may be given up everybody goes on waiting.
    may_give_up: bool,
    /// The report of this command is filed with it.
    is_reported: bool,
    /// When users are tried again, milliseconds from now.
    retry_ms: i64,
}

impl Settling<'_> {
    /// Takes out who is done with, and puts the others into the lines of what they wait for. A result for somebody who does not
    /// wait is a repetition, and means nothing.
    fn settle(
        &self,
        turn: &mut Turn<'_, impl Rows>,
        entry: &mut OpenEntry,
    ) -> Result<(Verdict, Vec<Refused<'_>>), Broken> {
        let key = Key::Queue(entry.id);
        let (mut verdict, mut refused) = (Verdict::default(), Vec::new());
        let mut stay = Vec::with_capacity(entry.record.pending.len());
        for mut pending in std::mem::take(&mut entry.record.pending) {
            let who = Who::of_pending(key, &pending)?;
            match self.results.of(&who) {
                None => self.look_again(turn.now, entry, &mut pending),
                Some(result) if !self.stays(turn, entry, &who, &mut pending, result, &mut verdict)? => {
                    refused.extend(Refused::of(&pending, result));
                    continue;
                }
                Some(_) => {}
            }
            stay.push(pending);
        }
        entry.record.pending = stay;
        Ok((verdict, refused))
    }

    /// Whether he goes on waiting; how is in his record then, and what else there is to say of him in the verdict.
    fn stays(
        &self,
        turn: &mut Turn<'_, impl Rows>,
        entry: &OpenEntry,
        who: &Who,
        pending: &mut PendingRecipient,
        result: &RecipientResult,
        verdict: &mut Verdict,
    ) -> Result<bool, Broken> {
        let (key, now) = (Key::Queue(entry.id), turn.now);
        if result.settlement() != Settlement::Waits {
            pending.attempts += 1;
        }
        pending.unknown_attempts += u32::from(result.unknown);
        match result.settlement() {
            Settlement::Delivered => {
                verdict.answered.extend(answered(key, who, pending, result)?);
                return Ok(false);
            }
            Settlement::Dropped => return Ok(false),
            // The report says it, and is filed with this.
            Settlement::Failed if result.reported && self.is_reported => return Ok(false),
            _ => {}
        }
        if !result.reply.is_empty() {
            pending.reply.clone_from(&result.reply);
            pending.code.clone_from(&result.code);
        }
        if let Some(reason) = given_up(pending, result, now) {
            if is_silent(pending) {
                return Ok(false);
            }
            if self.may_give_up {
                verdict.given_up.push(failed_recipient(pending, reason, now));
                return Ok(false);
            }
        }
        if let Some(destination) = who::destination(key, pending)?.filter(|_| !result.reply.is_empty()) {
            verdict.replies.push((destination, result.reply.clone()));
        }
        pending.delay_reported |= result.reported && self.is_reported;
        if result.settlement() == Settlement::Full {
            pending.undelivered_ms = now;
        }
        if result.settlement() == Settlement::Waits {
            self.look_again(now, entry, pending);
            return Ok(true);
        }
        // Whoever is held meanwhile stays so, and it is said why.
        if !pending.held {
            Line::set(line(key, pending, result)?, pending);
            pending.reason.clone_from(&result.reason);
            let pause_ms = match who {
                Who::User(_) => self.retry_ms,
                Who::Remote(_) => pause_ms(turn, pending.attempts, result),
            };
            pending.due_ms = now.saturating_add(pause_ms);
        }
        Ok(true)
    }

    /// He was not tried. Whoever was to be is looked at again in a while; whoever is parked, when there is something to tell of him.
    fn look_again(&self, now: i64, entry: &OpenEntry, pending: &mut PendingRecipient) {
        if pending.due_ms > now {
            return;
        }
        pending.due_ms = match pending.parked {
            false => now.saturating_add(self.retry_ms),
            // Nothing is told twice in a hurry, also where nobody could be told.
            true => told_ms(&entry.record, pending).max(now.saturating_add(DESTINATION_RETRY_MS_MAX.into())),
        };
    }
}

/// Whether his sender wants to hear nothing of it if somebody outside is given up (RFC 3461 section 4.1): then there is nothing for an
/// operator to do either.
fn is_silent(pending: &PendingRecipient) -> bool {
    who::is_remote(pending) && !Notify(pending.notify).tells(Notify::FAILURE)
}

/// Somebody outside whom nobody tries any more, because of what was said of him.
struct Refused<'c> {
    number: u32,
    address: [String; 1],
    result: &'c RecipientResult,
}

impl<'c> Refused<'c> {
    fn of(pending: &PendingRecipient, result: &'c RecipientResult) -> Option<Self> {
        let is_refused = result.settlement() == Settlement::Failed && !result.suppressed && who::is_remote(pending);
        is_refused.then(|| Self { number: pending.number, address: [pending.address.clone()], result })
    }

    fn said(&self) -> Said<'_> {
        let RecipientResult { code, reply, reason, .. } = self.result;
        let said = if reply.is_empty() { reason } else { reply };
        Said {
            kind: match of_reply(code, said) {
                FeedbackKind::Unspecified => FeedbackKind::Soft,
                kind => kind,
            },
            source: FeedbackSource::Reply,
            of: match self.number {
                0 => Of::Addresses(&self.address),
                number => Of::Number(number),
            },
            code,
            detail: &said[..said.floor_char_boundary(FEEDBACK_DETAIL_BYTES_MAX)],
        }
    }
}

/// Why nobody goes on trying for this recipient.
fn given_up(pending: &PendingRecipient, result: &RecipientResult, now: i64) -> Option<String> {
    let after = |age_ms: i64| {
        let is_over = now.saturating_sub(pending.since_ms) > age_ms;
        is_over.then(|| format!("given up after {} days: {}", age_ms / DAY_MS, result.reason))
    };
    match result.settlement() {
        Settlement::Failed => Some(result.reason.clone()),
        // A worker gives him up, with a report. One that never does is not waited for.
        Settlement::Deferred | Settlement::Held | Settlement::Waits if who::is_remote(pending) => {
            after(OUTGOING_AGE_MS_MAX + OUTGOING_AGE_GRACE_MS)
        }
        Settlement::Deferred => after(ENTRY_AGE_MS_MAX),
        Settlement::Full => after(FULL_AGE_MS_MAX),
        // An unspecified one was refused above.
        Settlement::Held
        | Settlement::Waits
        | Settlement::Delivered
        | Settlement::Dropped
        | Settlement::Unspecified => None,
    }
}

/// How long somebody outside is left alone after so many attempts, milliseconds: twice as long each time, and up to a quarter more by
/// chance, so that what failed together does not come back together. The worker may know better.
fn pause_ms(turn: &mut Turn<'_, impl Rows>, attempts: u32, result: &RecipientResult) -> i64 {
    if result.retry_ms > 0 {
        return result.retry_ms.min(OUTGOING_RETRY_MS_MAX).into();
    }
    let max_ms = if result.destination { DESTINATION_RETRY_MS_MAX } else { OUTGOING_RETRY_MS_MAX };
    let doublings = attempts.saturating_sub(1).min(16);
    let base_ms = (u64::from(OUTGOING_RETRY_MS_MIN) << doublings).min(max_ms.into());
    let more_ms = u64::from_be_bytes(turn.draw()) % (base_ms / 4);
    // Below five hours.
    (base_ms + more_ms) as i64
}

/// What a recipient who was not delivered to waits for.
fn line(key: Key, pending: &PendingRecipient, result: &RecipientResult) -> Result<Option<Line>, Broken> {
    if let Some(destination) = who::destination(key, pending)? {
        return Ok(result.destination.then(|| Line::to(&destination)));
    }
    Ok(match result.settlement() {
        Settlement::Full => Some(Line::Mailbox(crate::row::id(key, &pending.user_id)?)),
        Settlement::Held if result.shard != 0 => Some(Line::Shard(ShardId(result.shard))),
        _ => None,
    })
}

/// The lines that a delivery shows to move again.
fn answered(key: Key, who: &Who, pending: &PendingRecipient, result: &RecipientResult) -> Result<Vec<Line>, Broken> {
    let mut lines: Vec<Line> = match who {
        Who::User(user) => vec![Line::Mailbox(*user)],
        Who::Remote(_) => who::destination(key, pending)?.iter().map(|destination| Line::to(destination)).collect(),
    };
    if result.shard != 0 && who.user().is_some() {
        lines.push(Line::Shard(ShardId(result.shard)));
    }
    Ok(lines)
}

pub(crate) fn failed_recipient(pending: &PendingRecipient, reason: String, failed_ms: i64) -> FailedRecipient {
    FailedRecipient {
        user_id: pending.user_id.clone(),
        address: pending.address.clone(),
        attempts: pending.attempts,
        reason,
        failed_ms,
        notify: pending.notify,
        original: pending.original.clone(),
        reply: pending.reply.clone(),
        code: pending.code.clone(),
        unknown_attempts: pending.unknown_attempts,
        number: pending.number,
    }
}
