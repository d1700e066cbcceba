//! Conversations, kept incrementally: JWZ without its subject step.
//!
//! A message *mentions* its own Message-ID and those that it refers to. Two messages are in one thread when a chain of
//! shared mentions joins them, so the threads are the same in whatever order the messages come. `message_ids` says, per
//! user and hash, which thread a message that mentions it joins, and how many messages do; the row goes with the last.
//!
//! A message that joins several threads merges them: the larger keeps its id (of two as large, the older), the smaller's
//! messages are rewritten, which is a change of each. Deleting a message never splits a thread.
//!
//! Limits keep a command bounded: a thread has at most [`THREAD_MEMBERS_MAX`] messages, and one command moves at most
//! [`MERGED_MEMBERS_MAX`] messages between threads, whose rows have at most [`MERGED_BYTES_MAX`] together. A message that would
//! go over opens a thread of its own, or leaves two apart that belong together; the mentions point to where the next one goes,
//! and the thread left behind is marked `overflowed`.

use bytes::Bytes;
use postrider_api::id::{EmailId, FolderId, MessageIdHash, ModSeq, ThreadId, UserId};
use postrider_api::pb::{ChangeKind, EmailRecord, MessageIdRecord, ThreadMember, ThreadRecord};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::message::{self, Stored};
use crate::mailbox::{change, list_row, thread_list};
use crate::store::{Reader, Rows};
use crate::turn::Turn;
use crate::{Broken, row};

/// Messages of one thread.
pub const THREAD_MEMBERS_MAX: usize = 1000;
/// Messages that one command moves between threads.
const MERGED_MEMBERS_MAX: usize = 1000;
/// Rows of messages that one command reads and writes again to move them between threads, bytes. A row may have a good part
/// of what a command has, so that a thousand are no bound.
pub const MERGED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a command may still move between threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MergesLeft {
    members: usize,
    bytes: usize,
}

impl Default for MergesLeft {
    fn default() -> Self {
        Self { members: MERGED_MEMBERS_MAX, bytes: MERGED_BYTES_MAX }
    }
}

/// Finds the thread of a new message, merges those that it joins, and counts its mentions. Gives the thread without the
/// message: [`put_member`] adds it.
pub(crate) fn join(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    email: EmailId,
    mentions: &[MessageIdHash],
) -> Result<(ThreadId, ThreadRecord), Broken> {
    let user = mailbox.user;
    let (mut found, known) = candidates(turn.rows, user, mentions)?;
    // The largest first; of two as large the older, so that the choice is the same everywhere.
    found.sort_by(|a, b| b.1.members.len().cmp(&a.1.members.len()).then(a.0.cmp(&b.0)));
    let (id, mut record) = match found.iter().position(|(_, record)| record.members.len() < THREAD_MEMBERS_MAX) {
        Some(position) => found.remove(position),
        None => (ThreadId::from(email), ThreadRecord::default()),
    };
    for (other_id, mut other) in found {
        let fits = record.members.len() + other.members.len() < THREAD_MEMBERS_MAX;
        if fits && take_from_merges_left(turn, user, other_id, &other)? {
            merge(turn, mailbox, (other_id, other), (id, &mut record))?;
        } else if !other.overflowed {
            other.overflowed = true;
            row::put(turn.rows, Key::Thread(user, other_id), &other);
        }
    }
    for (hash, references) in mentions.iter().zip(known) {
        // What a merge has rewritten points here already; how often an id is mentioned, it did not change.
        let mention = MessageIdRecord { thread_id: id.to_bytes(), references: references + 1 };
        row::put(turn.rows, Key::MessageId(user, *hash), &mention);
    }
    Ok((id, record))
}

/// Whether the command may still move all messages of a thread. Rows that it had to look at count either way, so that many
/// threads which are too large cost no more than one.
fn take_from_merges_left(
    turn: &mut Turn<'_, impl Rows>,
    user: UserId,
    id: ThreadId,
    record: &ThreadRecord,
) -> Result<bool, Broken> {
    if record.members.len() > turn.merges_left.members || turn.merges_left.bytes == 0 {
        return Ok(false);
    }
    for member in &record.members {
        let key = Key::Email(user, row::id(Key::Thread(user, id), &member.email_id)?);
        let row = turn.rows.get(&key.bytes())?.ok_or_else(|| Broken::missing(key))?;
        match turn.merges_left.bytes.checked_sub(row.len()) {
            Some(left) => turn.merges_left.bytes = left,
            None => {
                turn.merges_left.bytes = 0;
                return Ok(false);
            }
        }
    }
    turn.merges_left.members -= record.members.len();
    Ok(true)
}

/// A thread with its id.
type Found = (ThreadId, ThreadRecord);

/// The threads that the mentions point to, and how many messages mention each. A thread that is gone (its messages were
/// deleted, while others that overflowed from it still mention the id) is none.
fn candidates(rows: &impl Rows, user: UserId, mentions: &[MessageIdHash]) -> Result<(Vec<Found>, Vec<u32>), Broken> {
    let mut found: Vec<Found> = Vec::new();
    let mut references = Vec::with_capacity(mentions.len());
    for hash in mentions {
        let key = Key::MessageId(user, *hash);
        let Some(known) = row::get::<MessageIdRecord>(rows, key)? else {
            references.push(0);
            continue;
        };
        references.push(known.references);
        let thread: ThreadId = row::id(key, &known.thread_id)?;
        if found.iter().any(|(id, _)| *id == thread) {
            continue;
        }
        if let Some(record) = row::get::<ThreadRecord>(rows, Key::Thread(user, thread))? {
            found.push((thread, record));
        }
    }
    Ok((found, references))
}

