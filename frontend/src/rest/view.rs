//! What a client sees: rows turned into JSON. One of the two places where shapes of data are converted.
//!
//! Invariant: rows are taken apart, not copied; a list page costs one pass.

use bytes::Bytes;
use postrider_api::id::{EmailId, FolderId, LabelId, ThreadId, UserId};
use postrider_api::keyword::Keywords;
use postrider_api::pb;
use postrider_api::pb::FolderRole;
use serde::{Serialize, Serializer};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::rest::problem::Problem;
use crate::rest::time::Time;

/// An id of 16 bytes: 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(pub [u8; 16]);

impl Id {
    /// Of a row's field.
    pub(crate) fn of(bytes: &Bytes) -> Result<Self, Problem> {
        bytes.as_ref().try_into().map(Self).map_err(|_| Problem::internal("a row holds an id that is not 16 bytes"))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; 32];
        hex::encode_to_slice(self.0, &mut text).expect("32 digits hold 16 bytes");
        serializer.serialize_str(std::str::from_utf8(&text).expect("hexadecimal digits are ASCII"))
    }
}

impl PartialSchema for Id {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9a-f]{32}$")).into()
    }
}

impl ToSchema for Id {}

macro_rules! id_from {
    ($($id:ident),*) => { $(impl From<$id> for Id {
        fn from(id: $id) -> Self {
            Self(id.0)
        }
    })* };
}
id_from!(EmailId, ThreadId, UserId);

macro_rules! numbered {
    ($($(#[$doc:meta])* $name:ident($id:ident);)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(pub $id);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new().schema_type(Type::String).pattern(Some("^(0|[1-9][0-9]{0,9})$")).into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

numbered! {
    /// A folder's id: a decimal number, as text like every id.
    FolderRef(FolderId);
    /// A label's id: the same.
    LabelRef(LabelId);
}

/// The ids of a row's labels.
pub(crate) fn labels(ids: Vec<u32>) -> Vec<LabelRef> {
    ids.into_iter().map(|id| LabelRef(LabelId(id))).collect()
}

/// The keywords of a message, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeywordNames(pub Keywords);

impl Serialize for KeywordNames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.names())
    }
}

impl PartialSchema for KeywordNames {
    fn schema() -> RefOr<Schema> {
        let keyword = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(Keywords::ALL.names()));
        ArrayBuilder::new().items(keyword).into()
    }
}

impl ToSchema for KeywordNames {}

/// A colour: `#rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Color(pub u32);

impl Color {
    /// Six hexadecimal digits behind `#`, in whatever case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| is_hex).map(Self)
    }
}

/// For fuzzing: a colour is written as it was read, in lower case.
///
/// # Panics
/// When it is not: that is the finding.
pub fn fuzz_color(text: &str) {
    if let Some(color) = Color::parse(text) {
        assert_eq!(serde_json::to_value(color).ok(), Some(text.to_ascii_lowercase().into()));
    }
}

impl Serialize for Color {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("#{:06x}", self.0))
    }
}

impl PartialSchema for Color {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).pattern(Some("^#[0-9a-f]{6}$")).into()
    }
}

impl ToSchema for Color {}

/// A name and an address.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Mailbox {
    /// As the header writes it, decoded; may be empty. Of what is no mailbox: what stands there.
    pub(crate) name: String,
    /// As the header writes it, without comments, routes and quotes that say nothing; empty where that is no address.
    pub(crate) email: String,
}

impl From<pb::Mailbox> for Mailbox {
    fn from(mailbox: pb::Mailbox) -> Self {
        Self { name: mailbox.name, email: mailbox.email }
    }
}

fn mailboxes(list: Vec<pb::Mailbox>) -> Vec<Mailbox> {
    list.into_iter().map(Mailbox::from).collect()
}

/// The first author: lists show one.
fn first(list: Vec<pb::Mailbox>) -> Option<Mailbox> {
    list.into_iter().next().map(Mailbox::from)
}

