//! What openraft is instantiated with.
//!
//! One leader per term (`leader_id_std`), so that a term alone names its leader and can fence what lives in the
//! leader's memory.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use serde::{Deserialize, Serialize};

use crate::ids::{Member, NodeId};
use crate::state::machine::StateAdapter;

/// A proposal: bytes whose meaning only the group's machine knows.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the machine answered to a proposal.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Reply(pub(crate) Bytes);

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Command,
        R = Reply,
        NodeId = NodeId,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<u64, NodeId>,
);

pub(crate) type Term = <leader_id_std::LeaderId<u64, NodeId> as openraft::vote::RaftLeaderId>::Committed;
pub(crate) type LogId = openraft::LogId<Term>;
pub(crate) type Vote = openraft::impls::Vote<leader_id_std::LeaderId<u64, NodeId>>;
pub(crate) type Payload = openraft::EntryPayload<Command, NodeId, Member>;
pub(crate) type Entry = openraft::Entry<Term, Payload>;
pub(crate) type Membership = openraft::Membership<NodeId, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<Term, NodeId, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<Term, NodeId, Member>;
pub(crate) type Raft = openraft::Raft<Types, StateAdapter>;

/// A log id of `term` at `index`.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(Term::new(term), index)
}

/// The index after `log_id`: where the next entry goes.
pub(crate) fn next_index(log_id: Option<&LogId>) -> u64 {
    log_id.map_or(0, |id| id.index + 1)
}

/// What an entry costs beside its payload, in memory, on the wire and in the log, roughly.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = 64;

/// What an entry counts for wherever entries are bounded in bytes.
pub(crate) fn weight(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        Payload::Normal(command) => command.0.len(),
        Payload::Blank | Payload::Membership(_) => 0,
    };
    payload + ENTRY_OVERHEAD_BYTES
}
