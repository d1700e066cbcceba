//! The protobuf messages between hosts, and their translation from and to openraft's types.
//!
//! The same messages are written to disk where a row holds a membership or a snapshot's description.

#![allow(missing_docs, reason = "generated from raft.proto, which has the comments")]

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{GroupId, GroupIdentity, Incarnation, Member, NodeId};
use crate::transport::frames;
use crate::types;

include!(concat!(env!("OUT_DIR"), "/postrider.raft.v1.rs"));

/// The most that the entries of one `Append` may have together, in bytes, unless it is a single entry.
pub const APPEND_BYTES_LIMIT: usize = 4 << 20;
/// The largest message that a host accepts: an `Append` with its overhead, and small messages beside it.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Messages are gathered into one frame up to this many bytes.
pub const FRAME_BYTES_TARGET: usize = 1 << 20;

/// A message that lacks what it must have, or says what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

impl From<&types::LogId> for LogId {
    fn from(id: &types::LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<&LogId> for types::LogId {
    fn from(id: &LogId) -> Self {
        types::log_id(id.term, id.index)
    }
}

impl From<&types::Vote> for Vote {
    fn from(vote: &types::Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for.0, committed: vote.committed }
    }
}

impl From<&Vote> for types::Vote {
    fn from(vote: &Vote) -> Self {
        if vote.committed {
            Self::new_committed(vote.term, NodeId(vote.node))
        } else {
            Self::new(vote.term, NodeId(vote.node))
        }
    }
}

/// The optional log id of a message.
pub(crate) fn read_log_id(id: Option<&LogId>) -> Option<types::LogId> {
    id.map(Into::into)
}

/// The vote that a message must carry.
pub(crate) fn read_vote(vote: Option<&Vote>) -> Result<types::Vote, Malformed> {
    vote.map(Into::into).ok_or(Malformed("no vote"))
}

impl From<&types::Membership> for Membership {
    fn from(membership: &types::Membership) -> Self {
        let configs = membership
            .get_joint_config()
            .iter()
            .map(|config| Voters { nodes: config.iter().map(|node| node.0).collect() })
            .collect();
        let nodes = membership
            .nodes()
            .map(|(id, member)| Node { id: id.0, address: member.address.clone(), region: member.region.clone() })
            .collect();
        Self { configs, nodes }
    }
}

impl TryFrom<&Membership> for types::Membership {
    type Error = Malformed;

    fn try_from(membership: &Membership) -> Result<Self, Malformed> {
        let configs: Vec<BTreeSet<NodeId>> =
            membership.configs.iter().map(|config| config.nodes.iter().map(|node| NodeId(*node)).collect()).collect();
        let nodes: BTreeMap<NodeId, Member> = membership
            .nodes
            .iter()
            .map(|node| {
                let member = Member { address: node.address.clone(), region: node.region.clone() };
                (NodeId(node.id), member)
            })
            .collect();
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Self::default());
        }
        Self::new(configs, nodes).map_err(|_| Malformed("a membership without voters"))
    }
}

impl From<&types::StoredMembership> for StoredMembership {
    fn from(stored: &types::StoredMembership) -> Self {
        Self { log_id: stored.log_id().as_ref().map(Into::into), membership: Some(stored.membership().into()) }
    }
}

impl TryFrom<&StoredMembership> for types::StoredMembership {
    type Error = Malformed;

    fn try_from(stored: &StoredMembership) -> Result<Self, Malformed> {
        let membership = match &stored.membership {
            Some(membership) => membership.try_into()?,
            None => types::Membership::default(),
        };
        Ok(Self::new(read_log_id(stored.log_id.as_ref()), membership))
    }
}

impl From<&types::SnapshotMeta> for StateMeta {
    fn from(meta: &types::SnapshotMeta) -> Self {
        Self { applied: meta.last_log_id.as_ref().map(Into::into), membership: Some((&meta.last_membership).into()) }
    }
}

impl TryFrom<&StateMeta> for types::SnapshotMeta {
    type Error = Malformed;

    fn try_from(meta: &StateMeta) -> Result<Self, Malformed> {
        let last_membership = match &meta.membership {
            Some(stored) => stored.try_into()?,
            None => types::StoredMembership::default(),
        };
        Ok(Self { last_log_id: read_log_id(meta.applied.as_ref()), last_membership })
    }
}

impl From<types::Entry> for Entry {
    fn from(entry: types::Entry) -> Self {
        let body = match entry.payload {
            types::Payload::Blank => None,
            types::Payload::Normal(command) => Some(entry::Body::Command(command.0)),
            types::Payload::Membership(membership) => Some(entry::Body::Membership((&membership).into())),
        };
        Self { log_id: Some((&entry.log_id).into()), body }
    }
}

impl TryFrom<Entry> for types::Entry {
    type Error = Malformed;

    fn try_from(entry: Entry) -> Result<Self, Malformed> {
        let log_id = read_log_id(entry.log_id.as_ref()).ok_or(Malformed("an entry without log id"))?;
        let payload = match entry.body {
            None => types::Payload::Blank,
            Some(entry::Body::Command(command)) => types::Payload::Normal(types::Command(command)),
            Some(entry::Body::Membership(membership)) => types::Payload::Membership((&membership).try_into()?),
        };
        Ok(Self { log_id, payload })
    }
}