/// A message as lists show it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageSummary {
    /// The message.
    pub(crate) id: Id,
    /// The folder that it is in.
    pub(crate) folder_id: FolderRef,
    /// The conversation that it is in.
    pub(crate) thread_id: Id,
    /// Its first author; null where the header names none.
    pub(crate) from: Option<Mailbox>,
    /// To whom.
    pub(crate) to: Vec<Mailbox>,
    /// Decoded.
    pub(crate) subject: String,
    /// Its first words.
    pub(crate) preview: String,
    /// Of the Date header; of its arrival where there is none.
    pub(crate) date: Time,
    /// Whether it was read: `$seen`.
    pub(crate) is_read: bool,
    /// Whether it is flagged: `$flagged`.
    pub(crate) is_flagged: bool,
    /// All its keywords.
    pub(crate) keywords: KeywordNames,
    /// Its labels.
    pub(crate) labels: Vec<LabelRef>,
    /// Whether files are attached.
    pub(crate) has_attachments: bool,
    /// Bytes of the raw message.
    pub(crate) size: u64,
}

impl TryFrom<pb::ListRow> for MessageSummary {
    type Error = Problem;

    fn try_from(row: pb::ListRow) -> Result<Self, Problem> {
        let keywords = Keywords(row.keywords);
        Ok(Self {
            id: Id::of(&row.email_id)?,
            folder_id: FolderRef(FolderId(row.folder_id)),
            thread_id: Id::of(&row.thread_id)?,
            from: first(row.from),
            to: mailboxes(row.to),
            subject: row.subject,
            preview: row.preview,
            date: Time(row.date_ms),
            is_read: keywords.is_read(),
            is_flagged: keywords.is_flagged(),
            keywords: KeywordNames(keywords),
            labels: labels(row.labels),
            has_attachments: row.has_attachments,
            size: row.size,
        })
    }
}

/// A folder.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Folder {
    /// The folder.
    pub(crate) id: FolderRef,
    /// Its name.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) user_id: Id,
    /// What it is for (RFC 6154, and the inbox); null for folders of the user's own.
    pub(crate) role: Option<Role>,
    /// Messages in it.
    pub(crate) total: u64,
    /// Messages in it that were not read.
    pub(crate) unread: u64,
}

/// What a folder is for.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names are RFC 6154's
pub(crate) enum Role {
    Inbox,
    Drafts,
    Sent,
    Archive,
    Junk,
    Trash,
    All,
    Flagged,
}

impl Folder {
    /// Of a user's row.
    pub(crate) fn of(user: UserId, row: pb::FolderRecord) -> Self {
        let role = match row.role() {
            FolderRole::None => None,
            FolderRole::Inbox => Some(Role::Inbox),
            FolderRole::Drafts => Some(Role::Drafts),
            FolderRole::Sent => Some(Role::Sent),
            FolderRole::Archive => Some(Role::Archive),
            FolderRole::Junk => Some(Role::Junk),
            FolderRole::Trash => Some(Role::Trash),
            FolderRole::All => Some(Role::All),
            FolderRole::Flagged => Some(Role::Flagged),
        };
        Self {
            id: FolderRef(FolderId(row.folder_id)),
            name: row.name,
            user_id: user.into(),
            role,
            total: row.total,
            unread: row.unread,
        }
    }
}

/// A label of the user's own.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Label {
    /// The label.
    pub(crate) id: LabelRef,
    /// Its name.
    pub(crate) name: String,
    /// Its colour.
    pub(crate) color: Color,
    /// Messages that have it, but for those in Trash and Junk.
    pub(crate) total: u64,
    /// Those of them that were not read.
    pub(crate) unread: u64,
}

impl From<pb::LabelRecord> for Label {
    fn from(row: pb::LabelRecord) -> Self {
        Self {
            id: LabelRef(LabelId(row.label_id)),
            name: row.name,
            color: Color(row.color),
            total: row.total,
            unread: row.unread,
        }
    }
}

impl From<pb::LabelState> for Label {
    fn from(state: pb::LabelState) -> Self {
        Self {
            id: LabelRef(LabelId(state.label_id)),
            name: state.name,
            color: Color(state.color),
            total: state.total,
            unread: state.unread,
        }
    }
}