fn merge(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    (from, record): (ThreadId, ThreadRecord),
    (into, target): (ThreadId, &mut ThreadRecord),
) -> Result<(), Broken> {
    let user = mailbox.user;
    thread_list::merge(turn.rows, user, (from, &record), (into, target))?;
    for member in &record.members {
        let id: EmailId = row::id(Key::Thread(user, from), &member.email_id)?;
        rewrite(turn, mailbox, id, from, into)?;
    }
    row::delete(turn.rows, Key::Thread(user, from));
    target.members.extend(record.members);
    target.members.sort_by(|a, b| a.email_id.cmp(&b.email_id));
    target.overflowed |= record.overflowed;
    Ok(())
}

/// Moves one message and what it mentions from one thread to another.
fn rewrite(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    id: EmailId,
    from: ThreadId,
    into: ThreadId,
) -> Result<(), Broken> {
    let user = mailbox.user;
    let key = Key::Email(user, id);
    let Stored { mut email, mut line, .. } = Stored::need(turn.rows, user, id)?;
    email.thread_id = into.to_bytes();
    line.thread_id = into.to_bytes();
    let previous = ModSeq(email.modseq);
    email.modseq = change::of_message(turn, mailbox, ChangeKind::MessageUpdated, &email, Some(previous))?.0;
    row::put(turn.rows, key, &email);
    list_row::put(turn.rows, user, id, &line);
    message::put_uid(turn.rows, user, &email);
    for hash in mentions_of(key, &email)? {
        let key = Key::MessageId(user, hash);
        let mut known: MessageIdRecord = row::need(turn.rows, key)?;
        if row::id::<ThreadId>(key, &known.thread_id)? == from {
            known.thread_id = email.thread_id.clone();
            row::put(turn.rows, key, &known);
        }
    }
    Ok(())
}

/// What a stored message mentions.
pub(crate) fn mentions_of(key: Key, email: &EmailRecord) -> Result<Vec<MessageIdHash>, Broken> {
    mentions(&email.message_id_hash, &email.reference_hashes, |hash, _| row::id(key, hash))
}

/// A message's own hash, where it has one, and those of its references, each once and in order of their bytes. `read` is given
/// a hash and the field of a command that it stands in.
pub(crate) fn mentions<E>(
    own: &Bytes,
    references: &[Bytes],
    read: impl Fn(&Bytes, &'static str) -> Result<MessageIdHash, E>,
) -> Result<Vec<MessageIdHash>, E> {
    let mut mentions = Vec::with_capacity(1 + references.len());
    if !own.is_empty() {
        mentions.push(read(own, "message.message_id_hash")?);
    }
    for hash in references {
        mentions.push(read(hash, "message.reference_hashes")?);
    }
    mentions.sort_unstable();
    mentions.dedup();
    Ok(mentions)
}

/// The thread of the message under `key`.
pub(crate) fn of_message(
    reader: &impl Reader,
    user: UserId,
    key: Key,
    email: &EmailRecord,
) -> Result<(ThreadId, ThreadRecord), Broken> {
    let id: ThreadId = row::id(key, &email.thread_id)?;
    Ok((id, row::need(reader, Key::Thread(user, id))?))
}

/// Adds a member, or sets the folder of one that is there, and writes the thread.
pub(crate) fn put_member(
    rows: &mut impl Rows,
    user: UserId,
    id: ThreadId,
    record: &mut ThreadRecord,
    email: EmailId,
    folder: FolderId,
) {
    match record.members.binary_search_by(|member| member.email_id.as_ref().cmp(&email.0[..])) {
        Ok(place) => record.members[place].folder_id = folder.0,
        Err(place) => {
            record.members.insert(place, ThreadMember { email_id: email.to_bytes(), folder_id: folder.0 });
        }
    }
    row::put(rows, Key::Thread(user, id), record);
}

/// The thread without one of its members; an error when it was none.
pub(crate) fn without(
    user: UserId,
    id: ThreadId,
    mut record: ThreadRecord,
    email: EmailId,
) -> Result<ThreadRecord, Broken> {
    match record.members.binary_search_by(|member| member.email_id.as_ref().cmp(&email.0[..])) {
        Ok(place) => {
            record.members.remove(place);
            Ok(record)
        }
        Err(_) => Err(Broken::corrupt(Key::Thread(user, id), format!("message {email} is no member"))),
    }
}

/// Writes what is left of a thread, and uncounts the mentions of the message that has gone.
pub(crate) fn leave(
    rows: &mut impl Rows,
    user: UserId,
    id: ThreadId,
    rest: &ThreadRecord,
    mentions: &[MessageIdHash],
) -> Result<(), Broken> {
    let key = Key::Thread(user, id);
    if rest.members.is_empty() {
        row::delete(rows, key);
    } else {
        row::put(rows, key, rest);
    }
    for hash in mentions {
        let key = Key::MessageId(user, *hash);
        let mut known: MessageIdRecord = row::need(rows, key)?;
        known.references =
            known.references.checked_sub(1).ok_or_else(|| Broken::corrupt(key, "references would fall below zero"))?;
        if known.references == 0 {
            row::delete(rows, key);
        } else {
            row::put(rows, key, &known);
        }
    }
    Ok(())
}

/// The newest message of a thread in a folder.
pub(crate) fn newest_in(
    user: UserId,
    id: ThreadId,
    record: &ThreadRecord,
    folder: FolderId,
) -> Result<Option<EmailId>, Broken> {
    record
        .members
        .iter()
        .rev()
        .find(|member| member.folder_id == folder.0)
        .map(|member| row::id(Key::Thread(user, id), &member.email_id))
        .transpose()
}
