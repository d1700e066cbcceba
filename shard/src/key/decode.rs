//! From bytes to [`Key`]. Never panics: what is wrong is named.

use postrider_api::id::{
    AppPasswordId, BlobHash, BodyId, EmailId, EntryId, FolderId, LabelId, MessageIdHash, ModSeq, NodeId, RequestId,
    ShardId,
};
use postrider_api::id::{ThreadId, Uid, UserId};
use thiserror::Error;

use super::{Key, Table};

/// Bytes that are no key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Nothing at all.
    #[error("an empty key")]
    Empty,
    /// The first byte belongs to no table that this build knows.
    #[error("key {key}: no table begins with {byte:02x}")]
    UnknownTable {
        /// The byte.
        byte: u8,
        /// The whole key, hexadecimal.
        key: String,
    },
    /// Too short or too long for its table.
    #[error("key {key} of {table}: {found} bytes, {wanted} are wanted")]
    Length {
        /// The table's name.
        table: &'static str,
        /// The whole key, hexadecimal.
        key: String,
        /// Bytes behind the table's byte.
        found: usize,
        /// Bytes that the table's keys have there.
        wanted: usize,
    },
    /// A time with its top bit set.
    #[error("key {key} of {table}: a negative time")]
    Time {
        /// The table's name.
        table: &'static str,
        /// The whole key, hexadecimal.
        key: String,
    },
}

/// Takes fixed parts off the front; the length was checked before.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut part = [0; N];
        let (head, rest) = self.0.split_at(N.min(self.0.len()));
        part[..head.len()].copy_from_slice(head);
        self.0 = rest;
        part
    }

    fn user(&mut self) -> UserId {
        UserId(self.take())
    }

    fn folder(&mut self) -> FolderId {
        FolderId(u32::from_be_bytes(self.take()))
    }

    fn label(&mut self) -> LabelId {
        LabelId(u32::from_be_bytes(self.take()))
    }

    fn newest_first(&mut self) -> EmailId {
        EmailId(self.take().map(|byte: u8| !byte))
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }

    fn ms(&mut self) -> i64 {
        i64::from_be_bytes(self.take())
    }
}

impl Table {
    /// Bytes behind the table's byte.
    pub(crate) fn key_bytes(self) -> usize {
        match self {
            Self::Shard | Self::Acme => 0,
            Self::Shards => 4,
            Self::Queue | Self::Failed | Self::Nodes | Self::Audit => 8,
            Self::Operations | Self::RemovedNodes | Self::MapChanges => 8,
            Self::Tail => 12,
            Self::ShardLines => 12,
            Self::Accounts | Self::Deletions | Self::DeletedUsers | Self::QueueRecipients => 16,
            Self::BodyHeads | Self::Bodies | Self::Pins | Self::Dedup | Self::Transfers | Self::QueueByDue => 16,
            Self::Folders | Self::Labels => 20,
            Self::Uids | Self::Changes | Self::Tombstones => 24,
            Self::PinsByExpiry | Self::DedupByExpiry | Self::TransfersByExpiry => 24,
            Self::Emails | Self::References | Self::Threads | Self::MessageIds | Self::AppPasswords => 32,
            Self::Addresses | Self::Regions | Self::Domains | Self::Policies | Self::Zones => 32,
            Self::PublicCertificates => 32,
            Self::Blobs | Self::Sweeps => 32,
            Self::MailboxLines | Self::Outbox | Self::SentMessages | Self::Feedback => 24,
            Self::SentByExpiry => 32,
            Self::Sending | Self::SecondFactors | Self::DomainSuppressionCounts => 16,
            Self::DomainSuppressions => 48,
            Self::QueueSenders | Self::QueueDestinations => 32,
            Self::DestinationLines | Self::DestinationEntries => 40,
            Self::FolderEmails | Self::UnreadEmails | Self::ReadEmails | Self::FlaggedEmails => 36,
            Self::LabelUnread | Self::LabelRead | Self::LabelHidden => 36,
            Self::FolderThreads | Self::Attachments => 36,
            Self::Quarantine => 40,
            Self::Sessions | Self::UserAddresses | Self::Suppressions => 48,
        }
    }
}

