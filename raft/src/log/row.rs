//! Rows of the log. Written by hand, each with a version in front.
//!
//! ```text
//! entry     version u8 = 1, crc32c u32 of what follows, kind u8, term u64, payload
//! log id    version u8 = 1, term u64, index u64
//! vote      version u8 = 1, term u64, node u64, committed u8
//! owner     version u8 = 1, node u64
//! ```
//! Numbers are big-endian. Kind: 0 blank, 1 command (the payload is the command), 2 membership (protobuf).

use bytes::Bytes;
use prost::Message;

use crate::ids::NodeId;
use crate::types::{self, Entry, LogId, Payload, Vote};
use crate::wire;

const VERSION: u8 = 1;
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;
const CHECKSUM_END: usize = 1 + 4;

/// A row that cannot be read. Never treated as an absent one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRow {
    /// Written by a later version of this program.
    #[error("row version {0} is newer than this program knows")]
    Newer(u8),
    /// Too short, too long, or with values that cannot be.
    #[error("row is malformed: {0}")]
    Malformed(&'static str),
    /// The bytes are not those that were written.
    #[error("row checksum differs")]
    Checksum,
}

/// An entry as the log holds it: for tools and fuzzing, which do not know openraft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// The term of its leader.
    pub term: u64,
    /// What it carries.
    pub body: EntryBody,
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryBody {
    /// Nothing: the entry with which a leader begins its term.
    Blank,
    /// A proposal.
    Command(Bytes),
    /// A change of members: the protobuf message.
    Membership(Bytes),
}

/// Reads an entry row.
///
/// # Errors
/// When the bytes are no entry row of a known version, or not those that were written.
pub fn decode_entry_row(row: &[u8]) -> Result<EntryRow, BadRow> {
    let (term, kind, payload) = split_entry(row)?;
    let payload = Bytes::copy_from_slice(payload);
    let body = match kind {
        BLANK if payload.is_empty() => EntryBody::Blank,
        COMMAND => EntryBody::Command(payload),
        MEMBERSHIP => EntryBody::Membership(payload),
        _ => return Err(BadRow::Malformed("entry kind")),
    };
    Ok(EntryRow { term, body })
}

/// Appends the row of `entry` to `row`.
pub(crate) fn encode_entry(entry: &Entry, row: &mut Vec<u8>) {
    let start = row.len();
    let kind = match &entry.payload {
        Payload::Blank => BLANK,
        Payload::Normal(_) => COMMAND,
        Payload::Membership(_) => MEMBERSHIP,
    };
    row.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
    let covered = row.len();
    row.push(kind);
    row.extend_from_slice(&entry.log_id.leader_id.term.to_be_bytes());
    match &entry.payload {
        Payload::Blank => {}
        Payload::Normal(command) => row.extend_from_slice(&command.0),
        Payload::Membership(membership) => {
            row.extend_from_slice(&wire::Membership::from(membership).encode_to_vec());
        }
    }
    let checksum = crc32c::crc32c(&row[covered..]);
    row[start + 1..covered].copy_from_slice(&checksum.to_be_bytes());
}

/// Reads the entry at `index`.
pub(crate) fn decode_entry(index: u64, row: &[u8]) -> Result<Entry, BadRow> {
    let EntryRow { term, body } = decode_entry_row(row)?;
    let payload = match body {
        EntryBody::Blank => Payload::Blank,
        EntryBody::Command(command) => Payload::Normal(types::Command(command)),
        EntryBody::Membership(bytes) => {
            let membership = wire::Membership::decode(bytes).map_err(|_| BadRow::Malformed("membership"))?;
            let membership = (&membership).try_into().map_err(|wire::Malformed(what)| BadRow::Malformed(what))?;
            Payload::Membership(membership)
        }
    };
    Ok(Entry { log_id: types::log_id(term, index), payload })
}

/// Whether an entry row is what was written, without looking at what it carries.
pub(crate) fn check_entry(row: &[u8]) -> Result<(), BadRow> {
    split_entry(row).map(drop)
}

fn split_entry(row: &[u8]) -> Result<(u64, u8, &[u8]), BadRow> {
    check_version(row)?;
    if row.len() < CHECKSUM_END {
        return Err(BadRow::Malformed("entry is too short"));
    }
    let (head, covered) = row.split_at(CHECKSUM_END);
    let checksum = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if crc32c::crc32c(covered) != checksum {
        return Err(BadRow::Checksum);
    }
    let (kind, rest) = covered.split_first().ok_or(BadRow::Malformed("entry is too short"))?;
    let (term, payload) = rest.split_first_chunk::<8>().ok_or(BadRow::Malformed("entry is too short"))?;
    Ok((u64::from_be_bytes(*term), *kind, payload))
}

pub(crate) fn encode_log_id(id: &LogId) -> Vec<u8> {
    let mut row = vec![VERSION];
    row.extend_from_slice(&id.leader_id.term.to_be_bytes());
    row.extend_from_slice(&id.index.to_be_bytes());
    row
}

