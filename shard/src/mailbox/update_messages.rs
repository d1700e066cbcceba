//! Flags, moves and deletions of up to [`UPDATES_MAX`] messages, all or nothing.

use postrider_api::id::{EmailId, FolderId, UserId};
use postrider_api::limit::UPDATES_MAX;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, EmailRecord, MessageUpdate, Refusal};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::folder::{Folders, TRASH};
use crate::mailbox::message::{self, Wanted};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, id, malformed, refuse};

/// What an update makes of its message.
enum Plan {
    Alter(Wanted),
    Erase,
}

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::UpdateMessages) -> Result<Made, Stop> {
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    if command.updates.is_empty() || command.updates.len() > UPDATES_MAX {
        return Err(malformed(format!("updates: 1 to {UPDATES_MAX}")));
    }
    let mut folders = Folders::default();
    let mut plans = Vec::with_capacity(command.updates.len());
    for update in &command.updates {
        plans.push(plan(turn, mailbox.user, &mut folders, update)?);
    }
    let mut ids: Vec<EmailId> = plans.iter().map(|(id, ..)| *id).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(malformed(format!("updates: message {} is named twice", twice[0])));
    }
    for (id, email, plan) in plans {
        match plan {
            Plan::Alter(wanted) => message::alter(turn, &mut mailbox, &mut folders, id, email, wanted)?,
            Plan::Erase => message::erase(turn, &mut mailbox, &mut folders, id, email)?,
        }
    }
    folders.close(turn.rows, &mailbox);
    let modseq = mailbox.modseq().0;
    mailbox.close(turn);
    Ok(Made::Changed(pb::Changed { modseq }))
}

/// Checks one update without writing anything.
fn plan(
    turn: &Turn<'_, impl Rows>,
    user: UserId,
    folders: &mut Folders,
    update: &MessageUpdate,
) -> Result<(EmailId, EmailRecord, Plan), Stop> {
    let id: EmailId = id(&update.email_id, "updates.email_id")?;
    if update.delete && update.folder_id.is_some() {
        return Err(malformed("updates: a message is moved or deleted, not both"));
    }
    let email: EmailRecord = row::get(turn.rows, Key::Email(user, id))?
        .ok_or_else(|| refuse(Refusal::UnknownMessage, format!("updates.email_id: there is no message {id}")))?;
    let was = Wanted::of(&email);
    if update.delete && was.folder == TRASH {
        return Ok((id, email, Plan::Erase));
    }
    let folder = match update.folder_id {
        _ if update.delete => TRASH,
        Some(folder) => FolderId(folder),
        None => was.folder,
    };
    if folders.find(turn.rows, user, folder)?.is_none() {
        return Err(refuse(Refusal::UnknownFolder, format!("updates.folder_id: there is no folder {folder}")));
    }
    let wanted = Wanted {
        is_read: update.is_read.unwrap_or(was.is_read),
        is_flagged: update.is_flagged.unwrap_or(was.is_flagged),
        folder,
    };
    Ok((id, email, Plan::Alter(wanted)))
}
