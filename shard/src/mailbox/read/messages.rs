//! A page of a folder, newest first: one range scan whatever the filter, however large the folder.

use postrider_api::id::FolderId;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{ListMessages, ListRow, MessagePage};

use crate::key::{KeyRange, Table};
use crate::query::{PAGE_BYTES_MAX, QueryError, cursor, id, page_rows};
use crate::row;
use crate::store::{Direction, Reader};

pub(crate) fn answer(reader: &impl Reader, query: &ListMessages) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let folder = FolderId(query.folder_id);
    let table = match query.is_read {
        None => Table::FolderEmails,
        Some(false) => Table::UnreadEmails,
        Some(true) => Table::ReadEmails,
    };
    let range = KeyRange::folder_before(table, user, folder, cursor(&query.before)?);
    let limit = page_rows(query.limit);
    let mut page = MessagePage::default();
    let mut bytes = 0;
    for found in reader.scan(&range, Direction::Forward) {
        let (key, value) = found?;
        if page.rows.len() == limit || bytes > PAGE_BYTES_MAX {
            page.more = true;
            break;
        }
        bytes += value.len();
        page.rows.push(row::decode_row::<ListRow>(key, value)?.1);
    }
    super::page_or_missing(reader, user, folder, page.rows.is_empty(), Answer::Messages(page))
}
