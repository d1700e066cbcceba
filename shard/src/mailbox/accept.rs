//! A message that came in by SMTP: the recipients who live here get it at once, the others wait in one queue entry.

use postrider_api::id::{EntryId, UserId};
use postrider_api::keyword::Keywords;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal};

use crate::Broken;
use crate::mailbox::account::Mailbox;
use crate::mailbox::folder::Folders;
use crate::mailbox::folder::INBOX;
use crate::mailbox::incoming::{self, Incoming, Reach, To};
use crate::mailbox::{body, message};
use crate::queue::enqueue::{self, Cause, Submission, Waiting};
use crate::queue::who::Who;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::Accept) -> Result<Made, Stop> {
    let incoming = Incoming::of_command(command.message.as_ref(), &command.mail_from)?;
    let recipients = incoming::recipients(&command.recipients, Reach::Users)?;
    turn.demand_entropy()?;
    body::check(turn, &incoming)?;
    if let [To { who: Who::User(user), .. }] = recipients[..]
        && !command.submitted
    {
        check_quota(turn, user, incoming.new.size)?;
    }
    let plan = Plan::make(turn, &incoming, &recipients, 0)?;
    if plan.here.is_empty() && plan.waiting.is_empty() {
        // Whoever sends it can still be told, as at RCPT.
        return Err(refuse(Refusal::UnknownUser, "recipients: the account of each of them was deleted"));
    }
    enqueue::check(turn, &incoming, &plan.waiting)?;
    let (deliveries, entry) = plan.carry_out(turn, &incoming, Submission::default())?;
    let references = deliveries.len() as u64 + u64::from(entry.is_some());
    body::store(turn, &incoming, references)?;
    Ok(Made::Accepted(pb::Accepted { entry: entry.map_or(0, |entry| entry.0), deliveries }))
}

/// One recipient who lives here is the one case in which the sender can still be told (RFC 5321 section 4.2.3: 452, 552).
fn check_quota(turn: &Turn<'_, impl Rows>, user: UserId, size: u64) -> Result<(), Stop> {
    match Mailbox::open(turn, user)? {
        Some(mailbox) if mailbox.is_over_quota(size) => {
            Err(refuse(Refusal::QuotaExceeded, format!("{size} bytes are more than the mailbox has left")))
        }
        _ => Ok(()),
    }
}

/// Who gets the message at once, and who waits.
pub(crate) struct Plan {
    pub(crate) here: Vec<Mailbox>,
    pub(crate) waiting: Vec<Waiting>,
}

impl Plan {
    /// Writes nothing: what is in the way is to be found before anything is written. `not_before_ms`: nobody gets it before.
    pub(crate) fn make(
        turn: &Turn<'_, impl Rows>,
        incoming: &Incoming<'_>,
        recipients: &[To<'_>],
        not_before_ms: i64,
    ) -> Result<Self, Broken> {
        let mut plan = Self { here: Vec::with_capacity(recipients.len()), waiting: Vec::new() };
        for To { who, recipient } in recipients {
            let mut wait = |cause| {
                let (who, recipient) = (who.clone(), (*recipient).clone());
                plan.waiting.push(Waiting { who, recipient, cause });
            };
            let Who::User(user) = who else {
                wait(if not_before_ms > turn.now { Cause::Later } else { Cause::Outside });
                continue;
            };
            let cause = match Mailbox::open(turn, *user)? {
                // Accepted a moment before the account was deleted, or a moment after: it went with the account.
                None if Mailbox::is_deleted(turn, *user)? => continue,
                _ if not_before_ms > turn.now => Cause::Later,
                None => Cause::Elsewhere,
                Some(mailbox) if mailbox.refuses_mail() => Cause::Suspended,
                Some(mailbox) if mailbox.is_over_bound(incoming.new.size) => Cause::TooFull,
                Some(mailbox) => {
                    plan.here.push(mailbox);
                    continue;
                }
            };
            wait(cause);
        }
        Ok(plan)
    }

    /// Files the message into the inbox of each recipient who lives here, and makes an entry for the others.
    pub(crate) fn carry_out(
        self,
        turn: &mut Turn<'_, impl Rows>,
        incoming: &Incoming<'_>,
        submission: Submission,
    ) -> Result<(Vec<pb::Delivery>, Option<EntryId>), Broken> {
        let mut deliveries = Vec::with_capacity(self.here.len());
        for mailbox in self.here {
            deliveries.push(to_inbox(turn, mailbox, incoming)?);
        }
        Ok((deliveries, enqueue::apply(turn, incoming, self.waiting, submission)?))
    }
}

/// Files the message into one inbox and closes the mailbox.
pub(crate) fn to_inbox(
    turn: &mut Turn<'_, impl Rows>,
    mut mailbox: Mailbox,
    incoming: &Incoming<'_>,
) -> Result<pb::Delivery, Broken> {
    let mut folders = Folders::default();
    let inbox = folders.need(turn.rows, mailbox.user, INBOX)?;
    let delivery = message::file(turn, &mut mailbox, inbox, incoming, Keywords::default())?;
    folders.close(turn.rows, &mailbox);
    mailbox.close(turn);
    Ok(delivery)
}
