//! A folder of the user's own.

use postrider_api::id::FolderId;
use postrider_api::limit::{FOLDER_NAME_BYTES_MAX, FOLDERS_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, ChangeKind, FolderRole, Refusal};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::{change, folder, name};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::CreateFolder) -> Result<Made, Stop> {
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let name = name::check(&command.name, FOLDER_NAME_BYTES_MAX)?;
    let folders = folder::all(turn.rows, mailbox.user)?;
    if folders.len() >= FOLDERS_MAX {
        return Err(refuse(Refusal::FoldersTooMany, format!("a mailbox has at most {FOLDERS_MAX} folders")));
    }
    folder::check_free(&folders, name, None)?;
    let id = FolderId(mailbox.account.folder_next);
    mailbox.account.folder_next += 1;
    let mut record = folder::empty(id, name, FolderRole::None);
    record.modseq = change::of_folder(turn, &mut mailbox, ChangeKind::FolderCreated, &record, None)?.0;
    row::put(turn.rows, Key::Folder(mailbox.user, id), &record);
    let modseq = mailbox.modseq().0;
    mailbox.close(turn);
    Ok(Made::FolderMade(pb::FolderMade { folder_id: id.0, modseq }))
}
