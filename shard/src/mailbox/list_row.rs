//! The lines of list pages: `emails_by_folder`, and the same again in `unread_emails` or `read_emails`, so that every list
//! is one range scan.

use postrider_api::id::{EmailId, FolderId, UserId};
use postrider_api::pb::{EmailRecord, ListRow};
use prost::Message;

use crate::key::Key;
use crate::store::Rows;

/// The line of a message. The Date field is what a reader expects to see; without one, when the message came.
pub(crate) fn of(email: &EmailRecord) -> ListRow {
    let (from, to, subject, date_ms) = match &email.envelope {
        Some(envelope) => (envelope.from.clone(), envelope.to.clone(), envelope.subject.clone(), envelope.date_ms),
        None => Default::default(),
    };
    ListRow {
        email_id: email.email_id.clone(),
        thread_id: email.thread_id.clone(),
        from,
        to,
        subject,
        preview: email.preview.clone(),
        date_ms: date_ms.unwrap_or(email.received_ms),
        is_read: email.is_read,
        is_flagged: email.is_flagged,
        has_attachments: email.has_attachments,
        size: email.size,
    }
}

/// Which of the two indexes by flag holds a message.
pub(crate) fn index(user: UserId, folder: FolderId, email: EmailId, is_read: bool) -> Key {
    match is_read {
        true => Key::ReadEmail(user, folder, email),
        false => Key::UnreadEmail(user, folder, email),
    }
}

/// Writes the line into its folder and its index.
pub(crate) fn put(rows: &mut impl Rows, user: UserId, folder: FolderId, email: EmailId, line: &ListRow) {
    let value = bytes::Bytes::from(line.encode_to_vec());
    rows.put(Key::FolderEmail(user, folder, email).bytes(), value.clone());
    rows.put(index(user, folder, email, line.is_read).bytes(), value);
}

/// Removes the line.
pub(crate) fn remove(rows: &mut impl Rows, user: UserId, folder: FolderId, email: EmailId, is_read: bool) {
    rows.delete(Key::FolderEmail(user, folder, email).bytes());
    rows.delete(index(user, folder, email, is_read).bytes());
}