impl From<openraft::raft::AppendEntriesRequest<types::Types>> for Append {
    fn from(request: openraft::raft::AppendEntriesRequest<types::Types>) -> Self {
        Self {
            vote: Some((&request.vote).into()),
            previous: request.prev_log_id.as_ref().map(Into::into),
            entries: request.entries.into_iter().map(Into::into).collect(),
            commit: request.leader_commit.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<Append> for openraft::raft::AppendEntriesRequest<types::Types> {
    type Error = Malformed;

    fn try_from(append: Append) -> Result<Self, Malformed> {
        let first = append.previous.as_ref().map_or(0, |previous| previous.index.saturating_add(1));
        let mut entries = Vec::with_capacity(append.entries.len());
        for (expected, entry) in (first..).zip(append.entries) {
            let entry = types::Entry::try_from(entry)?;
            if entry.log_id.index != expected {
                return Err(Malformed("entries are not consecutive"));
            }
            entries.push(entry);
        }
        Ok(Self {
            vote: read_vote(append.vote.as_ref())?,
            prev_log_id: read_log_id(append.previous.as_ref()),
            entries,
            leader_commit: read_log_id(append.commit.as_ref()),
        })
    }
}

/// For fuzzing: the first byte chooses the message, the rest is one; whatever is understood is said again in the same words.
///
/// # Panics
/// When it is not: that is the finding.
pub fn fuzz_wire(data: &[u8]) {
    use openraft::raft::{AppendEntriesRequest, VoteRequest};
    use prost::Message as _;

    let Some((choice, bytes)) = data.split_first() else { return };
    match choice % 5 {
        0 => {
            let Ok(append) = Append::decode(bytes) else { return };
            let Ok(request) = AppendEntriesRequest::<types::Types>::try_from(append) else { return };
            let said = Append::from(request);
            let again = AppendEntriesRequest::<types::Types>::try_from(said.clone()).expect("our own words");
            assert_eq!(Append::from(again), said);
        }
        1 => {
            let Ok(ballot) = Ballot::decode(bytes) else { return };
            let Ok(request) = VoteRequest::<types::Types>::try_from(&ballot) else { return };
            let said = Ballot::from(&request);
            assert_eq!(Ballot::from(&VoteRequest::<types::Types>::try_from(&said).expect("our own words")), said);
        }
        2 => {
            let Ok(meta) = StateMeta::decode(bytes) else { return };
            let Ok(meta) = types::SnapshotMeta::try_from(&meta) else { return };
            let said = StateMeta::from(&meta);
            assert_eq!(StateMeta::from(&types::SnapshotMeta::try_from(&said).expect("our own words")), said);
        }
        3 => frames::fuzz::<ClientFrame>(bytes),
        _ => frames::fuzz::<ServerFrame>(bytes),
    }
}

/// For fuzzing: the first byte chooses the question or its answer, the rest is one; whatever is understood is said again in the same words.
///
/// # Panics
/// When it is not: that is the finding.
pub fn fuzz_ballots(data: &[u8]) {
    use prost::Message as _;

    let Some((choice, bytes)) = data.split_first() else { return };
    if choice % 2 == 0 {
        let Ok(ballots) = Ballots::decode(bytes) else { return };
        assert_eq!(Ballots::decode(&ballots.encode_to_vec()[..]).as_ref(), Ok(&ballots), "our own words");
        for ballot in &ballots.ballots {
            let Ok(asked) = Asked::try_from(ballot) else { continue };
            assert_eq!(Asked::try_from(&GroupBallot::from(&asked)).as_ref(), Ok(&asked), "our own words");
        }
    } else {
        let Ok(answers) = BallotsAnswer::decode(bytes) else { return };
        assert_eq!(BallotsAnswer::decode(&answers.encode_to_vec()[..]).as_ref(), Ok(&answers), "our own words");
        for answer in &answers.answers {
            // That there is a verdict counts, not which.
            let _ = read_vote(answer.vote.as_ref());
        }
    }
}

/// One group's ballot, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) group: GroupIdentity,
    pub(crate) vote: types::Vote,
    pub(crate) last_log: Option<types::LogId>,
}

impl From<&Asked> for GroupBallot {
    fn from(asked: &Asked) -> Self {
        Self {
            group: asked.group.id.0,
            incarnation: asked.group.incarnation.0,
            vote: Some((&asked.vote).into()),
            last_log: asked.last_log.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<&GroupBallot> for Asked {
    type Error = Malformed;

    fn try_from(ballot: &GroupBallot) -> Result<Self, Malformed> {
        let vote = read_vote(ballot.vote.as_ref())?;
        let group = GroupIdentity { id: GroupId(ballot.group), incarnation: Incarnation(ballot.incarnation) };
        Ok(Self { group, vote, last_log: read_log_id(ballot.last_log.as_ref()) })
    }
}

impl Append {
    /// What its entries weigh, in bytes.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.entries.iter().map(Entry::weight).sum()
    }
}

impl Entry {
    fn weight(&self) -> usize {
        match &self.body {
            Some(entry::Body::Command(command)) => command.len() + types::ENTRY_OVERHEAD_BYTES,
            Some(entry::Body::Membership(_)) | None => types::ENTRY_OVERHEAD_BYTES,
        }
    }
}

impl From<&openraft::raft::VoteRequest<types::Types>> for Ballot {
    fn from(request: &openraft::raft::VoteRequest<types::Types>) -> Self {
        Self {
            vote: Some((&request.vote).into()),
            last_log: request.last_log_id.as_ref().map(Into::into),
            transfer: request.leadership_transfer,
        }
    }
}

impl TryFrom<&Ballot> for openraft::raft::VoteRequest<types::Types> {
    type Error = Malformed;

    fn try_from(ballot: &Ballot) -> Result<Self, Malformed> {
        let vote = read_vote(ballot.vote.as_ref())?;
        let mut request = Self::new(vote, read_log_id(ballot.last_log.as_ref()));
        request.leadership_transfer = ballot.transfer;
        Ok(request)
    }
}