/// A file that is attached to a message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Attachment {
    /// Names the file within its message: the number of its part.
    pub(crate) id: String,
    /// As the sender names it: one step of a path; may be empty.
    pub(crate) filename: String,
    /// As the sender declares it.
    pub(crate) content_type: String,
    /// Bytes of the decoded file.
    pub(crate) size: u64,
    /// Content-ID without brackets, by which HTML bodies refer to it; empty where there is none.
    pub(crate) content_id: String,
}

impl From<pb::Part> for Attachment {
    fn from(part: pb::Part) -> Self {
        Self {
            id: part.path,
            filename: part.filename,
            content_type: part.content_type,
            size: part.decoded_size,
            content_id: part.content_id,
        }
    }
}

/// A header field.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Header {
    /// As it is written.
    pub(crate) name: String,
    /// Unfolded.
    pub(crate) value: String,
}

/// What is known about who really sent a message: results of RFC 8601 section 2.7.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Authentication {
    /// Of the envelope's sender (RFC 7208).
    pub(crate) spf: AuthenticationResult,
    /// Of the signatures (RFC 6376).
    pub(crate) dkim: AuthenticationResult,
    /// Of the author's domain (RFC 7489).
    pub(crate) dmarc: AuthenticationResult,
    /// Of those who passed it on (RFC 8617).
    pub(crate) arc: AuthenticationResult,
}

/// A result of RFC 8601 section 2.7.1. Nothing checks yet, and what was not checked is `none`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuthenticationResult {
    /// Not checked, or nothing to check.
    None,
}

impl Authentication {
    /// Of a message that nobody checked.
    pub(crate) fn unchecked() -> Self {
        let none = AuthenticationResult::None;
        Self { spf: none, dkim: none, dmarc: none, arc: none }
    }
}

/// A whole message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Message {
    /// The message.
    pub(crate) id: Id,
    /// Whose mailbox it is in.
    pub(crate) user_id: Id,
    /// The folder that it is in.
    pub(crate) folder_id: FolderRef,
    /// The conversation that it is in.
    pub(crate) thread_id: Id,
    /// Its first author; null where the header names none.
    pub(crate) from: Option<Mailbox>,
    /// To whom.
    pub(crate) to: Vec<Mailbox>,
    /// With a copy to whom.
    pub(crate) cc: Vec<Mailbox>,
    /// What the message itself says about blind copies; those of a message that was sent here are not in it.
    pub(crate) bcc: Vec<Mailbox>,
    /// Where answers go.
    pub(crate) reply_to: Vec<Mailbox>,
    /// Decoded.
    pub(crate) subject: String,
    /// The text body, decoded; null where there is none.
    pub(crate) body: Option<String>,
    /// The HTML body, decoded, as it was sent: not made safe. Show it in a sandbox. Null where there is none.
    pub(crate) body_html: Option<String>,
    /// Whether a body is longer than what is given; the raw message has the rest.
    pub(crate) is_truncated: bool,
    /// Of the Date header; of its arrival where there is none.
    pub(crate) date: Time,
    /// When it arrived here.
    pub(crate) received_at: Time,
    /// Whether it was read: `$seen`.
    pub(crate) is_read: bool,
    /// Whether it is flagged: `$flagged`.
    pub(crate) is_flagged: bool,
    /// All its keywords.
    pub(crate) keywords: KeywordNames,
    /// Its labels.
    pub(crate) labels: Vec<LabelRef>,
    /// The files.
    pub(crate) attachments: Vec<Attachment>,
    /// The header fields, in their order.
    pub(crate) headers: Vec<Header>,
    /// Who really sent it.
    pub(crate) authentication: Authentication,
    /// Bytes of the raw message.
    pub(crate) size: u64,
    /// The change that it was last changed by.
    pub(crate) modseq: u64,
}

/// The decoded parts of a message that rows do not hold.
pub(crate) struct Rendering {
    /// The text body.
    pub(crate) text: Option<String>,
    /// The HTML body.
    pub(crate) html: Option<String>,
    /// The header fields.
    pub(crate) headers: Vec<(String, String)>,
    /// Whether a body is longer than what is here.
    pub(crate) is_truncated: bool,
}