impl Key {
    /// # Errors
    /// When `bytes` is no key of any table.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let (byte, rest) = bytes.split_first().ok_or(KeyError::Empty)?;
        let table = Table::of(*byte).ok_or_else(|| KeyError::UnknownTable { byte: *byte, key: hex::encode(bytes) })?;
        let (found, wanted) = (rest.len(), table.key_bytes());
        if found != wanted {
            return Err(KeyError::Length { table: table.name(), key: hex::encode(bytes), found, wanted });
        }
        let key = Self::of_parts(table, Parts(rest));
        match key {
            Self::DedupExpiry(ms, _)
            | Self::TransferExpiry(ms, _)
            | Self::QueueDue(ms, _)
            | Self::QuarantineExpiry(ms, _)
            | Self::PinExpiry(ms, _)
            | Self::SentExpiry(ms, ..)
                if ms < 0 =>
            {
                Err(KeyError::Time { table: table.name(), key: hex::encode(bytes) })
            }
            key => Ok(key),
        }
    }

    fn of_parts(table: Table, mut parts: Parts<'_>) -> Self {
        let p = &mut parts;
        match table {
            Table::Shard => Self::Shard,
            Table::Accounts => Self::Account(p.user()),
            Table::Sessions => Self::Session(p.user(), p.take()),
            Table::Folders => Self::Folder(p.user(), p.folder()),
            Table::FolderEmails => Self::FolderEmail(p.user(), p.folder(), p.newest_first()),
            Table::UnreadEmails => Self::UnreadEmail(p.user(), p.folder(), p.newest_first()),
            Table::ReadEmails => Self::ReadEmail(p.user(), p.folder(), p.newest_first()),
            Table::Emails => Self::Email(p.user(), EmailId(p.take())),
            Table::Attachments => Self::Attachment(p.user(), EmailId(p.take()), p.u32()),
            Table::Uids => Self::Uid(p.user(), p.folder(), Uid(p.u32())),
            Table::Threads => Self::Thread(p.user(), ThreadId(p.take())),
            Table::MessageIds => Self::MessageId(p.user(), MessageIdHash(p.take())),
            Table::References => Self::References(p.user(), EmailId(p.take())),
            Table::FolderThreads => Self::FolderThread(p.user(), p.folder(), p.newest_first()),
            Table::Changes => Self::Change(p.user(), ModSeq(p.u64())),
            Table::Tombstones => Self::Tombstone(p.user(), ModSeq(p.u64())),
            Table::Tail => Self::Tail(p.u64(), p.u32()),
            Table::Labels => Self::Label(p.user(), p.label()),
            Table::BodyHeads => Self::BodyHead(BodyId(p.take())),
            Table::Bodies => Self::Body(BodyId(p.take())),
            Table::Blobs => Self::Blob(BlobHash(p.take())),
            Table::Pins => Self::Pin(RequestId(p.take())),
            Table::PinsByExpiry => Self::PinExpiry(p.ms(), RequestId(p.take())),
            Table::Dedup => Self::Dedup(RequestId(p.take())),
            Table::DedupByExpiry => Self::DedupExpiry(p.ms(), RequestId(p.take())),
            Table::Transfers => Self::Transfer(RequestId(p.take())),
            Table::TransfersByExpiry => Self::TransferExpiry(p.ms(), RequestId(p.take())),
            Table::Queue => Self::Queue(EntryId(p.u64())),
            Table::QueueByDue => Self::QueueDue(p.ms(), EntryId(p.u64())),
            Table::Failed => Self::Failed(EntryId(p.u64())),
            Table::MailboxLines => Self::MailboxLine(p.user(), EntryId(p.u64())),
            Table::ShardLines => Self::ShardLine(ShardId(p.u32()), EntryId(p.u64())),
            Table::QueueRecipients => Self::QueueRecipient(p.user()),
            Table::QueueSenders => Self::QueueSender(p.take()),
            Table::DestinationLines => Self::DestinationLine(p.take(), EntryId(p.u64())),
            Table::QueueDestinations => Self::QueueDestination(p.take()),
            Table::DestinationEntries => Self::DestinationEntry(p.take(), EntryId(p.u64())),
            Table::Outbox => Self::Outbox(p.user(), EntryId(p.u64())),
            Table::LabelUnread => Self::LabelUnread(p.user(), p.label(), p.newest_first()),
            Table::LabelRead => Self::LabelRead(p.user(), p.label(), p.newest_first()),
            Table::LabelHidden => Self::LabelHidden(p.user(), p.label(), p.newest_first()),
            Table::FlaggedEmails => Self::FlaggedEmail(p.user(), p.folder(), p.newest_first()),
            Table::Addresses => Self::Address(p.take()),
            Table::UserAddresses => Self::UserAddress(p.user(), p.take()),
            Table::Regions => Self::Region(p.take()),
            Table::Nodes => Self::Node(NodeId(p.u64())),
            Table::Shards => Self::Shards(ShardId(p.u32())),
            Table::Domains => Self::Domain(p.take()),
            Table::Operations => Self::Operation(p.u64()),
            Table::RemovedNodes => Self::RemovedNode(NodeId(p.u64())),
            Table::MapChanges => Self::MapChange(p.u64()),
            Table::Policies => Self::Policy(p.take()),
            Table::PublicCertificates => Self::PublicCertificate(p.take()),
            Table::Acme => Self::Acme,
            Table::Zones => Self::Zone(p.take()),
            Table::Quarantine => Self::QuarantineExpiry(p.ms(), p.take()),
            Table::Deletions => Self::Deletion(p.user()),
            Table::DeletedUsers => Self::DeletedUser(p.user()),
            Table::AppPasswords => Self::AppPassword(p.user(), AppPasswordId(p.take())),
            Table::SecondFactors => Self::SecondFactor(p.user()),
            Table::DomainSuppressions => Self::DomainSuppression(p.take(), p.take()),
            Table::DomainSuppressionCounts => Self::DomainSuppressionCount(p.take()),
            Table::SentMessages => Self::SentMessage(p.user(), EntryId(p.u64())),
            Table::SentByExpiry => Self::SentExpiry(p.ms(), p.user(), EntryId(p.u64())),
            Table::Feedback => Self::Feedback(p.user(), !p.u64()),
            Table::Sending => Self::Sending(p.user()),
            Table::Suppressions => Self::Suppression(p.user(), p.take()),
            Table::Audit => Self::Audit(!p.u64()),
            Table::Sweeps => Self::Sweep(p.take()),
        }
    }
}
