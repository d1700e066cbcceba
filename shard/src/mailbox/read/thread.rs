//! A conversation across folders, oldest message first, with who answers whom. Every page is computed from the whole
//! conversation: who answers whom does not depend on where a page ends.
//!
//! Invariant: no message's own row is read, which may have hundreds of kilobytes: the tree is made from `email_references`, and
//! what a page shows stands in `emails_by_folder`.

use postrider_api::id::{EmailId, FolderId, UserId};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{GetThread, ListRow, Missing, ReferencesRecord, Thread, ThreadMessage, ThreadRecord};
use prost::Message;

use crate::key::Key;
use crate::mailbox::references;
use crate::mailbox::thread_tree::{self, Node};
use crate::page::PAGE_BYTES_MAX;
use crate::query::{QueryError, cursor, id, missing};
use crate::store::Reader;
use crate::{Broken, row};

/// What a step of [`thread_tree`] costs, as bytes that are read.
const STEP_BYTES: usize = 8;

pub(crate) fn answer(reader: &impl Reader, query: &GetThread) -> Result<Answer, QueryError> {
    let user: UserId = id(&query.user_id, "user_id")?;
    let thread = id(&query.thread_id, "thread_id")?;
    let key = Key::Thread(user, thread);
    let Some(record) = row::get::<ThreadRecord>(reader, key)? else {
        return Ok(missing(Missing::Thread));
    };
    let first = match cursor(&query.after, "after")? {
        Some(after) => record.members.partition_point(|member| member.email_id.as_ref() <= &after.0[..]),
        None => 0,
    };
    let mut messages = Vec::new();
    let mut bytes = 0;
    let mut nodes = Vec::with_capacity(record.members.len());
    for (place, member) in record.members.iter().enumerate() {
        let email = row::id::<EmailId>(key, &member.email_id)?;
        nodes.push(node(Key::References(user, email), &references::read(reader, user, email)?)?);
        if place >= first && bytes <= PAGE_BYTES_MAX {
            let line: ListRow = row::need(reader, Key::FolderEmail(user, FolderId(member.folder_id), email))?;
            bytes += line.encoded_len();
            messages.push(ThreadMessage { row: Some(line), folder_id: member.folder_id, ..Default::default() });
        }
    }
    reader.charge(thread_tree::steps_max(&nodes).saturating_mul(STEP_BYTES))?;
    let parents = thread_tree::parents(&nodes);
    for (message, parent) in messages.iter_mut().zip(parents.into_iter().skip(first)) {
        if let Some(parent) = parent {
            message.parent_email_id = record.members[parent].email_id.clone();
        }
    }
    let more = first + messages.len() < record.members.len();
    Ok(Answer::Thread(Thread { thread_id: query.thread_id.clone(), messages, more }))
}

fn node(key: Key, says: &ReferencesRecord) -> Result<Node, Broken> {
    let own = match says.message_id_hash.is_empty() {
        true => None,
        false => Some(row::id(key, &says.message_id_hash)?),
    };
    let references: Result<_, Broken> = says.reference_hashes.iter().map(|hash| row::id(key, hash)).collect();
    Ok(Node { own, references: references? })
}
