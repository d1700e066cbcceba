//! The threads of one mailbox against its messages.

use std::collections::{BTreeMap, BTreeSet};

use postrider_api::id::{EmailId, FolderId, MessageIdHash, ThreadId, UserId};
use postrider_api::pb::{ListRow, MessageIdRecord, ThreadMember, ThreadRecord, ThreadRow};

use crate::key::{Key, KeyRange, Table};
use crate::store::{Direction, Reader};
use crate::verify::ledger::Ledger;
use crate::verify::user::expect;
use crate::{Broken, row};

/// A thread in a folder.
#[derive(Clone, Copy)]
struct Listed {
    newest: EmailId,
    messages: u32,
    unread: u32,
}

/// A Message-ID, and where the messages stand that mention it.
#[derive(Default)]
struct Mentioned {
    messages: u32,
    threads: BTreeSet<ThreadId>,
}

/// What the messages of one mailbox say about their threads.
#[derive(Default)]
pub(crate) struct Threads {
    members: BTreeMap<ThreadId, Vec<ThreadMember>>,
    lists: BTreeMap<(ThreadId, FolderId), Listed>,
    mentions: BTreeMap<MessageIdHash, Mentioned>,
}

impl Threads {
    /// Adds a message; they come in order of their ids.
    pub(crate) fn add(
        &mut self,
        thread: ThreadId,
        id: EmailId,
        folder: FolderId,
        is_read: bool,
        mentions: Vec<MessageIdHash>,
    ) {
        let member = ThreadMember { email_id: id.to_bytes(), folder_id: folder.0 };
        self.members.entry(thread).or_default().push(member);
        let listed = self.lists.entry((thread, folder)).or_insert(Listed { newest: id, messages: 0, unread: 0 });
        listed.newest = listed.newest.max(id);
        listed.messages += 1;
        listed.unread += u32::from(!is_read);
        for hash in mentions {
            let mentioned = self.mentions.entry(hash).or_default();
            mentioned.messages += 1;
            mentioned.threads.insert(thread);
        }
    }
}

pub(crate) fn verify(reader: &impl Reader, user: UserId, derived: &Threads, ledger: &mut Ledger) -> Result<(), Broken> {
    let mut overflowed = BTreeSet::new();
    for (id, members) in &derived.members {
        let key = Key::Thread(user, *id);
        ledger.expect(Table::Threads, 1);
        let Some(stored) = ledger.note(row::get::<ThreadRecord>(reader, key))? else {
            // What it would say is not known: its mentions may point elsewhere.
            overflowed.insert(*id);
            continue;
        };
        let Some(stored) = stored else {
            ledger.at(key, "is missing");
            continue;
        };
        if stored.members != *members {
            ledger.at(key, "has other members than the messages that name it");
        }
        if stored.overflowed {
            overflowed.insert(*id);
        }
    }
    for ((thread, folder), listed) in &derived.lists {
        let newest = ledger.note(row::get::<ListRow>(reader, Key::FolderEmail(user, *folder, listed.newest)))?;
        let Some(newest) = newest else {
            ledger.expect(Table::FolderThreads, 1);
            continue;
        };
        let derived =
            ThreadRow { thread_id: thread.to_bytes(), newest, messages: listed.messages, unread: listed.unread };
        expect(reader, Key::FolderThread(user, *folder, listed.newest), &derived, ledger)?;
    }
    verify_mentions(reader, user, derived, &overflowed, ledger)
}

fn verify_mentions(
    reader: &impl Reader,
    user: UserId,
    derived: &Threads,
    overflowed: &BTreeSet<ThreadId>,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    for found in reader.scan(&KeyRange::user(Table::MessageIds, user), Direction::Forward) {
        let (key, value) = found?;
        let known = ledger.note(row::decode_row::<MessageIdRecord>(key, value))?;
        let Some((key @ Key::MessageId(_, hash), known)) = known else { continue };
        let Some(mentioned) = derived.mentions.get(&hash) else {
            ledger.at(key, "nobody mentions it");
            continue;
        };
        ledger.compare(key, "references", known.references, mentioned.messages);
        let joins = row::id::<ThreadId>(key, &known.thread_id);
        let Some(joins) = ledger.note(joins)? else { continue };
        let torn = mentioned.threads.iter().any(|thread| *thread != joins && !overflowed.contains(thread));
        if torn {
            ledger.at(key, "is mentioned in a thread that it does not point to");
        }
    }
    ledger.expect(Table::MessageIds, derived.mentions.len() as u64);
    Ok(())
}
