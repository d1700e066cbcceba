//! A draft: a message in Drafts with $draft. What it says never changes, as of every message; saving it again files another one in
//! its place, in the same apply.

use bytes::Bytes;
use postrider_api::keyword::Keywords;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal};

use crate::Broken;
use crate::mailbox::account::Mailbox;
use crate::mailbox::body;
use crate::mailbox::folder::{DRAFTS, Folders};
use crate::mailbox::incoming::Incoming;
use crate::mailbox::label::Labels;
use crate::mailbox::message::{self, Stored};
use crate::store::Rows;
use crate::turn::{Stop, Turn, id, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::SaveDraft) -> Result<Made, Stop> {
    let incoming = match &command.message {
        None if command.replaces.is_empty() => return Err(malformed("message, replaces: one of them is wanted")),
        None => None,
        message => Some(Incoming::of_command(message.as_ref(), "")?),
    };
    turn.demand_entropy()?;
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let replaced = match command.replaces.is_empty() {
        true => None,
        false => Some(
            find(turn, &mailbox, &command.replaces, "replaces")?
                .ok_or_else(|| refuse(Refusal::UnknownMessage, "replaces: there is no such draft"))?,
        ),
    };
    if let Some(incoming) = &incoming {
        if mailbox.is_over_quota(incoming.new.size) {
            return Err(refuse(Refusal::QuotaExceeded, "the mailbox has no room for the draft"));
        }
        body::check(turn, incoming)?;
    }
    let mut folders = Folders::default();
    if let Some(replaced) = replaced {
        take_out(turn, &mut mailbox, &mut folders, replaced)?;
    }
    let mut draft = None;
    if let Some(incoming) = &incoming {
        let folder = folders.need(turn.rows, mailbox.user, DRAFTS)?;
        draft = Some(message::file(turn, &mut mailbox, folder, incoming, Keywords::SEEN | Keywords::DRAFT)?);
    }
    folders.close(turn.rows, &mailbox);
    let modseq = mailbox.modseq().0;
    mailbox.close(turn);
    if let Some(incoming) = &incoming {
        body::store(turn, incoming, 1)?;
    }
    Ok(Made::DraftSaved(pb::DraftSaved { draft, modseq }))
}

/// A draft of the mailbox; a message that is none, or elsewhere than in Drafts, is not to be touched.
pub(crate) fn find(
    turn: &Turn<'_, impl Rows>,
    mailbox: &Mailbox,
    draft: &Bytes,
    field: &str,
) -> Result<Option<Stored>, Stop> {
    let stored = Stored::find(turn.rows, mailbox.user, id(draft, field)?)?;
    let is_draft =
        |stored: &Stored| stored.email.folder_id == DRAFTS.0 && Keywords(stored.email.keywords).has(Keywords::DRAFT);
    Ok(stored.filter(is_draft))
}

/// Removes a draft for good.
pub(crate) fn take_out(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    folders: &mut Folders,
    draft: Stored,
) -> Result<(), Broken> {
    let mut labels = Labels::default();
    message::erase(turn, mailbox, folders, &mut labels, draft)?;
    labels.close(turn.rows, mailbox.user);
    Ok(())
}
