//! `threads_by_folder`: the list of a folder's threads as one range scan, newest first.
//!
//! A thread's row stands under its newest message in the folder and counts the thread's messages there. The functions here
//! are called with the thread as it is *without* the message in question, so they know where the row stood before.

use postrider_api::id::{EmailId, FolderId, ThreadId, UserId};
use postrider_api::pb::{ListRow, ThreadRecord, ThreadRow};

use crate::key::Key;
use crate::mailbox::list_row;
use crate::mailbox::threads::newest_in;
use crate::store::Rows;
use crate::{Broken, row};

/// A message has come into the folder.
pub(crate) fn add(
    rows: &mut impl Rows,
    user: UserId,
    folder: FolderId,
    (thread, others): (ThreadId, &ThreadRecord),
    email: EmailId,
    line: &ListRow,
) -> Result<(), Broken> {
    let unread = u32::from(!list_row::is_read(line));
    let Some(newest) = newest_in(user, thread, others, folder)? else {
        let only = ThreadRow { thread_id: thread.to_bytes(), newest: Some(line.clone()), messages: 1, unread };
        row::put(rows, Key::FolderThread(user, folder, email), &only);
        return Ok(());
    };
    let key = Key::FolderThread(user, folder, newest);
    let mut list: ThreadRow = row::need(rows, key)?;
    list.messages += 1;
    list.unread += unread;
    if email > newest {
        row::delete(rows, key);
        list.newest = Some(line.clone());
    }
    row::put(rows, Key::FolderThread(user, folder, newest.max(email)), &list);
    Ok(())
}

/// A message has left the folder. The lines of the others are still in place.
pub(crate) fn remove(
    rows: &mut impl Rows,
    user: UserId,
    folder: FolderId,
    (thread, others): (ThreadId, &ThreadRecord),
    email: EmailId,
    was_read: bool,
) -> Result<(), Broken> {
    let next = newest_in(user, thread, others, folder)?;
    let key = Key::FolderThread(user, folder, next.map_or(email, |next| next.max(email)));
    let Some(next) = next else {
        // It was the only one.
        let list: ThreadRow = row::need(rows, key)?;
        if list.messages != 1 || list.unread != u32::from(!was_read) {
            return Err(Broken::corrupt(key, "counts messages that the thread does not have"));
        }
        row::delete(rows, key);
        return Ok(());
    };
    let mut list: ThreadRow = row::need(rows, key)?;
    uncount(key, &mut list, was_read)?;
    if next < email {
        row::delete(rows, key);
        list.newest = Some(row::need(rows, Key::FolderEmail(user, folder, next))?);
    }
    row::put(rows, Key::FolderThread(user, folder, next), &list);
    Ok(())
}

/// A message that stays has other flags.
pub(crate) fn update(
    rows: &mut impl Rows,
    user: UserId,
    folder: FolderId,
    (thread, record): (ThreadId, &ThreadRecord),
    email: EmailId,
    line: &ListRow,
    was_read: bool,
) -> Result<(), Broken> {
    let newest = newest_in(user, thread, record, folder)?
        .ok_or_else(|| Broken::corrupt(Key::Thread(user, thread), format!("has no message in folder {folder}")))?;
    let key = Key::FolderThread(user, folder, newest);
    let mut list: ThreadRow = row::need(rows, key)?;
    match (was_read, list_row::is_read(line)) {
        (false, true) => {
            list.unread =
                list.unread.checked_sub(1).ok_or_else(|| Broken::corrupt(key, "unread would fall below zero"))?;
        }
        (true, false) => list.unread += 1,
        _ => {}
    }
    if newest == email {
        list.newest = Some(line.clone());
    }
    row::put(rows, key, &list);
    Ok(())
}

/// All of one thread has gone over to another.
pub(crate) fn merge(
    rows: &mut impl Rows,
    user: UserId,
    (from, record): (ThreadId, &ThreadRecord),
    (into, target): (ThreadId, &ThreadRecord),
) -> Result<(), Broken> {
    let mut folders: Vec<u32> = record.members.iter().map(|member| member.folder_id).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders.into_iter().map(FolderId) {
        let Some(newest) = newest_in(user, from, record, folder)? else { continue };
        let key = Key::FolderThread(user, folder, newest);
        let mut list: ThreadRow = row::need(rows, key)?;
        list.thread_id = into.to_bytes();
        if let Some(line) = &mut list.newest {
            line.thread_id = into.to_bytes();
        }
        let Some(other) = newest_in(user, into, target, folder)? else {
            row::put(rows, key, &list);
            continue;
        };
        let other_key = Key::FolderThread(user, folder, other);
        let mut both: ThreadRow = row::need(rows, other_key)?;
        both.messages += list.messages;
        both.unread += list.unread;
        if newest > other {
            both.newest = list.newest;
        }
        row::delete(rows, key);
        row::delete(rows, other_key);
        row::put(rows, Key::FolderThread(user, folder, newest.max(other)), &both);
    }
    Ok(())
}

fn uncount(key: Key, list: &mut ThreadRow, was_read: bool) -> Result<(), Broken> {
    let below = || Broken::corrupt(key, "a counter would fall below zero");
    list.messages = list.messages.checked_sub(1).ok_or_else(below)?;
    list.unread = list.unread.checked_sub(u32::from(!was_read)).ok_or_else(below)?;
    Ok(())
}
