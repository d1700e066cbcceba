//! The change feed from a modseq on.

use postrider_api::id::ModSeq;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{AccountRecord, Change, ChangePage, ChangeRecord, ListChanges, Missing};

use crate::key::{Key, KeyRange, Table};
use crate::query::{QueryError, id, missing};
use crate::store::Reader;
use crate::{Broken, page, row};

pub(crate) fn answer(reader: &impl Reader, query: &ListChanges) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let Some(account) = row::get::<AccountRecord>(reader, Key::Account(user))? else {
        return Ok(missing(Missing::User));
    };
    if query.since < account.changes_floor {
        return Ok(missing(Missing::Changes));
    }
    let range = KeyRange::since(Table::Changes, user, ModSeq(query.since));
    let page = page::read(reader, &range, query.limit, |key, value| {
        let bytes = value.len();
        match row::decode_row::<ChangeRecord>(key, value)? {
            (Key::Change(_, modseq), change) => Ok((Change { modseq: modseq.0, change: Some(change) }, bytes)),
            (other, _) => Err(Broken::corrupt(other, "stands in the range of changes")),
        }
    })?;
    Ok(Answer::Changes(ChangePage {
        changes: page.rows,
        modseq: account.modseq,
        more: page.more,
        ..Default::default()
    }))
}
