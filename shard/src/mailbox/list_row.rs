//! The lines of list pages: `emails_by_folder`, and the same again in each index that the message stands in (read or unread,
//! flagged, one for each label), so that every list is a range scan. They are written again with every flag, so they have the
//! first [`LIST_ADDRESSES_MAX`] addresses only.

use postrider_api::id::{EmailId, FolderId, LabelId, UserId};
use postrider_api::keyword::Keywords;
use postrider_api::limit::LIST_ADDRESSES_MAX;
use postrider_api::pb::{EmailRecord, ListRow, Mailbox};
use prost::Message;

use crate::key::Key;
use crate::mailbox::label::{self, Shown};
use crate::store::Rows;

/// The line of a message. The Date field is what a reader expects to see; without one, when the message came.
pub(crate) fn of(email: &EmailRecord) -> ListRow {
    let mut row = ListRow {
        email_id: email.email_id.clone(),
        preview: email.preview.clone(),
        date_ms: email.received_ms,
        has_attachments: email.has_attachments,
        size: email.size,
        ..Default::default()
    };
    follow(&mut row, email);
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

/// Takes over what can change of a message.
pub(crate) fn follow(line: &mut ListRow, email: &EmailRecord) {
    line.thread_id.clone_from(&email.thread_id);
    line.keywords = email.keywords;
    line.folder_id = email.folder_id;
    line.labels.clone_from(&email.labels);
}

/// Whether the message of a line was read.
pub(crate) fn is_read(line: &ListRow) -> bool {
    Keywords(line.keywords).is_read()
}

/// Every key that a line stands under. That of its folder is the first.
pub(crate) fn places(user: UserId, email: EmailId, line: &ListRow) -> Vec<Key> {
    let folder = FolderId(line.folder_id);
    let mut places = Vec::with_capacity(3 + line.labels.len());
    places.push(Key::FolderEmail(user, folder, email));
    places.push(match is_read(line) {
        true => Key::ReadEmail(user, folder, email),
        false => Key::UnreadEmail(user, folder, email),
    });
    if Keywords(line.keywords).is_flagged() {
        places.push(Key::FlaggedEmail(user, folder, email));
    }
    places.extend(line.labels.iter().map(|id| match label::shown_of(line) {
        Shown::Unread => Key::LabelUnread(user, LabelId(*id), email),
        Shown::Read => Key::LabelRead(user, LabelId(*id), email),
        Shown::Hidden => Key::LabelHidden(user, LabelId(*id), email),
    }));
    places
}

/// Writes the line into its folder and its indexes.
pub(crate) fn put(rows: &mut impl Rows, user: UserId, email: EmailId, line: &ListRow) {
    let value = bytes::Bytes::from(line.encode_to_vec());
    for place in places(user, email, line) {
        rows.put(place.bytes(), value.clone());
    }
}

/// Removes the line.
pub(crate) fn remove(rows: &mut impl Rows, user: UserId, email: EmailId, line: &ListRow) {
    for place in places(user, email, line) {
        rows.delete(place.bytes());
    }
}
