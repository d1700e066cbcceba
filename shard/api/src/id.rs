//! Ids as types: a user's id is never taken for a message's.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use crate::pb::ShardKind;

/// Bytes or text that are no id of the kind that was wanted.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("not a {kind}: {reason}")]
pub struct IdError {
    /// What was wanted.
    pub kind: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

macro_rules! bytes16 {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The id as the bytes of a protobuf field.
            pub fn to_bytes(self) -> Bytes {
                Bytes::copy_from_slice(&self.0)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes
                    .try_into()
                    .map(Self)
                    .map_err(|_| IdError { kind: $kind, reason: "16 bytes are wanted" })
            }
        }

        impl TryFrom<&Bytes> for $name {
            type Error = IdError;

            fn try_from(bytes: &Bytes) -> Result<Self, IdError> {
                Self::try_from(bytes.as_ref())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut id = [0; 16];
                // Only the form that Display writes: one text per id.
                if text.len() != 32 || text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(IdError { kind: $kind, reason: "32 lower-case hexadecimal digits are wanted" });
                }
                hex::decode_to_slice(text, &mut id)
                    .map_err(|_| IdError { kind: $kind, reason: "32 lower-case hexadecimal digits are wanted" })?;
                Ok(Self(id))
            }
        }
    };
}

bytes16!(
    /// A user. The first two bytes are the directory slot of the address that he signed up with, so that the directory
    /// shard which holds the address also answers where the user is; the next two are the number of his residency zone, whose
    /// directory that is; the rest is random.
    UserId,
    "user id"
);
bytes16!(
    /// A message in one mailbox: a UUIDv7 (RFC 9562 section 5.7) formed in apply. Arrival order = id order = modseq order.
    EmailId,
    "message id"
);
bytes16!(
    /// A conversation: the id of the first message that opened it.
    ThreadId,
    "thread id"
);
bytes16!(
    /// What a message's text is stored under, once a shard.
    BodyId,
    "body id"
);
bytes16!(
    /// Decides sameness of commands (P-6).
    RequestId,
    "request id"
);
bytes16!(
    /// An application password of one user's.
    AppPasswordId,
    "application password id"
);
bytes16!(
    /// First 16 bytes of the blake3 hash of a Message-ID without its angle brackets.
    MessageIdHash,
    "message-id hash"
);

impl UserId {
    /// A user id of `zone` in `slot` with 12 random bytes.
    pub fn new(zone: ZoneId, slot: Slot, random: [u8; 12]) -> Self {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&slot.0.to_be_bytes());
        id[2..4].copy_from_slice(&zone.0.to_be_bytes());
        id[4..].copy_from_slice(&random);
        Self(id)
    }

    /// The residency zone that the user is in, for ever.
    pub fn zone(&self) -> ZoneId {
        ZoneId(u16::from_be_bytes([self.0[2], self.0[3]]))
    }

    /// The directory slot that answers for this user.
    pub fn slot(&self) -> Slot {
        Slot(u16::from_be_bytes([self.0[0], self.0[1]]))
    }
}

impl EmailId {
    /// A UUIDv7 of `ms` (since the Unix epoch, 48 bits are kept) and 10 random bytes, of which 74 bits are kept.
    pub fn new(ms: i64, random: [u8; 10]) -> Self {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&random);
        id[6] = 0x70 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        Self(id)
    }

    /// Milliseconds since the Unix epoch.
    pub fn ms(&self) -> i64 {
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&self.0[..6]);
        i64::from_be_bytes(ms)
    }
}

impl From<EmailId> for ThreadId {
    fn from(id: EmailId) -> Self {
        Self(id.0)
    }
}

impl MessageIdHash {
    /// Of a Message-ID as it stands between the angle brackets.
    pub fn of(message_id: &[u8]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(message_id).as_bytes()[..16]);
        Self(id)
    }
}

/// blake3-256 of what a blob holds; also its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash(pub [u8; 32]);

impl BlobHash {
    /// Of the blob's content.
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }

    /// The hash as the bytes of a protobuf field.
    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl TryFrom<&[u8]> for BlobHash {
    type Error = IdError;

    fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
        bytes.try_into().map(Self).map_err(|_| IdError { kind: "blob hash", reason: "32 bytes are wanted" })
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobHash({self})")
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                // No sign, no leading zero: one text per id.
                let canonical = text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c));
                text.parse()
                    .ok()
                    .filter(|_| canonical)
                    .map(Self)
                    .ok_or(IdError { kind: $kind, reason: "a decimal number is wanted" })
            }
        }
    };
}

number!(
    /// A folder of one user.
    FolderId(u32),
    "folder id"
);
number!(
    /// A label of one user.
    LabelId(u32),
    "label id"
);
number!(
    /// An IMAP UID (RFC 9051 section 2.3.1.1): never used again in its folder.
    Uid(u32),
    "UID"
);
number!(
    /// A user's change counter (RFC 7162 names it so): each change of anything in the mailbox takes the next.
    ModSeq(u64),
    "modseq"
);
number!(
    /// A storage node.
    NodeId(u64),
    "node id"
);
number!(
    /// A queue entry of one shard.
    EntryId(u64),
    "queue entry"
);
number!(
    /// The slot of an address or of a user: which directory shard answers.
    Slot(u16),
    "slot"
);
number!(
    /// A residency zone. Placement numbers them from 1 as they come, and never gives a number to another zone: it is in the ids
    /// of the zone's users.
    ZoneId(u16),
    "zone id"
);
number!(
    /// A shard, which is a Raft group. The number tells its kind: 1 is placement, 2 to 999 are directory shards, mailbox
    /// shards follow.
    ShardId(u32),
    "shard id"
);

impl ZoneId {
    /// The largest number.
    pub const LAST: Self = Self(u16::MAX);
}

impl ShardId {
    /// The one placement shard.
    pub const PLACEMENT: Self = Self(1);
    /// The first directory shard.
    pub const DIRECTORY_FIRST: Self = Self(2);
    /// The first mailbox shard.
    pub const MAILBOX_FIRST: Self = Self(1000);

    /// What the shard holds; `None` for 0, which is no shard.
    pub fn kind(&self) -> Option<ShardKind> {
        match self.0 {
            0 => None,
            1 => Some(ShardKind::Placement),
            2..=999 => Some(ShardKind::Directory),
            _ => Some(ShardKind::Mailbox),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn email_id_is_a_uuid_v7_and_keeps_its_time() {
        let id = EmailId::new(1_790_000_000_123, [0xff; 10]);
        let uuid = uuid::Uuid::from_bytes(id.0);
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(id.ms(), 1_790_000_000_123);
    }

    #[test]
    fn ids_have_one_text() {
        let id = UserId::new(ZoneId(0x1234), Slot(0xabcd), [7; 12]);
        assert_eq!(id.to_string().parse::<UserId>().unwrap(), id);
        assert!(id.to_string().to_uppercase().parse::<UserId>().is_err());
        assert!("+1".parse::<FolderId>().is_err());
        assert!("01".parse::<FolderId>().is_err());
        assert_eq!((id.slot(), id.zone()), (Slot(0xabcd), ZoneId(0x1234)));
    }
}
