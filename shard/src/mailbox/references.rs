//! `email_references`: what a message says of its place in a conversation, in a row of its own.
//!
//! A message's row may have hundreds of kilobytes (a thousand parts), a thread a thousand messages. Whoever needs the tree of a
//! thread, or looks for a Message-ID, reads these rows and no others.

use postrider_api::id::{EmailId, UserId};
use postrider_api::pb::{EmailRecord, ReferencesRecord};

use crate::key::Key;
use crate::store::{Reader, Rows};
use crate::{Broken, row};

/// The row of a message; `None` when it says nothing.
pub(crate) fn of(email: &EmailRecord) -> Option<ReferencesRecord> {
    let says_nothing = email.message_id_hash.is_empty() && email.reference_hashes.is_empty();
    (!says_nothing).then(|| ReferencesRecord {
        message_id_hash: email.message_id_hash.clone(),
        reference_hashes: email.reference_hashes.clone(),
    })
}

/// Writes the row of a new message.
pub(crate) fn put(rows: &mut impl Rows, user: UserId, id: EmailId, email: &EmailRecord) {
    if let Some(record) = of(email) {
        row::put(rows, Key::References(user, id), &record);
    }
}

/// Removes the row of a message that goes.
pub(crate) fn remove(rows: &mut impl Rows, user: UserId, id: EmailId, email: &EmailRecord) {
    if of(email).is_some() {
        row::delete(rows, Key::References(user, id));
    }
}

/// What a message says.
pub(crate) fn read(reader: &impl Reader, user: UserId, id: EmailId) -> Result<ReferencesRecord, Broken> {
    Ok(row::get(reader, Key::References(user, id))?.unwrap_or_default())
}
