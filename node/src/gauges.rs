//! What a node holds and how it is, at the moment that somebody looks at `/metrics`.

use std::path::PathBuf;
use std::time::Duration;

use postrider_raft::{GroupStatus, Role};

use crate::replicas::Replicas;

/// States of replicas, as their label.
const STATES: [&str; 5] = ["leader", "follower", "candidate", "learner", "stopped"];

/// Counted over all replicas of the node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    by_state: [u64; STATES.len()],
    /// They know of no leader.
    leaderless: u64,
    /// They lead, and no quorum has answered for a while.
    without_quorum: u64,
    /// Members of groups that are led here which lack what is committed.
    members_behind: u64,
    parked: u64,
}

impl Counted {
    fn add(&mut self, status: &GroupStatus, quorum_age_max: Duration) {
        let state = match status.role {
            Role::Leader => 0,
            Role::Follower => 1,
            Role::Candidate => 2,
            Role::Learner => 3,
            Role::Stopped { .. } => 4,
        };
        self.by_state[state] += 1;
        self.parked += u64::from(status.parked);
        match status.role {
            Role::Leader => {
                let is_cut_off =
                    status.quorum_ack_age_ms.map(Duration::from_millis).is_some_and(|age| age > quorum_age_max);
                self.without_quorum += u64::from(is_cut_off && !status.quiesced);
                let behind = status.matched.values().filter(|matched| **matched < status.committed);
                self.members_behind += behind.count() as u64;
            }
            // A group that is taken down remembers the leader that it had, or needs none.
            Role::Follower | Role::Candidate | Role::Learner => {
                self.leaderless += u64::from(status.leader.is_none() && !status.parked);
            }
            Role::Stopped { .. } => {}
        }
    }

    fn show(&self) {
        for (state, count) in STATES.iter().zip(self.by_state) {
            metrics::gauge!("postrider_node_replicas_count", "state" => *state).set(count as f64);
        }
        metrics::gauge!("postrider_node_replicas_leaderless_count").set(self.leaderless as f64);
        metrics::gauge!("postrider_node_leaders_without_quorum_count").set(self.without_quorum as f64);
        metrics::gauge!("postrider_node_members_behind_count").set(self.members_behind as f64);
        metrics::gauge!("postrider_node_replicas_parked_count").set(self.parked as f64);
    }
}

/// What they are taken from, beside the replicas.
#[derive(Debug, Clone)]
pub(crate) struct Gauges {
    /// How long ago a quorum answers a leader that has one.
    pub(crate) quorum_age_max: Duration,
    /// Where the node keeps everything.
    pub(crate) dir: PathBuf,
}

impl Gauges {
    pub(crate) fn set(&self, replicas: &Replicas) {
        let mut counted = Counted::default();
        for status in replicas.host.groups().into_iter().filter_map(|group| replicas.host.status(group)) {
            counted.add(&status, self.quorum_age_max);
        }
        counted.show();
        match rustix::fs::statvfs(&self.dir) {
            Ok(disk) => {
                // What is left to those who are not root.
                metrics::gauge!("postrider_node_disk_free_bytes").set((disk.f_bavail * disk.f_frsize) as f64);
                metrics::gauge!("postrider_node_disk_size_bytes").set((disk.f_blocks * disk.f_frsize) as f64);
            }
            Err(error) => {
                tracing::warn!(%error, dir = %self.dir.display(), "how much room the disk has cannot be found out");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use postrider_raft::{GroupId, NodeId};

    use super::*;

    fn status(role: Role) -> GroupStatus {
        GroupStatus { role, ..GroupStatus::new(GroupId(1000)) }
    }

    #[test]
    fn replicas_are_counted_by_how_they_are() {
        let mut counted = Counted::default();
        let max = Duration::from_millis(10);
        let mut leader = status(Role::Leader);
        leader.committed = Some(9);
        leader.matched = [(NodeId(1), Some(9)), (NodeId(2), Some(8)), (NodeId(3), None)].into();
        leader.quorum_ack_age_ms = Some(11);
        counted.add(&leader, max);
        counted.add(&GroupStatus { quiesced: true, ..leader }, max);
        counted.add(&status(Role::Follower), max);
        counted.add(&GroupStatus { leader: Some(NodeId(1)), ..status(Role::Follower) }, max);
        counted.add(&GroupStatus { parked: true, ..status(Role::Follower) }, max);
        counted.add(&status(Role::Stopped { reason: "a test".into() }), max);
        let expected =
            Counted { by_state: [2, 3, 0, 0, 1], leaderless: 1, without_quorum: 1, members_behind: 4, parked: 1 };
        assert_eq!(counted, expected);
    }
}
