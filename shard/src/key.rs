//! Every key of a shard. Big-endian, so that byte order is the order of numbers; the group's prefix stands before them.
//!
//! | byte | table | key | value |
//! |---|---|---|---|
//! | 01 | shard | | `ShardRecord` |
//! | 10 | accounts | user 16 | `AccountRecord` |
//! | 11 | sessions | user 16, token hash 32 | `SessionRecord` |
//! | 12 | folders_by_user | user 16, folder 4 | `FolderRecord` |
//! | 13 | emails_by_folder | user 16, folder 4, !email 16 | `ListRow` |
//! | 14 | unread_emails | user 16, folder 4, !email 16 | `ListRow` |
//! | 15 | read_emails | user 16, folder 4, !email 16 | `ListRow` |
//! | 16 | emails_by_user | user 16, email 16 | `EmailRecord` |
//! | 17 | attachments | user 16, email 16, part 4 | `AttachmentRecord` |
//! | 18 | uids | user 16, folder 4, uid 4 | `UidRecord` |
//! | 19 | threads | user 16, thread 16 | `ThreadRecord` |
//! | 1a | message_ids | user 16, hash 16 | `MessageIdRecord` |
//! | 1b | threads_by_folder | user 16, folder 4, !newest email 16 | `ThreadRow` |
//! | 1c | changes | user 16, modseq 8 | `ChangeRecord` |
//! | 1d | tombstones | user 16, modseq 8 | empty: the change row of that modseq is of a deleted object |
//! | 1e | changes_by_index | applied index 8, n 4 | `TailRecord` |
//! | 1f | labels_by_user | user 16, label 4 | `LabelRecord` |
//! | 20 | body_heads | body 16 | `BodyHead` |
//! | 21 | bodies | body 16 | the text as it was proposed, nothing around it |
//! | 22 | blobs | blob hash 32 | `BlobRecord`: who refers to it here, and whether it may be |
//! | 23 | pins | request 16 | `PinRecord` |
//! | 24 | pins_by_expiry | milliseconds 8, request 16 | empty |
//! | 28 | dedup | request 16 | `DedupRecord` |
//! | 29 | dedup_by_expiry | milliseconds 8, request 16 | empty |
//! | 2a | transfers | request 16 | `TransferRecord` |
//! | 2b | transfers_by_expiry | milliseconds 8, request 16 | empty |
//! | 2e | email_references | user 16, email 16 | `ReferencesRecord` |
//! | 30 | queue | entry 8 | `QueueRecord` |
//! | 31 | queue_by_due | milliseconds 8, entry 8 | empty |
//! | 32 | failed | entry 8 | `FailedRecord`: the error queue |
//! | 33 | queue_by_mailbox | user 16, entry 8 | `LineRecord`: who waits for room in this mailbox |
//! | 34 | queue_by_shard | shard 4, entry 8 | `LineRecord`: who waits for this shard |
//! | 35 | queue_recipients | user 16 | `QueueCount` |
//! | 36 | queue_senders | blake3 of the reverse-path 32 | `QueueCount` |
//! | 37 | queue_by_destination | blake3 of the destination 32, entry 8 | `LineRecord`: who waits for this destination to take mail |
//! | 38 | unread_by_label | user 16, label 4, !email 16 | `ListRow` |
//! | 39 | read_by_label | user 16, label 4, !email 16 | `ListRow` |
//! | 3a | hidden_by_label | user 16, label 4, !email 16 | `ListRow` of a message in Trash or Junk |
//! | 3b | flagged_emails | user 16, folder 4, !email 16 | `ListRow` |
//! | 3c | queue_destinations | blake3 of the destination 32 | `DestinationRecord` |
//! | 3d | entries_by_destination | blake3 of the destination 32, entry 8 | empty: somebody in the entry is sent there |
//! | 3e | outbox | user 16, entry 8 | empty: the user has sent it, and somebody waits in it |
//! | 40 | addresses | blake3 of the address 32 | `AddressRecord` |
//! | 41 | addresses_by_user | user 16, blake3 of the address 32 | empty |
//! | 42 | quarantine_by_expiry | milliseconds 8, blake3 of the address 32 | empty |
//! | 44 | domain_suppressions | blake3 of the domain, its first 16; blake3 of the address in lower case 32 | `SuppressionRecord` |
//! | 45 | domain_suppression_counts | blake3 of the domain, its first 16 | `SuppressionCount` |
//! | 50 | regions | blake3 of the name 32 | `Region` |
//! | 51 | nodes | node 8 | `Node` |
//! | 52 | shards | shard 4 | `Shard` |
//! | 53 | domains | blake3 of the domain 32 | `DomainRecord` |
//! | 55 | operations | operation 8 | `Operation` |
//! | 56 | removed_nodes | node 8 | `RemovedNode` |
//! | 57 | map_changes | version of the map 8 | `MapChange` |
//! | 58 | policies | blake3 of the name 32 | `Policy` |
//! | 5a | zones | blake3 of the name 32 | `Zone`: never removed |
//! | 59 | public_certificates | blake3 of the name 32 | `PublicCertificate` |
//! | 5b | acme | | `AcmeRecord` |
//! | 5e | audit | !sequence 8 | `AuditRecord` |
//! | 60 | deletions | user 16 | `DeletionRecord` |
//! | 61 | deleted_users | user 16 | `DeletedRecord` |
//! | 62 | app_passwords | user 16, application password 16 | `AppPasswordRecord` |
//! | 64 | sent_messages | user 16, entry 8 | `SentRecord`: what was sent to the outside, while something may come back |
//! | 65 | sent_by_expiry | milliseconds 8, user 16, entry 8 | empty |
//! | 66 | feedback | user 16, !sequence 8 | `FeedbackRecord` |
//! | 67 | sending | user 16 | `SendingRecord` |
//! | 68 | suppressions | user 16, blake3 of the address in lower case 32 | `SuppressionRecord` |
//! | 6c | second_factors | user 16 | `SecondFactorRecord` |
//! | 5c | sweeps | blake3 of the zone 32 | `Sweep` |
//!
//! `!email` is the complement of the id: a forward scan, the cheapest that RocksDB has, then begins with the newest.
//! An address's hash begins with its slot, so a directory shard that is split by slots is split at one key.
//! Times in keys are milliseconds since the Unix epoch and never negative.
//!
//! Invariant: a byte is never given to another table, and a key of a table never changes its shape: a new shape is a new table.

