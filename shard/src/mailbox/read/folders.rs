//! The user's folders, by id.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{Folders, ListFolders, Missing};

use crate::mailbox::folder;
use crate::query::{QueryError, id, missing};
use crate::store::Reader;

pub(crate) fn answer(reader: &impl Reader, query: &ListFolders) -> Result<Answer, QueryError> {
    let folders = folder::all(reader, id(&query.user_id, "user_id")?)?;
    // A mailbox always has the folders that it was made with.
    Ok(match folders.is_empty() {
        true => missing(Missing::User),
        false => Answer::Folders(Folders { folders }),
    })
}
