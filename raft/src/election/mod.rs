//! Elections by the hundred: when a node is lost, the groups that it led and whose replicas are parked ([`crate::park`]) elect without
//! starting any consensus.
//!
//! A node that is lost leaves thousands of silent groups. To elect, openraft would start an instance on each of their replicas, which
//! reads the log and the state, and then exchange messages and syncs one group at a time; that costs more than everything else that the
//! survivors have to do then. But a parked replica is no more than a vote and where its log ends, and Raft asks for no more in an
//! election ([`rules`]). So the [`candidate`] asks its peers for the votes of many groups in one frame ([`crate::wire::Ballots`]), first
//! whether they would be given; each [`voter`] writes those that it gives with one sync and answers in one frame; and who has won is told in a
//! third. The groups sleep on, under their new leaders. Consensus of each starts when somebody uses it, as the leader's that it is: with
//! the blank entry with which a term begins, and without serving anything before a quorum has answered.
//!
//! A peer of a build that does not know the frame says so. Groups that need its vote start consensus, and openraft elects.
//!
//! Invariant: a vote is on disk before anybody is told of it, and while it is written nobody starts consensus of the replica.
//! Invariant: a replica that follows a leader whose node has answered within a lease gives no vote, and neither does one that has heard its
//! leader itself within a lease. A replica whose consensus runs is asked as by openraft, which keeps its own leases.

pub(crate) mod candidate;
pub(crate) mod rules;
pub(crate) mod voter;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::ids::NodeId;

/// Groups in one frame. One has about fifty bytes.
pub(crate) const BALLOTS_MAX: usize = 1_024;
/// Frames of candidacies that a node has under way, so that what is in use goes on: the next groups wait for these.
const BATCHES_MAX: usize = 2;
/// A peer that does not know the frame is asked again after this time: it may have been upgraded.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// What a node knows of elections beyond each group.
pub(crate) struct Elections {
    room: Arc<Semaphore>,
    /// Peers that did not know the frame, and when.
    unknown: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Elections {
    pub(crate) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(BATCHES_MAX)), unknown: Mutex::default() }
    }

    /// The right to stand for one more batch; none while enough are under way.
    pub(crate) fn begin(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    /// Whether a peer has lately not known the frame.
    pub(crate) fn is_unknown_to(&self, peer: NodeId) -> bool {
        self.unknown.lock().get(&peer).is_some_and(|since| since.elapsed() < UNKNOWN_FOR)
    }

    fn note_unknown(&self, peer: NodeId) {
        self.unknown.lock().insert(peer, Instant::now());
    }
}
