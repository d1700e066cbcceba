//! Who stands for election when a leader falls silent.
//!
//! openraft's followers stand after the lease plus a random time. Over long links two of them often stand at once and
//! split the vote, and every such round costs the better part of a second. Here one timer for all groups ranks the
//! voters of each group and lets the first-ranked one stand as soon as the lease has run out, the next one a step
//! later, and so on. openraft's own timer stays on behind this, in case the ranks do not help.
//!
//! The other way round, a leader whose disk hangs gives way: its heartbeats need no disk, so its followers would stay
//! loyal to a leader that can commit nothing.

use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use crate::host::{Closing, Inner};
use crate::ids::NodeId;
use crate::replica::{Instance, Replica};
use crate::status::GroupStatus;

/// How often the groups are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A node whose log's disk has not answered for this long gives up its leaderships. Less than what a proposal waits, more
/// than a busy disk takes.
const DISK_STALL_MAX: Duration = Duration::from_secs(3);
/// How long a voter waits after the lease, so that it has run out everywhere.
const MARGIN: Duration = Duration::from_millis(30);

pub(crate) async fn run(inner: Weak<Inner>, closing: Arc<Closing>) {
    while closing.pause(LOOK_EVERY).await {
        let Some(host) = inner.upgrade() else { return };
        // Samples the clocks often enough that slow drift does not look like a jump.
        host.clock.trusted();
        let replicas: Vec<Arc<Replica>> = host.replicas.read().values().cloned().collect();
        let stalled = host.log.writer.stalled() >= DISK_STALL_MAX;
        for replica in replicas {
            let Some(instance) = replica.instance() else {
                look_parked(&host, &replica, stalled);
                continue;
            };
            if stalled {
                // Whoever leads has to know that it does, to give up the lead.
                if !replica.wake(&host, &instance) {
                    continue;
                }
            } else if replica.is_quiesced() && !replica.gives_way() {
                continue;
            }
            let gives_way = stalled && has_others(&host, &instance);
            if gives_way != replica.give_way(gives_way) {
                give_way(&host, &replica, &instance, gives_way);
                replica.refresh();
            }
            if !stalled && !replica.is_quiesced() {
                look(&host, &replica, &instance).await;
            }
        }
    }
}

/// Whether anybody else could lead.
fn has_others(inner: &Inner, instance: &Instance) -> bool {
    let metrics = instance.raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.voter_ids().any(|voter| voter != inner.options.node)
}

/// Falls silent as a leader, and hands over to the follower that has most; or speaks again.
fn give_way(inner: &Inner, replica: &Replica, instance: &Instance, stalled: bool) {
    instance.raft.runtime_config().heartbeat(!stalled);
    let metrics = instance.raft.metrics();
    let metrics = metrics.borrow_watched();
    if !stalled || metrics.state != ServerState::Leader {
        return;
    }
    let node = inner.options.node;
    let followers = metrics.replication.iter().flatten().filter(|(follower, _)| **follower != node);
    let Some((to, _)) = followers.max_by_key(|(_, matched)| **matched) else { return };
    tracing::warn!(group = %replica.group, %to, "the disk of the log does not answer; giving up the lead");
    metrics::counter!("postrider_raft_leads_given_up_total").increment(1);
    let (to, trigger) = (*to, instance.raft.clone());
    // Not awaited: a replica that hangs must not keep the others from giving way. One that has stopped leads no more.
    tokio::spawn(async move { drop(trigger.trigger().transfer_leader(to).await) });
}

async fn look(inner: &Inner, replica: &Replica, instance: &Instance) {
    if !instance.probation.over(Instant::now()) {
        return;
    }
    instance.raft.runtime_config().elect(!replica.is_held());
    let may_stand = || {
        let state = instance.raft.metrics().borrow_watched().state;
        matches!(state, ServerState::Follower | ServerState::Candidate)
    };
    if is_its_turn(inner, replica, may_stand) {
        stand(replica, instance).await;
    }
}

/// Consensus of a parked replica starts only when the replica is to stand: a node that is lost leaves thousands of them, and most
/// have somebody else before them in line.
fn look_parked(inner: &Arc<Inner>, replica: &Arc<Replica>, stalled: bool) {
    if replica.parked().is_none() {
        return;
    }
    if stalled {
        // It could not write what a leader has to, nor even start.
        if replica.leads_quiesced() {
            tracing::warn!(group = %replica.group, "the disk of the log does not answer; letting go of the lead");
            metrics::counter!("postrider_raft_leads_given_up_total").increment(1);
            replica.let_go(inner);
        }
    } else if !replica.is_quiesced() && is_its_turn(inner, replica, || true) {
        // Before anything else, so that the next look does not find it waiting still.
        replica.wait_again();
        let (inner, replica) = (inner.clone(), replica.clone());
        tokio::spawn(async move {
            // A replica that does not start says so itself.
            if let Ok(instance) = inner.instance(&replica).await {
                stand(&replica, &instance).await;
            }
        });
    }
}

/// Whether nobody has led for long enough that this replica stands.
fn is_its_turn(inner: &Inner, replica: &Replica, may_stand: impl FnOnce() -> bool) -> bool {
    let timings = &inner.options.timings;
    let lease = timings.lease() + MARGIN;
    let silent = replica.waits_since().elapsed();
    if silent < lease || !may_stand() {
        return false;
    }
    let step = Duration::from_millis(timings.campaign_step_ms);
    rank(inner.options.node, &replica.status()).is_some_and(|rank| silent >= lease + step * rank)
}

/// Where this voter stands in line. The line begins at another voter in each group, so that one node's groups do not all
/// go to the same neighbour; the leader that fell silent is not in it.
fn rank(node: NodeId, status: &GroupStatus) -> Option<u32> {
    let silent = status.leader.filter(|leader| *leader != node);
    let line: Vec<NodeId> = status.voters.keys().copied().filter(|voter| Some(*voter) != silent).collect();
    let place = line.iter().position(|voter| *voter == node)?;
    let first = status.group.0 as usize % line.len();
    u32::try_from((place + line.len() - first) % line.len()).ok()
}

async fn stand(replica: &Replica, instance: &Instance) {
    // The next attempt is a whole silence away, if this one leads nowhere.
    replica.wait_again();
    tracing::info!(group = %replica.group, "the leader is silent; standing for election");
    metrics::counter!("postrider_raft_campaigns_total").increment(1);
    // A replica that has stopped meanwhile has nothing to stand for.
    drop(instance.raft.trigger().elect(true).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GroupId, Member};

    fn status(group: u32, leader: Option<u64>) -> GroupStatus {
        let mut status = GroupStatus::new(GroupId(group));
        status.leader = leader.map(NodeId);
        status.voters = (1..=3).map(|id| (NodeId(id), Member::default())).collect();
        status
    }

    #[test]
    fn every_voter_but_the_silent_leader_has_a_rank_of_its_own() {
        for group in 0..5 {
            for leader in 1..=3 {
                let status = status(group, Some(leader));
                let mut ranks: Vec<_> =
                    (1..=3).filter(|id| *id != leader).map(|id| rank(NodeId(id), &status).expect("a voter")).collect();
                ranks.sort_unstable();
                assert_eq!(ranks, [0, 1]);
            }
        }
    }

    #[test]
    fn groups_begin_their_lines_with_different_voters() {
        let first = |group| (1..=3).find(|id| rank(NodeId(*id), &status(group, None)) == Some(0));
        assert_ne!(first(0), first(1));
    }

    #[test]
    fn who_does_not_vote_does_not_stand() {
        assert_eq!(rank(NodeId(9), &status(0, None)), None);
    }
}
