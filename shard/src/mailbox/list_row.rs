//! The lines of list pages: `emails_by_folder`, and the same again in `unread_emails` or `read_emails`, so that every list
//! is one range scan. They are written again with every flag, so they have the first [`LIST_ADDRESSES_MAX`] addresses only.

use postrider_api::id::{EmailId, FolderId, UserId};
use postrider_api::limit::LIST_ADDRESSES_MAX;
use postrider_api::pb::{EmailRecord, ListRow, Mailbox};
use prost::Message;

use crate::key::Key;
use crate::store::Rows;

/// The line of a message. The Date field is what a reader expects to see; without one, when the message came.
pub(crate) fn of(email: &EmailRecord) -> ListRow {
    let mut row = ListRow {
        email_id: email.email_id.clone(),
        thread_id: email.thread_id.clone(),
        preview: email.preview.clone(),
        date_ms: email.received_ms,
        is_read: email.is_read,
        is_flagged: email.is_flagged,
        has_attachments: email.has_attachments,
        size: email.size,
        ..Default::default()
    };
    if let Some(envelope) = &email.envelope {
        let first = |mailboxes: &[Mailbox]| mailboxes.iter().take(LIST_ADDRESSES_MAX).cloned().collect();
        row.from = first(&envelope.from);
        row.to = first(&envelope.to);
        // At most HEADER_ADDRESSES_MAX.
        row.to_total = envelope.to.len() as u32;
        row.subject.clone_from(&envelope.subject);
        row.date_ms = envelope.date_ms.unwrap_or(email.received_ms);
    }
    row
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
