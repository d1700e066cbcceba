//! A conversation across folders, oldest message first, with who answers whom. Every page is computed from the whole
//! conversation: who answers whom does not depend on where a page ends.

use postrider_api::id::{EmailId, UserId};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{EmailRecord, GetThread, Missing, Thread, ThreadMessage, ThreadRecord};
use prost::Message;

use crate::key::Key;
use crate::mailbox::list_row;
use crate::mailbox::thread_tree::{self, Node};
use crate::page::PAGE_BYTES_MAX;
use crate::query::{QueryError, cursor, id, missing};
use crate::store::Reader;
use crate::{Broken, row};

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
        let email: EmailRecord = row::need(reader, Key::Email(user, row::id::<EmailId>(key, &member.email_id)?))?;
        nodes.push(node(key, &email)?);
        if place >= first && bytes <= PAGE_BYTES_MAX {
            let line = list_row::of(&email);
            bytes += line.encoded_len();
            messages.push(ThreadMessage { row: Some(line), folder_id: email.folder_id, ..Default::default() });
        }
    }
    let parents = thread_tree::parents(&nodes);
    for (message, parent) in messages.iter_mut().zip(parents.into_iter().skip(first)) {
        if let Some(parent) = parent {
            message.parent_email_id = record.members[parent].email_id.clone();
        }
    }
    let more = first + messages.len() < record.members.len();
    Ok(Answer::Thread(Thread { thread_id: query.thread_id.clone(), messages, more }))
}

fn node(key: Key, email: &EmailRecord) -> Result<Node, Broken> {
    let own = match email.message_id_hash.is_empty() {
        true => None,
        false => Some(row::id(key, &email.message_id_hash)?),
    };
    let references: Result<_, Broken> = email.reference_hashes.iter().map(|hash| row::id(key, hash)).collect();
    Ok(Node { own, references: references? })
}
