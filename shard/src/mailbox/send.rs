//! A message from one of this shard's users: the Sent copy, the deliveries that can be made here, and the queue entry for the
//! others, together or not at all.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal};

use crate::mailbox::accept::Plan;
use crate::mailbox::account::Mailbox;
use crate::mailbox::folder::{Folders, SENT};
use crate::mailbox::incoming::{self, Incoming};
use crate::mailbox::{body, message};
use crate::queue::enqueue;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::Send) -> Result<Made, Stop> {
    let incoming = Incoming::of_command(command.message.as_ref(), &command.mail_from)?;
    let recipients = match &command.recipients[..] {
        // All of them are in other zones.
        [] => Vec::new(),
        recipients => incoming::recipients(recipients)?,
    };
    turn.demand_entropy()?;
    let mut sender = Mailbox::of_command(turn, &command.user_id)?;
    if sender.is_over_quota(incoming.new.size) {
        return Err(refuse(Refusal::QuotaExceeded, "the mailbox has no room for the copy in Sent"));
    }
    body::check(turn, &incoming)?;
    enqueue::check(turn, &incoming, &Plan::make(turn, &incoming, &recipients)?.waiting)?;
    let mut folders = Folders::default();
    let sent = folders.need(turn.rows, sender.user, SENT)?;
    let sent_copy = message::file(turn, &mut sender, sent, &incoming, true)?;
    folders.close(turn.rows, &sender);
    // Closed before the recipients are opened: the sender may be one of them.
    sender.close(turn);
    // Made anew, for the same reason.
    let (deliveries, entry) = Plan::make(turn, &incoming, &recipients)?.carry_out(turn, &incoming)?;
    let references = 1 + deliveries.len() as u64 + u64::from(entry.is_some());
    body::store(turn, &incoming, references)?;
    Ok(Made::Sent(pb::Sent { sent_copy: Some(sent_copy), entry: entry.map_or(0, |entry| entry.0), deliveries }))
}
