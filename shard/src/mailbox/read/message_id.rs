//! An operator's question: every message of the shard with this Message-ID, or the one with this id. One point read a user.

use postrider_api::id::{EmailId, MessageIdHash, ThreadId, UserId};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{
    EmailRecord, FindMessageId, FoundMessage, FoundMessages, MessageIdRecord, ReferencesRecord, ThreadRecord,
};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::references;
use crate::query::{QueryError, id};
use crate::store::{Direction, Reader};
use crate::{Broken, page, row};

#[derive(Clone, Copy)]
enum Wanted {
    MessageId(MessageIdHash),
    Email(EmailId),
}

pub(crate) fn answer(reader: &impl Reader, query: &FindMessageId) -> Result<Answer, QueryError> {
    let wanted = if query.email_id.is_empty() {
        Wanted::MessageId(id(&query.message_id_hash, "message_id_hash")?)
    } else {
        Wanted::Email(id(&query.email_id, "email_id")?)
    };
    let limit = page::rows_max(query.limit);
    let mut found = FoundMessages::default();
    for account in reader.scan(&KeyRange::table(Table::Accounts), Direction::Forward) {
        let Key::Account(user) = Key::decode(account?.0.as_ref()).map_err(Broken::from)? else { continue };
        let of_user = match wanted {
            Wanted::MessageId(hash) => of_user(reader, user, hash)?,
            Wanted::Email(email) => row::get::<EmailRecord>(reader, Key::Email(user, email))?.into_iter().collect(),
        };
        for email in of_user {
            if found.messages.len() == limit {
                found.more = true;
                return Ok(Answer::FoundMessages(found));
            }
            found.messages.push(FoundMessage {
                user_id: user.to_bytes(),
                email_id: email.email_id,
                folder_id: email.folder_id,
                received_ms: email.received_ms,
            });
        }
    }
    Ok(Answer::FoundMessages(found))
}

fn of_user(reader: &impl Reader, user: UserId, hash: MessageIdHash) -> Result<Vec<EmailRecord>, Broken> {
    let key = Key::MessageId(user, hash);
    let Some(known) = row::get::<MessageIdRecord>(reader, key)? else { return Ok(Vec::new()) };
    let thread: ThreadId = row::id(key, &known.thread_id)?;
    let mut found = Vec::new();
    let mut mentions = 0;
    let record = row::get::<ThreadRecord>(reader, Key::Thread(user, thread))?.unwrap_or_default();
    for member in &record.members {
        let id: EmailId = row::id(Key::Thread(user, thread), &member.email_id)?;
        let says = references::read(reader, user, id)?;
        let is_it = says.message_id_hash == hash.0[..];
        mentions += u32::from(is_it || says.reference_hashes.iter().any(|reference| *reference == hash.0[..]));
        if is_it {
            found.push(row::need(reader, Key::Email(user, id))?);
        }
    }
    if mentions == known.references {
        return Ok(found);
    }
    // Some of who mention it stand in a thread that overflowed: only the whole mailbox tells.
    found.clear();
    for row in reader.scan(&KeyRange::user(Table::References, user), Direction::Forward) {
        let (key, value) = row?;
        let (key, says) = row::decode_row::<ReferencesRecord>(key, value)?;
        if says.message_id_hash == hash.0[..]
            && let Key::References(_, id) = key
        {
            found.push(row::need(reader, Key::Email(user, id))?);
        }
    }
    Ok(found)
}
