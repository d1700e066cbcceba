//! A message from one of this shard's users: the Sent copy, the deliveries that can be made here, and the queue entry for the
//! others, whoever they are, together or not at all. What is to be sent later waits for all of them.

use bytes::Bytes;
use postrider_api::keyword::Keywords;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AccountState, MailCategory, Refusal, SendOptions};

use crate::Broken;
use crate::mailbox::accept::Plan;
use crate::mailbox::account::Mailbox;
use crate::mailbox::body;
use crate::mailbox::folder::{Folders, SENT};
use crate::mailbox::incoming::{self, Incoming, Reach};
use crate::mailbox::label::Labels;
use crate::mailbox::message::{self, Stored, Wanted};
use crate::mailbox::save_draft;
use crate::queue::enqueue::{self, Submission};
use crate::sending::{sent, standing, suppression};
use crate::store::Rows;
use crate::turn::{Stop, Turn, id, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::Send) -> Result<Made, Stop> {
    let incoming = Incoming::of_command(command.message.as_ref(), &command.mail_from)?;
    let recipients = match &command.recipients[..] {
        // All of them are in other zones.
        [] => Vec::new(),
        recipients => incoming::recipients(recipients, Reach::Everybody)?,
    };
    if let Some(options) = &command.options {
        incoming::check_options(options, turn.now)?;
    }
    let not_before_ms = Submission::not_before_ms(command.options.as_ref());
    turn.demand_entropy()?;
    let mut sender = Mailbox::of_command(turn, &command.user_id)?;
    if sender.account.state() == AccountState::Suspended {
        return Err(refuse(Refusal::AccountSuspended, "user_id: the account is suspended"));
    }
    let outside = sent::outside(&recipients).count();
    suppression::check(turn, sender.user, sent::outside(&recipients))?;
    standing::check(turn, sender.user, outside)?;
    if sender.is_over_quota(incoming.new.size) {
        return Err(refuse(Refusal::QuotaExceeded, "the mailbox has no room for the copy in Sent"));
    }
    let answered = answered(turn, &sender, &command.answered)?;
    let draft = match command.draft.is_empty() {
        true => None,
        false => save_draft::find(turn, &sender, &command.draft, "draft")?,
    };
    body::check(turn, &incoming)?;
    enqueue::check(turn, &incoming, &Plan::make(turn, &incoming, &recipients, not_before_ms)?.waiting)?;
    let mut folders = Folders::default();
    if let Some(stored) = answered {
        mark_answered(turn, &mut sender, &mut folders, stored)?;
    }
    if let Some(stored) = draft {
        save_draft::take_out(turn, &mut sender, &mut folders, stored)?;
    }
    let sent = folders.need(turn.rows, sender.user, SENT)?;
    let sent_copy = message::file(turn, &mut sender, sent, &incoming, Keywords::SEEN)?;
    folders.close(turn.rows, &sender);
    let submission = Submission {
        sender: Some(sender.user),
        sent_copy: sent_copy.email_id.clone(),
        options: with_category(command.options.clone(), sender.account.category()),
    };
    let user = sender.user;
    // Closed before the recipients are opened: the sender may be one of them.
    sender.close(turn);
    // Made anew, for the same reason.
    let plan = Plan::make(turn, &incoming, &recipients, not_before_ms)?;
    let (deliveries, entry) = plan.carry_out(turn, &incoming, submission)?;
    if let Some(entry) = entry {
        sent::note(turn, user, entry, &sent_copy.email_id, command.options.as_ref(), &recipients);
    }
    standing::count_sent(turn, user, outside, command.limits.as_ref())?;
    let references = 1 + deliveries.len() as u64 + u64::from(entry.is_some());
    body::store(turn, &incoming, references)?;
    Ok(Made::Sent(pb::Sent { sent_copy: Some(sent_copy), entry: entry.map_or(0, |entry| entry.0), deliveries }))
}

/// The account's category where nothing else was said.
fn with_category(options: Option<SendOptions>, category: MailCategory) -> Option<SendOptions> {
    let is_said = options.as_ref().is_some_and(|options| options.category() != MailCategory::Personal);
    match is_said || category == MailCategory::Personal {
        true => options,
        false => Some(SendOptions { category: category.into(), ..options.unwrap_or_default() }),
    }
}

/// The message that is answered, if there is one and the sender still has it.
fn answered(turn: &Turn<'_, impl Rows>, sender: &Mailbox, answered: &Bytes) -> Result<Option<Stored>, Stop> {
    match answered.is_empty() {
        true => Ok(None),
        false => Ok(Stored::find(turn.rows, sender.user, id(answered, "answered")?)?),
    }
}

fn mark_answered(
    turn: &mut Turn<'_, impl Rows>,
    sender: &mut Mailbox,
    folders: &mut Folders,
    stored: Stored,
) -> Result<(), Broken> {
    let was = Wanted::of(&stored.email);
    let wanted = Wanted { keywords: was.keywords | Keywords::ANSWERED, ..was };
    let mut labels = Labels::default();
    message::alter(turn, sender, folders, &mut labels, stored, wanted)?;
    labels.close(turn.rows, sender.user);
    Ok(())
}
