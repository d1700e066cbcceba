//! Keywords, labels, moves and deletions of up to [`UPDATES_MAX`] messages, all or nothing.

use postrider_api::id::{EmailId, FolderId, LabelId, UserId};
use postrider_api::keyword::Keywords;
use postrider_api::limit::{MESSAGE_LABELS_MAX, UPDATE_BYTES_MAX, UPDATES_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, MessageUpdate, Refusal};

use crate::mailbox::account::Mailbox;
use crate::mailbox::folder::{Folders, TRASH};
use crate::mailbox::label::{self, Labels};
use crate::mailbox::message::{self, Stored, Wanted};
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
    let (mut folders, mut labels) = (Folders::default(), Labels::default());
    let mut plans = Vec::with_capacity(command.updates.len());
    let mut written = 0;
    for update in &command.updates {
        let (stored, plan) = plan(turn, mailbox.user, &mut folders, &mut labels, update)?;
        if let Plan::Alter(wanted) = &plan {
            written += stored.list_bytes(wanted);
        }
        plans.push((stored, plan));
    }
    // One alone is always carried out: a message has a bounded number of lines, of bounded length.
    if written > UPDATE_BYTES_MAX && plans.len() > 1 {
        let detail = format!("updates: these write {written} bytes of lists, at most {UPDATE_BYTES_MAX} at once");
        return Err(refuse(Refusal::UpdateTooLarge, detail));
    }
    let mut ids: Vec<EmailId> = plans.iter().map(|(stored, _)| stored.id).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(malformed(format!("updates: message {} is named twice", twice[0])));
    }
    for (stored, plan) in plans {
        match plan {
            Plan::Alter(wanted) => {
                message::alter(turn, &mut mailbox, &mut folders, &mut labels, stored, wanted)?;
            }
            Plan::Erase => message::erase(turn, &mut mailbox, &mut folders, &mut labels, stored)?,
        }
    }
    folders.close(turn.rows, &mailbox);
    labels.close(turn.rows, mailbox.user);
    let modseq = mailbox.modseq().0;
    mailbox.close(turn);
    Ok(Made::Changed(pb::Changed { modseq }))
}

/// Checks one update without writing anything.
fn plan(
    turn: &Turn<'_, impl Rows>,
    user: UserId,
    folders: &mut Folders,
    labels: &mut Labels,
    update: &MessageUpdate,
) -> Result<(Stored, Plan), Stop> {
    let id: EmailId = id(&update.email_id, "updates.email_id")?;
    if update.delete && update.folder_id.is_some() {
        return Err(malformed("updates: a message is moved or deleted, not both"));
    }
    let (add, remove) = (Keywords(update.keywords_add), Keywords(update.keywords_remove));
    if let Some(conflict) = Keywords::conflict(add, remove) {
        return Err(malformed(format!("updates.keywords: {conflict}")));
    }
    let stored = Stored::find(turn.rows, user, id)?
        .ok_or_else(|| refuse(Refusal::UnknownMessage, format!("updates.email_id: there is no message {id}")))?;
    let was = Wanted::of(&stored.email);
    let named = relabelled(turn, user, labels, &was.labels, update)?;
    if update.delete && was.folder == TRASH {
        return Ok((stored, Plan::Erase));
    }
    let folder = match update.folder_id {
        _ if update.delete => TRASH,
        Some(folder) => FolderId(folder),
        None => was.folder,
    };
    if folders.find(turn.rows, user, folder)?.is_none() {
        return Err(refuse(Refusal::UnknownFolder, format!("updates.folder_id: there is no folder {folder}")));
    }
    let wanted = Wanted { keywords: was.keywords.changed(add, remove), folder, labels: named };
    Ok((stored, Plan::Alter(wanted)))
}

/// The labels that a message is to have.
fn relabelled(
    turn: &Turn<'_, impl Rows>,
    user: UserId,
    labels: &mut Labels,
    was: &[u32],
    update: &MessageUpdate,
) -> Result<Vec<u32>, Stop> {
    let (add, remove) = (&update.labels_add, &update.labels_remove);
    // Nothing that names more makes sense, and it is looked through once for each.
    if add.len() > MESSAGE_LABELS_MAX || remove.len() > MESSAGE_LABELS_MAX {
        return Err(malformed(format!("updates.labels: at most {MESSAGE_LABELS_MAX}")));
    }
    for id in add.iter().chain(remove) {
        if labels.find(turn.rows, user, LabelId(*id))?.is_none() {
            return Err(label::unknown("updates.labels", LabelId(*id)));
        }
    }
    if let Some(id) = add.iter().find(|id| remove.contains(id)) {
        return Err(malformed(format!("updates.labels: {id} is added or removed, not both")));
    }
    let mut wanted: Vec<u32> = was.iter().chain(add).copied().filter(|id| !remove.contains(id)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.len() > MESSAGE_LABELS_MAX {
        let detail = format!("updates.labels: a message has at most {MESSAGE_LABELS_MAX}");
        return Err(refuse(Refusal::MessageLabelsTooMany, detail));
    }
    Ok(wanted)
}
