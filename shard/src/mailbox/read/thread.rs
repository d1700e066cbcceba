//! A conversation across folders, oldest message first, with who answers whom.

use postrider_api::id::{EmailId, UserId};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{EmailRecord, GetThread, Missing, Thread, ThreadMessage, ThreadRecord};

use crate::key::Key;
use crate::mailbox::list_row;
use crate::mailbox::thread_tree::{self, Node};
use crate::query::{QueryError, id, missing};
use crate::store::Reader;
use crate::{Broken, row};

pub(crate) fn answer(reader: &impl Reader, query: &GetThread) -> Result<Answer, QueryError> {
    let user: UserId = id(&query.user_id, "user_id")?;
    let thread = id(&query.thread_id, "thread_id")?;
    let key = Key::Thread(user, thread);
    let Some(record) = row::get::<ThreadRecord>(reader, key)? else {
        return Ok(missing(Missing::Thread));
    };
    let mut messages = Vec::with_capacity(record.members.len());
    let mut nodes = Vec::with_capacity(record.members.len());
    for member in &record.members {
        let email: EmailRecord = row::need(reader, Key::Email(user, row::id::<EmailId>(key, &member.email_id)?))?;
        nodes.push(node(key, &email)?);
        messages.push(ThreadMessage {
            row: Some(list_row::of(&email)),
            folder_id: email.folder_id,
            ..Default::default()
        });
    }
    for (place, parent) in thread_tree::parents(&nodes).into_iter().enumerate() {
        if let Some(parent) = parent {
            messages[place].parent_email_id = record.members[parent].email_id.clone();
        }
    }
    Ok(Answer::Thread(Thread { thread_id: query.thread_id.clone(), messages }))
}

fn node(key: Key, email: &EmailRecord) -> Result<Node, Broken> {
    let own = match email.message_id_hash.is_empty() {
        true => None,
        false => Some(row::id(key, &email.message_id_hash)?),
    };
    let references: Result<_, Broken> = email.reference_hashes.iter().map(|hash| row::id(key, hash)).collect();
    Ok(Node { own, references: references? })
}
