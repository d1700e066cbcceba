//! A page of what has a label, newest first: one range scan of the read or of the unread, or the two as one.

use postrider_api::id::LabelId;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{LabelRecord, ListLabelMessages, ListRow, MessagePage, Missing};

use crate::key::{Key, KeyBytes, KeyRange, Table};
use crate::query::{QueryError, cursor, id, missing};
use crate::store::Reader;
use crate::{page, row};

pub(crate) fn answer(reader: &impl Reader, query: &ListLabelMessages) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let label = LabelId(query.label_id);
    let before = cursor(&query.before, "before")?;
    let range = |table| KeyRange::label_before(table, user, label, before);
    let decode = |key: KeyBytes, value: bytes::Bytes| {
        let bytes = value.len();
        Ok((row::decode_row::<ListRow>(key, value)?.1, bytes))
    };
    let (unread, read) = (range(Table::LabelUnread), range(Table::LabelRead));
    let page = match query.is_read {
        None => page::read_both(reader, [&unread, &read], query.limit, decode)?,
        Some(false) => page::read(reader, &unread, query.limit, decode)?,
        Some(true) => page::read(reader, &read, query.limit, decode)?,
    };
    if page.rows.is_empty() && row::get::<LabelRecord>(reader, Key::Label(user, label))?.is_none() {
        return Ok(missing(Missing::Label));
    }
    Ok(Answer::Messages(MessagePage { rows: page.rows, more: page.more }))
}