/// Reads a log id row: (term, index).
///
/// # Errors
/// When the bytes are no log id row of a known version.
pub fn decode_log_id_row(row: &[u8]) -> Result<(u64, u64), BadRow> {
    check_version(row)?;
    let numbers: &[u8; 16] = row[1..].try_into().map_err(|_| BadRow::Malformed("log id length"))?;
    Ok((be64(numbers, 0), be64(numbers, 8)))
}

pub(crate) fn decode_log_id(row: &[u8]) -> Result<LogId, BadRow> {
    decode_log_id_row(row).map(|(term, index)| types::log_id(term, index))
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut row = vec![VERSION];
    row.extend_from_slice(&vote.leader_id.term.to_be_bytes());
    row.extend_from_slice(&vote.leader_id.voted_for.0.to_be_bytes());
    row.push(u8::from(vote.committed));
    row
}

/// Reads a vote row: (term, node, committed).
///
/// # Errors
/// When the bytes are no vote row of a known version.
pub fn decode_vote_row(row: &[u8]) -> Result<(u64, NodeId, bool), BadRow> {
    check_version(row)?;
    let (numbers, committed) = row[1..].split_first_chunk::<16>().ok_or(BadRow::Malformed("vote length"))?;
    let committed = match committed {
        [0] => false,
        [1] => true,
        _ => return Err(BadRow::Malformed("vote flag")),
    };
    Ok((be64(numbers, 0), NodeId(be64(numbers, 8)), committed))
}

pub(crate) fn decode_vote(row: &[u8]) -> Result<Vote, BadRow> {
    let (term, node, committed) = decode_vote_row(row)?;
    Ok(if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) })
}

pub(crate) fn encode_owner(node: NodeId) -> Vec<u8> {
    let mut row = vec![VERSION];
    row.extend_from_slice(&node.0.to_be_bytes());
    row
}

pub(crate) fn decode_owner(row: &[u8]) -> Result<NodeId, BadRow> {
    check_version(row)?;
    let node = row[1..].try_into().map_err(|_| BadRow::Malformed("owner length"))?;
    Ok(NodeId(u64::from_be_bytes(node)))
}

fn check_version(row: &[u8]) -> Result<(), BadRow> {
    match row.first() {
        None => Err(BadRow::Malformed("empty row")),
        Some(&VERSION) => Ok(()),
        Some(0) => Err(BadRow::Malformed("version 0")),
        Some(&version) => Err(BadRow::Newer(version)),
    }
}

fn be64(bytes: &[u8; 16], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(number)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::ids::Member;

    fn any_payload() -> impl Strategy<Value = Payload> {
        prop_oneof![
            Just(Payload::Blank),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Payload::Normal(types::Command(bytes.into()))),
            prop::collection::btree_set(any::<u64>(), 1..5).prop_map(|ids| {
                let voters: BTreeSet<NodeId> = ids.iter().copied().map(NodeId).collect();
                let nodes: BTreeMap<NodeId, Member> =
                    voters.iter().map(|id| (*id, Member { address: format!("{id}:1"), region: "r".into() })).collect();
                Payload::Membership(types::Membership::new(vec![voters], nodes).expect("voters are nodes"))
            }),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_reads_back(term in any::<u64>(), index in any::<u64>(), payload in any_payload()) {
            let entry = Entry { log_id: types::log_id(term, index), payload };
            let mut row = vec![0xee];
            encode_entry(&entry, &mut row);
            prop_assert_eq!(decode_entry(index, &row[1..]), Ok(entry));
        }

        #[test]
        fn one_changed_byte_of_an_entry_is_noticed(
            payload in prop::collection::vec(any::<u8>(), 1..100), at in any::<prop::sample::Index>(), flip in 1..=255u8,
        ) {
            let entry = Entry {
                log_id: types::log_id(3, 7),
                payload: Payload::Normal(types::Command(payload.into())),
            };
            let mut row = Vec::new();
            encode_entry(&entry, &mut row);
            let at = at.index(row.len());
            row[at] ^= flip;
            prop_assert!(decode_entry(7, &row).is_err());
        }

        #[test]
        fn a_vote_reads_back(term in any::<u64>(), node in any::<u64>(), committed in any::<bool>()) {
            let vote = if committed { Vote::new_committed(term, NodeId(node)) } else { Vote::new(term, NodeId(node)) };
            prop_assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
        }

        #[test]
        fn a_log_id_reads_back(term in any::<u64>(), index in any::<u64>()) {
            let id = types::log_id(term, index);
            prop_assert_eq!(decode_log_id(&encode_log_id(&id)), Ok(id));
        }

        #[test]
        fn no_bytes_make_a_decoder_panic(row in prop::collection::vec(any::<u8>(), 0..64)) {
            // Only that it returns matters here.
            let _ = (decode_entry_row(&row), decode_entry(1, &row), decode_log_id(&row), decode_vote(&row));
            let _ = (decode_owner(&row), check_entry(&row));
        }
    }

    #[test]
    fn a_newer_row_is_refused() {
        assert_eq!(decode_vote(&[2, 0, 0]), Err(BadRow::Newer(2)));
    }
}
