//! Folders and their counters.

use std::collections::BTreeMap;

use postrider_api::id::{FolderId, Uid, UserId};
use postrider_api::pb::{FolderRecord, FolderRole, Refusal};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::account::Mailbox;
use crate::mailbox::name;
use crate::store::{Direction, Reader, Rows};
use crate::turn::{Stop, refuse};
use crate::{Broken, row};

/// Where mail arrives.
pub const INBOX: FolderId = FolderId(1);
/// What is being written.
pub const DRAFTS: FolderId = FolderId(2);
/// What was sent.
pub const SENT: FolderId = FolderId(3);
/// What is kept.
pub const ARCHIVE: FolderId = FolderId(4);
/// Spam.
pub const JUNK: FolderId = FolderId(5);
/// What was deleted once.
pub const TRASH: FolderId = FolderId(6);
/// The first id of a user's own folders.
pub(crate) const OWN_FIRST: FolderId = FolderId(7);

/// The folders that are made with the account (RFC 6154 for the roles).
pub(crate) const MADE_WITH_ACCOUNT: [(FolderId, &str, FolderRole); 6] = [
    (INBOX, "Inbox", FolderRole::Inbox),
    (DRAFTS, "Drafts", FolderRole::Drafts),
    (SENT, "Sent", FolderRole::Sent),
    (ARCHIVE, "Archive", FolderRole::Archive),
    (JUNK, "Junk", FolderRole::Junk),
    (TRASH, "Trash", FolderRole::Trash),
];

/// A folder without messages. Folder ids are never used again, so the id itself serves as the UIDVALIDITY of RFC 9051
/// section 2.3.1.1: a folder that is made again under an old name has a larger one.
pub(crate) fn empty(id: FolderId, name: &str, role: FolderRole) -> FolderRecord {
    FolderRecord {
        folder_id: id.0,
        name: name.to_owned(),
        role: role.into(),
        uid_validity: id.0,
        uid_next: 1,
        ..Default::default()
    }
}

/// The user's folders, by id; at most `FOLDERS_MAX`.
pub(crate) fn all(reader: &impl Reader, user: UserId) -> Result<Vec<FolderRecord>, Broken> {
    let mut folders = Vec::new();
    for found in reader.scan(&KeyRange::user(Table::Folders, user), Direction::Forward) {
        let (key, value) = found?;
        folders.push(row::decode_row::<FolderRecord>(key, value)?.1);
    }
    Ok(folders)
}

/// Refuses a name that another folder has, however it is written.
pub(crate) fn check_free(folders: &[FolderRecord], name: &str, except: Option<FolderId>) -> Result<(), Stop> {
    let is_taken =
        |folder: &FolderRecord| Some(FolderId(folder.folder_id)) != except && name::is_same(&folder.name, name);
    if folders.iter().any(is_taken) {
        return Err(refuse(Refusal::FolderExists, "name: another folder has this name"));
    }
    Ok(())
}

/// Folders that a command has read, written back when it ends.
#[derive(Default)]
pub(crate) struct Folders {
    open: BTreeMap<FolderId, FolderRecord>,
}

impl Folders {
    /// `None` when the user has no such folder.
    pub(crate) fn find(
        &mut self,
        rows: &impl Rows,
        user: UserId,
        id: FolderId,
    ) -> Result<Option<&mut FolderRecord>, Broken> {
        if let std::collections::btree_map::Entry::Vacant(slot) = self.open.entry(id) {
            match row::get::<FolderRecord>(rows, Key::Folder(user, id))? {
                Some(folder) => slot.insert(folder),
                None => return Ok(None),
            };
        }
        Ok(self.open.get_mut(&id))
    }

    /// A folder that a message stands in, or that is made with the account.
    pub(crate) fn need(&mut self, rows: &impl Rows, user: UserId, id: FolderId) -> Result<&mut FolderRecord, Broken> {
        self.find(rows, user, id)?.ok_or_else(|| Broken::missing(Key::Folder(user, id)))
    }

    /// Writes the counters back.
    pub(crate) fn close(self, rows: &mut impl Rows, mailbox: &Mailbox) {
        for (id, folder) in self.open {
            row::put(rows, Key::Folder(mailbox.user, id), &folder);
        }
    }
}

/// Takes the folder's next UID and counts the message.
pub(crate) fn count_in(user: UserId, folder: &mut FolderRecord, is_read: bool) -> Result<Uid, Broken> {
    let uid = Uid(folder.uid_next);
    // After four thousand million messages in one folder. To begin again, RFC 9051 wants another UIDVALIDITY.
    folder.uid_next = uid
        .0
        .checked_add(1)
        .ok_or_else(|| Broken::corrupt(Key::Folder(user, FolderId(folder.folder_id)), "its UIDs are used up"))?;
    count_back(folder, is_read);
    Ok(uid)
}

/// Counts a message that stays in the folder with other flags.
pub(crate) fn count_back(folder: &mut FolderRecord, is_read: bool) {
    folder.total += 1;
    folder.unread += u64::from(!is_read);
}

/// Uncounts a message that leaves the folder.
pub(crate) fn count_out(user: UserId, folder: &mut FolderRecord, is_read: bool) -> Result<(), Broken> {
    let key = Key::Folder(user, FolderId(folder.folder_id));
    let below = || Broken::corrupt(key, "a counter would fall below zero");
    folder.total = folder.total.checked_sub(1).ok_or_else(below)?;
    folder.unread = folder.unread.checked_sub(u64::from(!is_read)).ok_or_else(below)?;
    Ok(())
}
