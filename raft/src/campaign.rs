//! Who stands for election when a leader falls silent.
//!
//! openraft's followers stand after the lease plus a random time. Over long links two of them often stand at once and
//! split the vote, and every such round costs the better part of a second. Here one timer for all groups ranks the
//! voters of each group and lets the first-ranked one stand as soon as the lease has run out, the next one a step
//! later, and so on. openraft's own timer stays on behind this, in case the ranks do not help. When a node is lost, those of its
//! groups that were in use last come first; parked ones stand many at once ([`crate::election`]).
//!
//! The other way round, a leader whose disk hangs gives way: its heartbeats need no disk, so its followers would stay
//! loyal to a leader that can commit nothing.

use std::cmp::Reverse;
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use crate::election::BALLOTS_MAX;
use crate::election::candidate::{self, Results};
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

/// Running replicas that begin to stand in one look. Their messages share frames and their votes share syncs as it is; more at once
/// would keep what is in use waiting.
const STAND_AT_ONCE_MAX: usize = 256;
/// Replicas whose consensus one look starts so that they can stand.
const START_AT_ONCE_MAX: usize = 64;
/// Whoever stood before others had noticed that the leader is gone asks them again after this.
const EARLY_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Whoever stood too early so often is cut off from a leader that others hear: then it asks once in a silence.
const EARLY_MAX: u32 = 8;

