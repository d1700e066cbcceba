//! A folder of the user's own goes; its messages go to Trash.
//!
//! One command moves at most [`UPDATES_MAX`] messages, the oldest first, and fewer where lists would have more than
//! [`UPDATE_BYTES_MAX`] of them written. While more remain the folder stays, with what is
//! left in it, and the outcome is `FolderDraining`: the proposer gives the command again, under another request id, until
//! it is `Changed`. At no moment is a message in no folder, and whoever stops half way leaves a smaller folder behind.

use postrider_api::id::{EmailId, FolderId, ModSeq};
use postrider_api::limit::{UPDATE_BYTES_MAX, UPDATES_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, ChangeKind, FolderRecord};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::account::Mailbox;
use crate::mailbox::folder::{self, Folders, TRASH};
use crate::mailbox::label::Labels;
use crate::mailbox::message::{self, Stored, Wanted};
use crate::mailbox::{change, update_folder};
use crate::store::{Direction, Rows};
use crate::turn::{Stop, Turn};
use crate::{Broken, row};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::DeleteFolder) -> Result<Made, Stop> {
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let all = folder::all(turn.rows, mailbox.user)?;
    let record = update_folder::own(&all, command.folder_id)?;
    let id = FolderId(record.folder_id);
    let (mut folders, mut labels) = (Folders::default(), Labels::default());
    let mut written = 0;
    for email in oldest(turn, &mailbox, id)? {
        let stored = Stored::need(turn.rows, mailbox.user, email)?;
        let wanted = Wanted { folder: TRASH, ..Wanted::of(&stored.email) };
        written += stored.list_bytes(&wanted);
        message::alter(turn, &mut mailbox, &mut folders, &mut labels, stored, wanted)?;
        if written >= UPDATE_BYTES_MAX {
            break;
        }
    }
    labels.close(turn.rows, mailbox.user);
    let left: FolderRecord = folders.need(turn.rows, mailbox.user, id)?.clone();
    folders.close(turn.rows, &mailbox);
    if left.total == 0 {
        let previous = Some(ModSeq(left.modseq));
        change::of_folder(turn, &mut mailbox, ChangeKind::FolderDeleted, &left, previous)?;
        row::delete(turn.rows, Key::Folder(mailbox.user, id));
    }
    let modseq = mailbox.modseq().0;
    mailbox.close(turn);
    Ok(match left.total {
        0 => Made::Changed(pb::Changed { modseq }),
        remaining => Made::FolderDraining(pb::FolderDraining { modseq, remaining }),
    })
}

fn oldest(turn: &Turn<'_, impl Rows>, mailbox: &Mailbox, folder: FolderId) -> Result<Vec<EmailId>, Broken> {
    let range = KeyRange::folder(Table::FolderEmails, mailbox.user, folder);
    let mut emails = Vec::new();
    for found in turn.rows.scan(&range, Direction::Backward).take(UPDATES_MAX) {
        match Key::decode(found?.0.as_ref())? {
            Key::FolderEmail(_, _, email) => emails.push(email),
            other => return Err(Broken::corrupt(other, "stands in the range of emails_by_folder")),
        }
    }
    Ok(emails)
}