mod decode;
mod range;

use std::borrow::Borrow;
use std::fmt;

use postrider_api::id::{
    AppPasswordId, BlobHash, BodyId, EmailId, EntryId, FolderId, LabelId, MessageIdHash, ModSeq, NodeId, RequestId,
    ShardId,
};
use postrider_api::id::{ThreadId, Uid, UserId};

pub use decode::KeyError;
pub use range::KeyRange;

/// The longest key (sessions, addresses_by_user), bytes.
pub const KEY_BYTES_MAX: usize = 1 + 16 + 32;

macro_rules! tables {
    ($($name:ident = $byte:literal, $text:literal;)*) => {
        /// A table; its byte begins every key of it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Table { $($name = $byte,)* }

        impl Table {
            /// Every table, by byte.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The table of a first byte.
            pub fn of(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// As errors and operators name it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

tables! {
    Shard = 0x01, "shard";
    Accounts = 0x10, "accounts";
    Sessions = 0x11, "sessions";
    Folders = 0x12, "folders_by_user";
    FolderEmails = 0x13, "emails_by_folder";
    UnreadEmails = 0x14, "unread_emails";
    ReadEmails = 0x15, "read_emails";
    Emails = 0x16, "emails_by_user";
    Attachments = 0x17, "attachments";
    Uids = 0x18, "uids";
    Threads = 0x19, "threads";
    MessageIds = 0x1a, "message_ids";
    FolderThreads = 0x1b, "threads_by_folder";
    Changes = 0x1c, "changes";
    Tombstones = 0x1d, "tombstones";
    Tail = 0x1e, "changes_by_index";
    Labels = 0x1f, "labels_by_user";
    BodyHeads = 0x20, "body_heads";
    Bodies = 0x21, "bodies";
    Blobs = 0x22, "blobs";
    Pins = 0x23, "pins";
    PinsByExpiry = 0x24, "pins_by_expiry";
    Dedup = 0x28, "dedup";
    DedupByExpiry = 0x29, "dedup_by_expiry";
    Transfers = 0x2a, "transfers";
    TransfersByExpiry = 0x2b, "transfers_by_expiry";
    References = 0x2e, "email_references";
    Queue = 0x30, "queue";
    QueueByDue = 0x31, "queue_by_due";
    Failed = 0x32, "failed";
    MailboxLines = 0x33, "queue_by_mailbox";
    ShardLines = 0x34, "queue_by_shard";
    QueueRecipients = 0x35, "queue_recipients";
    QueueSenders = 0x36, "queue_senders";
    DestinationLines = 0x37, "queue_by_destination";
    LabelUnread = 0x38, "unread_by_label";
    LabelRead = 0x39, "read_by_label";
    LabelHidden = 0x3a, "hidden_by_label";
    FlaggedEmails = 0x3b, "flagged_emails";
    QueueDestinations = 0x3c, "queue_destinations";
    DestinationEntries = 0x3d, "entries_by_destination";
    Outbox = 0x3e, "outbox";
    Addresses = 0x40, "addresses";
    UserAddresses = 0x41, "addresses_by_user";
    Quarantine = 0x42, "quarantine_by_expiry";
    DomainSuppressions = 0x44, "domain_suppressions";
    DomainSuppressionCounts = 0x45, "domain_suppression_counts";
    Regions = 0x50, "regions";
    Nodes = 0x51, "nodes";
    Shards = 0x52, "shards";
    Domains = 0x53, "domains";
    Operations = 0x55, "operations";
    RemovedNodes = 0x56, "removed_nodes";
    MapChanges = 0x57, "map_changes";
    Policies = 0x58, "policies";
    PublicCertificates = 0x59, "public_certificates";
    Zones = 0x5a, "zones";
    Acme = 0x5b, "acme";
    Sweeps = 0x5c, "sweeps";
    Audit = 0x5e, "audit";
    Deletions = 0x60, "deletions";
    DeletedUsers = 0x61, "deleted_users";
    AppPasswords = 0x62, "app_passwords";
    SentMessages = 0x64, "sent_messages";
    SentByExpiry = 0x65, "sent_by_expiry";
    Feedback = 0x66, "feedback";
    Sending = 0x67, "sending";
    Suppressions = 0x68, "suppressions";
    SecondFactors = 0x6c, "second_factors";
}

impl Table {
    /// Whether its rows are what one user has, and go with his account. A table that is keyed by user first and is not among
    /// them says here why.
    pub fn is_of_mailbox(self) -> bool {
        match self {
            Self::Sessions
            | Self::AppPasswords
            | Self::SecondFactors
            | Self::Folders
            | Self::FolderEmails
            | Self::UnreadEmails
            | Self::ReadEmails
            | Self::Emails
            | Self::Attachments
            | Self::Uids
            | Self::Threads
            | Self::MessageIds
            | Self::References
            | Self::FolderThreads
            | Self::Changes
            | Self::Tombstones
            | Self::Labels
            | Self::LabelUnread
            | Self::LabelRead
            | Self::LabelHidden
            | Self::FlaggedEmails
            | Self::SentMessages
            | Self::Feedback
            | Self::Sending
            | Self::Suppressions
            // What was accepted goes out all the same; the entries only forget whose they are.
            | Self::Outbox => true,
            // The account itself goes last; what says that it is being deleted goes with it, and what says that it was stays.
            Self::Accounts | Self::Deletions | Self::DeletedUsers => false,
            // The directory has its own end of a deletion.
            Self::UserAddresses => false,
            // What waits for a user, here or elsewhere: entries that hold a deleted one drop him (queue/drop_recipient.rs).
            Self::MailboxLines | Self::QueueRecipients => false,
            Self::Shard
            | Self::Tail
            | Self::BodyHeads
            | Self::Bodies
            | Self::Blobs
            | Self::Pins
            | Self::PinsByExpiry
            | Self::Dedup
            | Self::DedupByExpiry
            | Self::Transfers
            | Self::TransfersByExpiry
            | Self::Queue
            | Self::QueueByDue
            | Self::Failed
            | Self::ShardLines
            | Self::DestinationLines
            | Self::QueueSenders
            | Self::QueueDestinations
            | Self::DestinationEntries
            | Self::Addresses
            | Self::Quarantine
            | Self::DomainSuppressions
            | Self::DomainSuppressionCounts
            | Self::Regions
            | Self::Nodes
            | Self::Shards
            | Self::Domains
            | Self::Operations
            | Self::RemovedNodes
            | Self::MapChanges
            | Self::Policies
            | Self::PublicCertificates
            | Self::Acme
            | Self::Zones
            | Self::Sweeps
            // Each goes with what it is of.
            | Self::SentByExpiry
            | Self::Audit => false,
        }
    }
}

/// blake3-256 of a name that is too long to be a key itself.
pub type NameHash = [u8; 32];

/// The hash under which an address, a region, a zone or a domain stands.
pub fn name_hash(name: &str) -> NameHash {
    *blake3::hash(name.as_bytes()).as_bytes()
}

/// The first half of a [`NameHash`]: what a domain's own rows begin with, so that its slot begins them.
pub type DomainHash = [u8; 16];

/// The hash under which a domain's own rows stand.
pub fn domain_hash(domain: &str) -> DomainHash {
    let hash = name_hash(domain);
    std::array::from_fn(|at| hash[at])
}

/// A key as what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Key {
    Shard,
    Account(UserId),
    Session(UserId, [u8; 32]),
    Folder(UserId, FolderId),
    FolderEmail(UserId, FolderId, EmailId),
    UnreadEmail(UserId, FolderId, EmailId),
    ReadEmail(UserId, FolderId, EmailId),
    Email(UserId, EmailId),
    /// The part's place among the message's leaves, from 0.
    Attachment(UserId, EmailId, u32),
    Uid(UserId, FolderId, Uid),
    Thread(UserId, ThreadId),
    MessageId(UserId, MessageIdHash),
    References(UserId, EmailId),
    /// The newest message of the thread in the folder.
    FolderThread(UserId, FolderId, EmailId),
    Change(UserId, ModSeq),
    Tombstone(UserId, ModSeq),
    /// Applied index, and the how manieth change of it.
    Tail(u64, u32),
    Label(UserId, LabelId),
    BodyHead(BodyId),
    Body(BodyId),
    Blob(BlobHash),
    Pin(RequestId),
    PinExpiry(i64, RequestId),
    Dedup(RequestId),
    DedupExpiry(i64, RequestId),
    Transfer(RequestId),
    TransferExpiry(i64, RequestId),
    Queue(EntryId),
    QueueDue(i64, EntryId),
    Failed(EntryId),
    MailboxLine(UserId, EntryId),
    ShardLine(ShardId, EntryId),
    QueueRecipient(UserId),
    QueueSender(NameHash),
    DestinationLine(NameHash, EntryId),
    QueueDestination(NameHash),
    DestinationEntry(NameHash, EntryId),
    Outbox(UserId, EntryId),
    LabelUnread(UserId, LabelId, EmailId),
    LabelRead(UserId, LabelId, EmailId),
    LabelHidden(UserId, LabelId, EmailId),
    FlaggedEmail(UserId, FolderId, EmailId),
    Address(NameHash),
    UserAddress(UserId, NameHash),
    QuarantineExpiry(i64, NameHash),
    DomainSuppression(DomainHash, NameHash),
    DomainSuppressionCount(DomainHash),
    Region(NameHash),
    Node(NodeId),
    Shards(ShardId),
    Domain(NameHash),
    Policy(NameHash),
    PublicCertificate(NameHash),
    Acme,
    Zone(NameHash),
    /// A sequence; the newest stands first.
    Audit(u64),
    Deletion(UserId),
    DeletedUser(UserId),
    AppPassword(UserId, AppPasswordId),
    SecondFactor(UserId),
    SentMessage(UserId, EntryId),
    SentExpiry(i64, UserId, EntryId),
    /// A sequence; the newest stands first.
    Feedback(UserId, u64),
    Sending(UserId),
    Suppression(UserId, NameHash),
    Operation(u64),
    RemovedNode(NodeId),
    MapChange(u64),
    Sweep(NameHash),
}

impl Key {
    /// The table that the key belongs to.
    pub fn table(&self) -> Table {
        match self {
            Self::Shard => Table::Shard,
            Self::Account(..) => Table::Accounts,
            Self::Session(..) => Table::Sessions,
            Self::Folder(..) => Table::Folders,
            Self::FolderEmail(..) => Table::FolderEmails,
            Self::UnreadEmail(..) => Table::UnreadEmails,
            Self::ReadEmail(..) => Table::ReadEmails,
            Self::Email(..) => Table::Emails,
            Self::Attachment(..) => Table::Attachments,
            Self::Uid(..) => Table::Uids,
            Self::Thread(..) => Table::Threads,
            Self::MessageId(..) => Table::MessageIds,
            Self::References(..) => Table::References,
            Self::FolderThread(..) => Table::FolderThreads,
            Self::Change(..) => Table::Changes,
            Self::Tombstone(..) => Table::Tombstones,
            Self::Tail(..) => Table::Tail,
            Self::Label(..) => Table::Labels,
            Self::BodyHead(..) => Table::BodyHeads,
            Self::Body(..) => Table::Bodies,
            Self::Blob(..) => Table::Blobs,
            Self::Pin(..) => Table::Pins,
            Self::PinExpiry(..) => Table::PinsByExpiry,
            Self::Dedup(..) => Table::Dedup,
            Self::DedupExpiry(..) => Table::DedupByExpiry,
            Self::Transfer(..) => Table::Transfers,
            Self::TransferExpiry(..) => Table::TransfersByExpiry,
            Self::Queue(..) => Table::Queue,
            Self::QueueDue(..) => Table::QueueByDue,
            Self::Failed(..) => Table::Failed,
            Self::MailboxLine(..) => Table::MailboxLines,
            Self::ShardLine(..) => Table::ShardLines,
            Self::QueueRecipient(..) => Table::QueueRecipients,
            Self::QueueSender(..) => Table::QueueSenders,
            Self::DestinationLine(..) => Table::DestinationLines,
            Self::QueueDestination(..) => Table::QueueDestinations,
            Self::DestinationEntry(..) => Table::DestinationEntries,
            Self::Outbox(..) => Table::Outbox,
            Self::LabelUnread(..) => Table::LabelUnread,
            Self::LabelRead(..) => Table::LabelRead,
            Self::LabelHidden(..) => Table::LabelHidden,
            Self::FlaggedEmail(..) => Table::FlaggedEmails,
            Self::Address(..) => Table::Addresses,
            Self::UserAddress(..) => Table::UserAddresses,
            Self::Region(..) => Table::Regions,
            Self::Node(..) => Table::Nodes,
            Self::Shards(..) => Table::Shards,
            Self::Domain(..) => Table::Domains,
            Self::Policy(..) => Table::Policies,
            Self::PublicCertificate(..) => Table::PublicCertificates,
            Self::Acme => Table::Acme,
            Self::Zone(..) => Table::Zones,
            Self::Audit(..) => Table::Audit,
            Self::QuarantineExpiry(..) => Table::Quarantine,
            Self::DomainSuppression(..) => Table::DomainSuppressions,
            Self::DomainSuppressionCount(..) => Table::DomainSuppressionCounts,
            Self::Deletion(..) => Table::Deletions,
            Self::DeletedUser(..) => Table::DeletedUsers,
            Self::AppPassword(..) => Table::AppPasswords,
            Self::SecondFactor(..) => Table::SecondFactors,
            Self::SentMessage(..) => Table::SentMessages,
            Self::SentExpiry(..) => Table::SentByExpiry,
            Self::Feedback(..) => Table::Feedback,
            Self::Sending(..) => Table::Sending,
            Self::Suppression(..) => Table::Suppressions,
            Self::Operation(..) => Table::Operations,
            Self::RemovedNode(..) => Table::RemovedNodes,
            Self::MapChange(..) => Table::MapChanges,
            Self::Sweep(..) => Table::Sweeps,
        }
    }

    /// The user whose row it is, in the tables that are keyed by user first.
    pub fn user(&self) -> Option<UserId> {
        match self {
            Self::Account(user)
            | Self::Session(user, _)
            | Self::AppPassword(user, _)
            | Self::SecondFactor(user)
            | Self::SentMessage(user, _)
            | Self::Feedback(user, _)
            | Self::Sending(user)
            | Self::Suppression(user, _)
            | Self::Folder(user, _)
            | Self::FolderEmail(user, ..)
            | Self::UnreadEmail(user, ..)
            | Self::ReadEmail(user, ..)
            | Self::Email(user, _)
            | Self::Attachment(user, ..)
            | Self::Uid(user, ..)
            | Self::Thread(user, _)
            | Self::MessageId(user, _)
            | Self::References(user, _)
            | Self::FolderThread(user, ..)
            | Self::Change(user, _)
            | Self::Tombstone(user, _)
            | Self::Label(user, _)
            | Self::LabelUnread(user, ..)
            | Self::LabelRead(user, ..)
            | Self::LabelHidden(user, ..)
            | Self::FlaggedEmail(user, ..)
            | Self::UserAddress(user, _)
            | Self::MailboxLine(user, _)
            | Self::Outbox(user, _)
            | Self::QueueRecipient(user)
            | Self::Deletion(user)
            | Self::DeletedUser(user) => Some(*user),
            Self::Shard
            | Self::Tail(..)
            | Self::BodyHead(_)
            | Self::Body(_)
            | Self::Dedup(_)
            | Self::DedupExpiry(..)
            | Self::Transfer(_)
            | Self::TransferExpiry(..)
            | Self::Queue(_)
            | Self::QueueDue(..)
            | Self::Failed(_)
            | Self::ShardLine(..)
            | Self::QueueSender(_)
            | Self::DestinationLine(..)
            | Self::QueueDestination(_)
            | Self::DestinationEntry(..)
            | Self::Address(_)
            | Self::QuarantineExpiry(..)
            | Self::DomainSuppression(..)
            | Self::DomainSuppressionCount(_)
            | Self::Region(_)
            | Self::Node(_)
            | Self::Shards(_)
            | Self::Domain(_)
            | Self::Operation(_)
            | Self::RemovedNode(_)
            | Self::MapChange(_)
            | Self::Policy(_)
            | Self::PublicCertificate(_)
            | Self::Acme
            | Self::Zone(_)
            | Self::Blob(_)
            | Self::Pin(_)
            | Self::PinExpiry(..)
            | Self::SentExpiry(..)
            | Self::Sweep(_)
            | Self::Audit(_) => None,
        }
    }

    /// The key as it is stored.
    pub fn bytes(&self) -> KeyBytes {
        let key = KeyBytes::of_table(self.table());
        match self {
            Self::Shard | Self::Acme => key,
            Self::Account(user)
            | Self::Deletion(user)
            | Self::DeletedUser(user)
            | Self::Sending(user)
            | Self::SecondFactor(user) => key.with(&user.0),
            Self::Session(user, hash) | Self::UserAddress(user, hash) | Self::Suppression(user, hash) => {
                key.with(&user.0).with(hash)
            }
            Self::SentExpiry(ms, user, entry) => key.with(&time(*ms)).with(&user.0).with(&entry.0.to_be_bytes()),
            Self::Feedback(user, sequence) => key.with(&user.0).with(&(!sequence).to_be_bytes()),
            Self::Folder(user, folder) => key.with(&user.0).with(&folder.0.to_be_bytes()),
            Self::FolderEmail(user, folder, email)
            | Self::UnreadEmail(user, folder, email)
            | Self::ReadEmail(user, folder, email)
            | Self::FlaggedEmail(user, folder, email)
            | Self::FolderThread(user, folder, email) => {
                key.with(&user.0).with(&folder.0.to_be_bytes()).with(&complement(*email))
            }
            Self::Label(user, label) => key.with(&user.0).with(&label.0.to_be_bytes()),
            Self::LabelUnread(user, label, email)
            | Self::LabelRead(user, label, email)
            | Self::LabelHidden(user, label, email) => {
                key.with(&user.0).with(&label.0.to_be_bytes()).with(&complement(*email))
            }
            Self::Email(user, email) | Self::References(user, email) => key.with(&user.0).with(&email.0),
            Self::Attachment(user, email, part) => key.with(&user.0).with(&email.0).with(&part.to_be_bytes()),
            Self::Uid(user, folder, uid) => key.with(&user.0).with(&folder.0.to_be_bytes()).with(&uid.0.to_be_bytes()),
            Self::Thread(user, thread) => key.with(&user.0).with(&thread.0),
            Self::AppPassword(user, id) => key.with(&user.0).with(&id.0),
            Self::MessageId(user, hash) => key.with(&user.0).with(&hash.0),
            Self::Change(user, modseq) | Self::Tombstone(user, modseq) => {
                key.with(&user.0).with(&modseq.0.to_be_bytes())
            }
            Self::Tail(index, n) => key.with(&index.to_be_bytes()).with(&n.to_be_bytes()),
            Self::BodyHead(body) | Self::Body(body) => key.with(&body.0),
            Self::Blob(hash) => key.with(&hash.0),
            Self::Dedup(request) | Self::Transfer(request) | Self::Pin(request) => key.with(&request.0),
            Self::DedupExpiry(ms, request) | Self::TransferExpiry(ms, request) | Self::PinExpiry(ms, request) => {
                key.with(&time(*ms)).with(&request.0)
            }
            Self::Queue(entry) | Self::Failed(entry) => key.with(&entry.0.to_be_bytes()),
            Self::QueueDue(ms, entry) => key.with(&time(*ms)).with(&entry.0.to_be_bytes()),
            Self::Address(hash)
            | Self::Region(hash)
            | Self::Domain(hash)
            | Self::Policy(hash)
            | Self::PublicCertificate(hash)
            | Self::Zone(hash) => key.with(hash),
            Self::MailboxLine(user, entry) | Self::Outbox(user, entry) | Self::SentMessage(user, entry) => {
                key.with(&user.0).with(&entry.0.to_be_bytes())
            }
            Self::DestinationLine(hash, entry) | Self::DestinationEntry(hash, entry) => {
                key.with(hash).with(&entry.0.to_be_bytes())
            }
            Self::ShardLine(shard, entry) => key.with(&shard.0.to_be_bytes()).with(&entry.0.to_be_bytes()),
            Self::QueueRecipient(user) => key.with(&user.0),
            Self::QueueSender(hash) | Self::QueueDestination(hash) => key.with(hash),
            Self::Sweep(zone) => key.with(zone),
            Self::QuarantineExpiry(ms, hash) => key.with(&time(*ms)).with(hash),
            Self::DomainSuppression(domain, address) => key.with(domain).with(address),
            Self::DomainSuppressionCount(domain) => key.with(domain),
            Self::Audit(sequence) => key.with(&(!sequence).to_be_bytes()),
            Self::Node(node) | Self::RemovedNode(node) => key.with(&node.0.to_be_bytes()),
            Self::Shards(shard) => key.with(&shard.0.to_be_bytes()),
            Self::Operation(id) | Self::MapChange(id) => key.with(&id.to_be_bytes()),
        }
    }
}

fn complement(email: EmailId) -> [u8; 16] {
    email.0.map(|byte| !byte)
}

/// Times in keys are not negative: apply's clock begins at 0 and never goes back.
fn time(ms: i64) -> [u8; 8] {
    ms.max(0).to_be_bytes()
}

/// An encoded key, without the group's prefix. It lives on the stack: apply forms about twenty for a message.
#[derive(Clone, Copy)]
pub struct KeyBytes {
    length: u8,
    bytes: [u8; KEY_BYTES_MAX],
}

impl KeyBytes {
    /// `None` when the slice is longer than any key.
    pub fn from_slice(slice: &[u8]) -> Option<Self> {
        let mut bytes = [0; KEY_BYTES_MAX];
        bytes.get_mut(..slice.len())?.copy_from_slice(slice);
        // KEY_BYTES_MAX fits in a byte, and the slice is not longer.
        Some(Self { length: slice.len() as u8, bytes })
    }

    pub(crate) fn of_table(table: Table) -> Self {
        let mut bytes = [0; KEY_BYTES_MAX];
        bytes[0] = table as u8;
        Self { length: 1, bytes }
    }

    /// Callers are the layouts of this file alone, of which none is longer than [`KEY_BYTES_MAX`].
    pub(crate) fn with(mut self, part: &[u8]) -> Self {
        let start = usize::from(self.length);
        self.bytes[start..start + part.len()].copy_from_slice(part);
        self.length += part.len() as u8;
        self
    }
}

impl AsRef<[u8]> for KeyBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Borrow<[u8]> for KeyBytes {
    fn borrow(&self) -> &[u8] {
        self.as_ref()
    }
}

impl PartialEq for KeyBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl Eq for KeyBytes {}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_ref().cmp(other.as_ref())
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_ref()))
    }
}

#[cfg(test)]
mod tests;
