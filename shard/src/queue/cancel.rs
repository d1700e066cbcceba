//! What was sent for later is taken back before anybody gets it, and what becomes of a user's outgoing mail when his account goes.
//!
//! Invariant: either somebody may get the message, or it is taken back; never both. An entry is leased at the earliest when it may be
//! sent, by the clock of a leader that is off by less than [`CANCEL_MARGIN_MS`], and taken back until that long before, by the shard's
//! own time, which never goes back.

use bytes::Bytes;
use postrider_api::id::{EmailId, EntryId, UserId};
use postrider_api::keyword::Keywords;
use postrider_api::limit::CANCEL_MARGIN_MS;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Delivery, QueueRecord, Refusal};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::folder::{DRAFTS, Folders};
use crate::mailbox::label::Labels;
use crate::mailbox::message::{self, Stored, Wanted};
use crate::queue::enqueue::Submission;
use crate::queue::entry::{self, OpenEntry};
use crate::queue::failed::{self, Verdict};
use crate::sending::sent;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};
use crate::{Broken, row};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::CancelSend) -> Result<Made, Stop> {
    let sender = Mailbox::of_command(turn, &command.user_id)?;
    let id = EntryId(command.entry);
    let unknown = || refuse(Refusal::UnknownEntry, format!("entry: {id} is not in this outbox"));
    let entry = OpenEntry::open(turn.rows, id)?.ok_or_else(unknown)?;
    if entry::sender(Key::Queue(id), &entry.record)? != Some(sender.user) {
        return Err(unknown());
    }
    if !is_in_time(turn, &entry.record) {
        return Err(refuse(Refusal::TooLate, "entry: somebody may have it already"));
    }
    let sent_copy = entry.record.sent_copy.clone();
    take_out(turn, entry)?;
    sent::forget(turn, sender.user, id)?;
    let draft = to_drafts(turn, sender, &sent_copy)?;
    Ok(Made::SendCancelled(pb::SendCancelled { draft }))
}

/// Whether nobody has the message, nor may get it while this command is carried out.
fn is_in_time(turn: &Turn<'_, impl Rows>, record: &QueueRecord) -> bool {
    let not_before_ms = Submission::not_before_ms(record.options.as_ref());
    turn.now.saturating_add(CANCEL_MARGIN_MS) < not_before_ms
        && record.attempts == 0
        && record.pending.iter().all(|pending| pending.attempts == 0)
}

fn take_out(turn: &mut Turn<'_, impl Rows>, mut entry: OpenEntry) -> Result<(), Broken> {
    entry.record.pending.clear();
    failed::close(turn, entry, Verdict::default())
}

/// The copy in Sent, wherever it is now, becomes a draft. One that was deleted for good stays so.
fn to_drafts(
    turn: &mut Turn<'_, impl Rows>,
    mut mailbox: Mailbox,
    sent_copy: &Bytes,
) -> Result<Option<Delivery>, Broken> {
    let user = mailbox.user;
    let id: EmailId = row::id(Key::Account(user), sent_copy)?;
    let Some(stored) = Stored::find(turn.rows, user, id)? else { return Ok(None) };
    let thread_id = stored.email.thread_id.clone();
    let was = Wanted::of(&stored.email);
    let wanted = Wanted { keywords: was.keywords | Keywords::DRAFT, folder: DRAFTS, ..was };
    let (mut folders, mut labels) = (Folders::default(), Labels::default());
    message::alter(turn, &mut mailbox, &mut folders, &mut labels, stored, wanted)?;
    labels.close(turn.rows, user);
    folders.close(turn.rows, &mailbox);
    let modseq = mailbox.modseq().0;
    mailbox.close(turn);
    Ok(Some(Delivery { user_id: user.to_bytes(), email_id: id.to_bytes(), thread_id, modseq }))
}

/// The sender's account is going. What was accepted to be sent now is sent, and nobody is told what becomes of it; what nobody was to
/// get yet goes with the account, as a draft does.
pub(crate) fn without_sender(turn: &mut Turn<'_, impl Rows>, id: EntryId) -> Result<(), Broken> {
    let mut entry = OpenEntry::need(turn.rows, id)?;
    if is_in_time(turn, &entry.record) {
        return take_out(turn, entry);
    }
    entry.record.sender_user_id.clear();
    entry.record.sent_copy.clear();
    failed::close(turn, entry, Verdict::default())
}

/// The entry of a row of somebody's outbox.
pub(crate) fn entry_of(key: Key, of: UserId) -> Result<EntryId, Broken> {
    match key {
        Key::Outbox(user, entry) if user == of => Ok(entry),
        other => Err(Broken::corrupt(other, "stands in an outbox")),
    }
}
