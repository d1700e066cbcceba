//! A folder of the user's own gets another name.

use postrider_api::id::{FolderId, ModSeq};
use postrider_api::limit::FOLDER_NAME_BYTES_MAX;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, ChangeKind, FolderRecord, FolderRole, Refusal};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::{change, folder, name};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::UpdateFolder) -> Result<Made, Stop> {
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let name = name::check(&command.name, FOLDER_NAME_BYTES_MAX)?;
    let folders = folder::all(turn.rows, mailbox.user)?;
    let mut record = own(&folders, command.folder_id)?.clone();
    if record.name != name {
        let id = FolderId(record.folder_id);
        folder::check_free(&folders, name, Some(id))?;
        name.clone_into(&mut record.name);
        let previous = Some(ModSeq(record.modseq));
        record.modseq = change::of_folder(turn, &mut mailbox, ChangeKind::FolderUpdated, &record, previous)?.0;
        row::put(turn.rows, Key::Folder(mailbox.user, id), &record);
    }
    let modseq = mailbox.modseq().0;
    mailbox.close(turn);
    Ok(Made::Changed(pb::Changed { modseq }))
}

/// The folder with this id, if the user may rename and delete it.
pub(crate) fn own(folders: &[FolderRecord], id: u32) -> Result<&FolderRecord, Stop> {
    let record = folders
        .iter()
        .find(|folder| folder.folder_id == id)
        .ok_or_else(|| refuse(Refusal::UnknownFolder, format!("folder_id: there is no folder {id}")))?;
    if record.role() != FolderRole::None {
        let detail = format!("folder_id: {} belongs to every mailbox and stays as it is", record.name);
        return Err(refuse(Refusal::FolderProtected, detail));
    }
    Ok(record)
}
