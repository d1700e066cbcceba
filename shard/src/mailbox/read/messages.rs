//! A page of a folder, newest first: one range scan whatever the filter, however large the folder.

use postrider_api::id::FolderId;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{ListMessages, ListRow, MessagePage};

use crate::key::{KeyRange, Table};
use crate::query::{QueryError, cursor, id, malformed};
use crate::store::Reader;
use crate::{page, row};

pub(crate) fn answer(reader: &impl Reader, query: &ListMessages) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let folder = FolderId(query.folder_id);
    let table = match (query.is_flagged, query.is_read) {
        (false, None) => Table::FolderEmails,
        (false, Some(false)) => Table::UnreadEmails,
        (false, Some(true)) => Table::ReadEmails,
        (true, None) => Table::FlaggedEmails,
        (true, Some(_)) => return Err(malformed("is_flagged: there is no list of those that are also read or unread")),
    };
    let range = KeyRange::folder_before(table, user, folder, cursor(&query.before, "before")?);
    let page = page::read(reader, &range, query.limit, |key, value| {
        let bytes = value.len();
        Ok((row::decode_row::<ListRow>(key, value)?.1, bytes))
    })?;
    let is_empty = page.rows.is_empty();
    let page = MessagePage { rows: page.rows, more: page.more };
    super::page_or_missing(reader, user, folder, is_empty, Answer::Messages(page))
}
