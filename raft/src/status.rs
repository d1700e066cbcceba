//! What a replica knows of itself.

use std::collections::BTreeMap;

use crate::ids::{GroupId, Incarnation, Member, NodeId};

/// What a replica is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads: proposals and consistent reads go here.
    Leader,
    /// It votes and follows.
    Follower,
    /// It stands for election.
    Candidate,
    /// It follows without a vote.
    Learner,
    /// It has stopped and serves nothing.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// A replica at one moment. Indexes count from 0; `None` is "nothing yet".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Which group.
    pub group: GroupId,
    /// Which making of it.
    pub incarnation: Incarnation,
    /// What the replica is doing.
    pub role: Role,
    /// The term that it is in.
    pub term: u64,
    /// Whom it follows; itself when it leads.
    pub leader: Option<NodeId>,
    /// The last entry in its log, synced or not.
    pub last_log: Option<u64>,
    /// The last entry that it knows to be committed.
    pub committed: Option<u64>,
    /// The last entry that its state contains.
    pub applied: Option<u64>,
    /// The last entry whose effect is in files of the state database.
    pub flushed: Option<u64>,
    /// The last entry that is no longer in its log.
    pub purged: Option<u64>,
    /// Who votes, with addresses. While voters change, both sets together.
    pub voters: BTreeMap<NodeId, Member>,
    /// Who follows without a vote.
    pub learners: BTreeMap<NodeId, Member>,
    /// On the leader, how far each member's log is known to agree.
    pub matched: BTreeMap<NodeId, Option<u64>>,
    /// Whether the group is idle and silent: no heartbeats, no timers.
    pub quiesced: bool,
    /// Whether consensus of the quiesced group has been taken down here, and starts when it is needed.
    pub parked: bool,
    /// On the leader, for how long it has led in this term, as far as it noticed. At the time of the call in `status`.
    pub leads_for_ms: Option<u64>,
    /// On the leader, how long ago a quorum last acknowledged it; while the group is quiesced, asked for its node. At the time of the call in `status`.
    pub quorum_ack_age_ms: Option<u64>,
}

impl GroupStatus {
    /// Of a replica that has not begun.
    pub fn new(group: GroupId) -> Self {
        Self {
            group,
            incarnation: Incarnation::default(),
            role: Role::Learner,
            term: 0,
            leader: None,
            last_log: None,
            committed: None,
            applied: None,
            flushed: None,
            purged: None,
            voters: BTreeMap::new(),
            learners: BTreeMap::new(),
            matched: BTreeMap::new(),
            quiesced: false,
            parked: false,
            leads_for_ms: None,
            quorum_ack_age_ms: None,
        }
    }

    /// Whether this replica leads.
    pub fn leads(&self) -> bool {
        self.role == Role::Leader
    }
}
