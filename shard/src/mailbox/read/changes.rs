//! The change feed from a modseq on.

use postrider_api::id::ModSeq;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{AccountRecord, Change, ChangePage, ChangeRecord, ListChanges, Missing};

use crate::key::{Key, KeyRange, Table};
use crate::query::{QueryError, id, missing, page_rows};
use crate::store::{Direction, Reader};
use crate::{Broken, row};

pub(crate) fn answer(reader: &impl Reader, query: &ListChanges) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let Some(account) = row::get::<AccountRecord>(reader, Key::Account(user))? else {
        return Ok(missing(Missing::User));
    };
    if query.since < account.changes_floor {
        return Ok(missing(Missing::Changes));
    }
    let limit = page_rows(query.limit);
    let mut page = ChangePage { modseq: account.modseq, ..Default::default() };
    for found in reader.scan(&KeyRange::since(Table::Changes, user, ModSeq(query.since)), Direction::Forward) {
        let (key, value) = found?;
        if page.changes.len() == limit {
            page.more = true;
            break;
        }
        match row::decode_row::<ChangeRecord>(key, value)? {
            (Key::Change(_, modseq), change) => {
                page.changes.push(Change { modseq: modseq.0, change: Some(change) });
            }
            (other, _) => return Err(Broken::corrupt(other, "stands in the range of changes").into()),
        }
    }
    Ok(Answer::Changes(page))
}