impl Message {
    /// Of its row and its rendering.
    pub(crate) fn of(user: UserId, record: pb::EmailRecord, rendering: Rendering) -> Result<Self, Problem> {
        let keywords = Keywords(record.keywords);
        let envelope = record.envelope.unwrap_or_default();
        let attachments = record.parts.into_iter().filter(|part| part.is_attachment).map(Attachment::from).collect();
        let headers = rendering.headers.into_iter().map(|(name, value)| Header { name, value }).collect();
        Ok(Self {
            id: Id::of(&record.email_id)?,
            user_id: user.into(),
            folder_id: FolderRef(FolderId(record.folder_id)),
            thread_id: Id::of(&record.thread_id)?,
            from: first(envelope.from),
            to: mailboxes(envelope.to),
            cc: mailboxes(envelope.cc),
            bcc: mailboxes(envelope.bcc),
            reply_to: mailboxes(envelope.reply_to),
            subject: envelope.subject,
            body: rendering.text,
            body_html: rendering.html,
            is_truncated: rendering.is_truncated,
            date: Time(envelope.date_ms.unwrap_or(record.received_ms)),
            received_at: Time(record.received_ms),
            is_read: keywords.is_read(),
            is_flagged: keywords.is_flagged(),
            keywords: KeywordNames(keywords),
            labels: labels(record.labels),
            attachments,
            headers,
            authentication: Authentication::unchecked(),
            size: record.size,
            modseq: record.modseq,
        })
    }
}

/// A conversation as lists show it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ThreadSummary {
    /// The conversation.
    pub(crate) id: Id,
    /// Its messages, in all folders.
    pub(crate) total: u32,
    /// Those that were not read.
    pub(crate) unread: u32,
    /// Its newest message in the folder that is listed.
    pub(crate) newest: MessageSummary,
}

impl TryFrom<pb::ThreadRow> for ThreadSummary {
    type Error = Problem;

    fn try_from(row: pb::ThreadRow) -> Result<Self, Problem> {
        let newest = row.newest.ok_or_else(|| Problem::internal("a conversation without its newest message"))?;
        Ok(Self { id: Id::of(&row.thread_id)?, total: row.messages, unread: row.unread, newest: newest.try_into()? })
    }
}

/// A message within its conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ThreadMessage {
    /// The message.
    #[serde(flatten)]
    pub(crate) message: MessageSummary,
    /// The nearest message that it answers and that is here; null for one that answers none.
    pub(crate) parent_id: Option<Id>,
}

impl TryFrom<pb::ThreadMessage> for ThreadMessage {
    type Error = Problem;

    fn try_from(row: pb::ThreadMessage) -> Result<Self, Problem> {
        let message = row.row.ok_or_else(|| Problem::internal("a conversation's message without its row"))?;
        let parent_id = if row.parent_email_id.is_empty() { None } else { Some(Id::of(&row.parent_email_id)?) };
        Ok(Self { message: message.try_into()?, parent_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_text() {
        assert_eq!(serde_json::to_string(&Id([0xab; 16])).unwrap(), format!("\"{}\"", "ab".repeat(16)));
        assert_eq!(serde_json::to_string(&FolderRef(FolderId(7))).unwrap(), "\"7\"");
        assert_eq!(serde_json::to_string(&LabelRef(LabelId(7))).unwrap(), "\"7\"");
        assert!(Id::of(&Bytes::from_static(b"short")).is_err());
    }

    #[test]
    fn colours_are_six_digits() {
        for (text, color) in [("#000000", 0), ("#00ff7F", 0xff7f), ("#FFFFFF", 0xff_ff_ff)] {
            assert_eq!(Color::parse(text), Some(Color(color)));
            assert_eq!(serde_json::to_string(&Color(color)).unwrap(), format!("\"{}\"", text.to_lowercase()));
        }
        for bad in ["", "#", "red", "000000", "#fff", "#00000g", "#+00000", "#0000000", "# 00000", "#00000\u{e9}"] {
            assert_eq!(Color::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn keywords_are_names() {
        let names = serde_json::to_string(&KeywordNames(Keywords::SEEN | Keywords::DRAFT)).unwrap();
        assert_eq!(names, "[\"$seen\",\"$draft\"]");
    }
}