pub(crate) async fn run(inner: Weak<Inner>, closing: Arc<Closing>) {
    while closing.pause(LOOK_EVERY).await {
        let Some(host) = inner.upgrade() else { return };
        // Samples the clocks often enough that slow drift does not look like a jump.
        host.clock.trusted();
        let replicas: Vec<Arc<Replica>> = host.replicas.read().values().cloned().collect();
        let stalled = host.log.writer.stalled() >= DISK_STALL_MAX;
        let (mut awake, mut parked) = (Vec::new(), Vec::new());
        for replica in replicas {
            let Some(instance) = replica.instance() else {
                if is_parked_ones_turn(&host, &replica, stalled) {
                    parked.push(replica);
                }
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
            if !stalled && !replica.is_quiesced() && is_running_ones_turn(&host, &replica, &instance) {
                awake.push((replica, instance));
            }
        }
        // Whoever was in use last is missed most. The others' turn comes with the next looks.
        awake.sort_unstable_by_key(|(replica, _)| Reverse(replica.last_heard()));
        for (replica, instance) in awake.into_iter().take(STAND_AT_ONCE_MAX) {
            stand(&replica, &instance).await;
        }
        parked.sort_unstable_by_key(|replica| Reverse(replica.last_heard()));
        stand_parked(&host, parked);
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

fn is_running_ones_turn(inner: &Inner, replica: &Replica, instance: &Instance) -> bool {
    if !instance.probation.over(Instant::now()) {
        return false;
    }
    instance.raft.runtime_config().elect(!replica.is_held());
    let may_stand = || {
        let state = instance.raft.metrics().borrow_watched().state;
        matches!(state, ServerState::Follower | ServerState::Candidate)
    };
    is_its_turn(inner, replica, may_stand)
}

fn is_parked_ones_turn(inner: &Inner, replica: &Replica, stalled: bool) -> bool {
    if replica.parked().is_none() {
        return false;
    }
    if stalled {
        // It could not write what a leader has to, nor even start.
        if replica.leads_quiesced() {
            tracing::warn!(group = %replica.group, "the disk of the log does not answer; letting go of the lead");
            metrics::counter!("postrider_raft_leads_given_up_total").increment(1);
            replica.let_go(inner);
        }
        return false;
    }
    !replica.is_quiesced() && is_its_turn(inner, replica, || true)
}

/// Parked replicas stand as they are, many at once, if their peers know how to vote like that; otherwise their consensus starts first.
fn stand_parked(inner: &Arc<Inner>, replicas: Vec<Arc<Replica>>) {
    if replicas.is_empty() {
        return;
    }
    let is_known =
        |replica: &Arc<Replica>| replica.status().voters.keys().all(|voter| !inner.elections.is_unknown_to(*voter));
    let (mut asleep, mut started): (Vec<_>, Vec<_>) = replicas.into_iter().partition(is_known);
    started.truncate(START_AT_ONCE_MAX);
    start_and_stand(inner, started);
    if asleep.is_empty() {
        return;
    }
    let Some(room) = inner.elections.begin() else { return };
    asleep.truncate(BALLOTS_MAX);
    // Before anything else, so that the next look does not find them waiting still.
    asleep.iter().for_each(|replica| replica.wait_again());
    metrics::counter!("postrider_raft_campaigns_total").increment(asleep.len() as u64);
    let inner = inner.clone();
    tokio::spawn(async move {
        let Results { early, consensus } = candidate::stand(inner.clone(), asleep, room).await;
        let patience = inner.options.timings.lease() + MARGIN;
        for replica in early.into_iter().filter(|replica| replica.note_early() < EARLY_MAX) {
            replica.wait_since((Instant::now() + EARLY_AGAIN_AFTER).checked_sub(patience).unwrap_or_else(Instant::now));
        }
        start_and_stand(&inner, consensus);
    });
}

fn start_and_stand(inner: &Arc<Inner>, replicas: Vec<Arc<Replica>>) {
    for replica in replicas {
        // Before anything else, so that the next look does not find it waiting still.
        replica.wait_again();
        let inner = inner.clone();
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
    let is_silent = |voter: NodeId| inner.quiescence.is_silent(voter, timings.lease());
    rank(inner.options.node, &replica.status(), is_silent).is_some_and(|rank| silent >= lease + step * rank)
}

/// Where this voter stands in line. The line begins at another voter in each group, so that one node's groups do not all
/// go to the same neighbour; the leader that fell silent is not in it, and whose nodes are silent as well come last.
fn rank(node: NodeId, status: &GroupStatus, is_silent: impl Fn(NodeId) -> bool) -> Option<u32> {
    let leader = status.leader.filter(|leader| *leader != node);
    let mut line: Vec<NodeId> = status.voters.keys().copied().filter(|voter| Some(*voter) != leader).collect();
    let first = status.group.0 as usize % line.len().max(1);
    line.rotate_left(first);
    line.sort_by_key(|voter| *voter != node && is_silent(*voter));
    line.iter().position(|voter| *voter == node).and_then(|place| u32::try_from(place).ok())
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

    fn nobody(_: NodeId) -> bool {
        false
    }

    #[test]
    fn whoever_is_silent_as_well_comes_last() {
        let mut status = status(0, Some(1));
        status.voters.extend([(NodeId(4), Member::default()), (NodeId(5), Member::default())]);
        for group in 0..8 {
            status.group = GroupId(group);
            let is_silent = |voter: NodeId| voter == NodeId(3);
            let ranks: Vec<_> = [2, 4, 5].iter().map(|id| rank(NodeId(*id), &status, is_silent)).collect();
            let mut sorted = ranks.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [Some(0), Some(1), Some(2)], "{ranks:?}");
        }
    }

    #[test]
    fn every_voter_but_the_silent_leader_has_a_rank_of_its_own() {
        for group in 0..5 {
            for leader in 1..=3 {
                let status = status(group, Some(leader));
                let mut ranks: Vec<_> = (1..=3)
                    .filter(|id| *id != leader)
                    .map(|id| rank(NodeId(id), &status, nobody).expect("a voter"))
                    .collect();
                ranks.sort_unstable();
                assert_eq!(ranks, [0, 1]);
            }
        }
    }

    #[test]
    fn groups_begin_their_lines_with_different_voters() {
        let first = |group| (1..=3).find(|id| rank(NodeId(*id), &status(group, None), nobody) == Some(0));
        assert_ne!(first(0), first(1));
    }

    #[test]
    fn who_does_not_vote_does_not_stand() {
        assert_eq!(rank(NodeId(9), &status(0, None), nobody), None);
    }
}
