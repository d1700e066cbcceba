//! What queries read of mailboxes: one file per question.

pub(crate) mod account;
pub(crate) mod app_passwords;
pub(crate) mod body;
pub(crate) mod changes;
pub(crate) mod deletions;
pub(crate) mod folders;
pub(crate) mod label_messages;
pub(crate) mod labels;
pub(crate) mod message;
pub(crate) mod message_id;
pub(crate) mod messages;
pub(crate) mod recipient;
pub(crate) mod second_factor;
pub(crate) mod session;
pub(crate) mod thread;
pub(crate) mod threads;

use postrider_api::id::{FolderId, UserId};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{FolderRecord, Missing};

use crate::key::Key;
use crate::query::{QueryError, missing};
use crate::row;
use crate::store::Reader;

/// What an empty page means: an empty folder, or none.
fn page_or_missing(
    reader: &impl Reader,
    user: UserId,
    folder: FolderId,
    is_empty: bool,
    page: Answer,
) -> Result<Answer, QueryError> {
    // Only an empty page asks: a page with rows shows that the folder is there.
    if is_empty && row::get::<FolderRecord>(reader, Key::Folder(user, folder))?.is_none() {
        return Ok(missing(Missing::Folder));
    }
    Ok(page)
}
