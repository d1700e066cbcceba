//! Keys of the log database.
//!
//! ```text
//! 0x00                      who the directory belongs to
//! 0x01 group                this node hosts a replica of the group
//! 0x02 group                its vote; outlives the replica, so that a node never votes twice in a term
//! 0x03 group                what it knows to be committed
//! 0x04 group                the last entry that was purged
//! 0x05 group                a snapshot is being installed
//! 0x10 group index          an entry
//! ```
//! Numbers are big-endian, so that keys sort as the numbers do.

use crate::ids::GroupId;

/// Which row a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKey {
    /// Who the directory belongs to.
    Owner,
    /// This node hosts a replica of the group.
    Hosted(GroupId),
    /// The group's vote.
    Vote(GroupId),
    /// What the group knows to be committed.
    Committed(GroupId),
    /// The last purged entry.
    Purged(GroupId),
    /// A pending installation of a snapshot.
    Installing(GroupId),
    /// An entry.
    Entry(GroupId, u64),
}

const OWNER: u8 = 0x00;
const HOSTED: u8 = 0x01;
const VOTE: u8 = 0x02;
const COMMITTED: u8 = 0x03;
const PURGED: u8 = 0x04;
const INSTALLING: u8 = 0x05;
const ENTRY: u8 = 0x10;

/// The first key after all `Hosted` keys.
pub(crate) const HOSTED_END: [u8; 1] = [HOSTED + 1];
/// The first of all `Hosted` keys.
pub(crate) const HOSTED_START: [u8; 1] = [HOSTED];

/// No key has these bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key of the log: {0:02x?}")]
pub struct BadKey(pub Vec<u8>);

impl LogKey {
    /// The bytes of the key.
    pub fn encode(self) -> Vec<u8> {
        let (tag, group, index) = match self {
            Self::Owner => return vec![OWNER],
            Self::Hosted(group) => (HOSTED, group, None),
            Self::Vote(group) => (VOTE, group, None),
            Self::Committed(group) => (COMMITTED, group, None),
            Self::Purged(group) => (PURGED, group, None),
            Self::Installing(group) => (INSTALLING, group, None),
            Self::Entry(group, index) => (ENTRY, group, Some(index)),
        };
        let mut key = Vec::with_capacity(13);
        key.push(tag);
        key.extend_from_slice(&group.0.to_be_bytes());
        if let Some(index) = index {
            key.extend_from_slice(&index.to_be_bytes());
        }
        key
    }

    /// The key that `bytes` are.
    ///
    /// # Errors
    /// When no key has these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let bad = || BadKey(bytes.to_vec());
        let (tag, rest) = bytes.split_first().ok_or_else(bad)?;
        if *tag == OWNER {
            return if rest.is_empty() { Ok(Self::Owner) } else { Err(bad()) };
        }
        let (group, rest) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
        let group = GroupId(u32::from_be_bytes(*group));
        if *tag == ENTRY {
            let index = rest.try_into().map_err(|_| bad())?;
            return Ok(Self::Entry(group, u64::from_be_bytes(index)));
        }
        if !rest.is_empty() {
            return Err(bad());
        }
        match *tag {
            HOSTED => Ok(Self::Hosted(group)),
            VOTE => Ok(Self::Vote(group)),
            COMMITTED => Ok(Self::Committed(group)),
            PURGED => Ok(Self::Purged(group)),
            INSTALLING => Ok(Self::Installing(group)),
            _ => Err(bad()),
        }
    }
}

/// The first key after all entries of `group`.
pub(crate) fn entries_end(group: GroupId) -> Vec<u8> {
    match group.0.checked_add(1) {
        Some(next) => LogKey::Entry(GroupId(next), 0).encode(),
        None => vec![ENTRY + 1],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = LogKey> {
        let group = any::<u32>().prop_map(GroupId);
        prop_oneof![
            Just(LogKey::Owner),
            group.clone().prop_map(LogKey::Hosted),
            group.clone().prop_map(LogKey::Vote),
            group.clone().prop_map(LogKey::Committed),
            group.clone().prop_map(LogKey::Purged),
            group.clone().prop_map(LogKey::Installing),
            (group, any::<u64>()).prop_map(|(group, index)| LogKey::Entry(group, index)),
        ]
    }

    proptest! {
        #[test]
        fn a_key_reads_back(key in any_key()) {
            prop_assert_eq!(LogKey::decode(&key.encode()), Ok(key));
        }

        #[test]
        fn bytes_that_decode_are_the_key_that_they_decode_to(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            if let Ok(key) = LogKey::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }

        #[test]
        fn entries_sort_by_group_then_index(a in any::<(u32, u64)>(), b in any::<(u32, u64)>()) {
            let key = |(group, index): (u32, u64)| LogKey::Entry(GroupId(group), index).encode();
            prop_assert_eq!(a.cmp(&b), key(a).cmp(&key(b)));
        }

        #[test]
        fn all_entries_of_a_group_are_before_its_end(group in any::<u32>(), index in any::<u64>()) {
            let group = GroupId(group);
            prop_assert!(LogKey::Entry(group, index).encode() < entries_end(group));
        }
    }
}
