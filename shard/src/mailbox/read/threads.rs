//! A page of a folder's threads, the one with the newest message first: one range scan.

use postrider_api::id::FolderId;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{ListThreads, ThreadPage, ThreadRow};

use crate::key::{KeyRange, Table};
use crate::query::{QueryError, cursor, id};
use crate::store::Reader;
use crate::{page, row};

pub(crate) fn answer(reader: &impl Reader, query: &ListThreads) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let folder = FolderId(query.folder_id);
    let range = KeyRange::folder_before(Table::FolderThreads, user, folder, cursor(&query.before, "before")?);
    let page = page::read(reader, &range, query.limit, |key, value| {
        let bytes = value.len();
        Ok((row::decode_row::<ThreadRow>(key, value)?.1, bytes))
    })?;
    let is_empty = page.rows.is_empty();
    let page = ThreadPage { rows: page.rows, more: page.more };
    super::page_or_missing(reader, user, folder, is_empty, Answer::Threads(page))
}
