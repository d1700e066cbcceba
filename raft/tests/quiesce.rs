//! Idle groups: they fall silent, and whatever happens to them then finds them as if they had not.

mod support;

use std::time::Duration;

use postrider_raft::{GroupId, Host};
use support::{Cluster, GROUP, check_exactly_once, eventually};
use tokio::time::Instant;

const BYTES: usize = 1_000;
/// Of a group that is watched while it sleeps.
const SLEEP: Duration = Duration::from_secs(3);

async fn start() -> Cluster {
    Cluster::start_with(3, |options| options.timings.quiesce_ms = 1_000).await
}

/// The same for tests in which nobody may stand for election, also when the machine stands still for seconds.
async fn start_patient() -> Cluster {
    Cluster::start_with(3, |options| {
        options.timings.election_min_ms = 2_000;
        options.timings.election_max_ms = 2_500;
        options.timings.quiesce_ms = 2_500;
        options.timings.park_ms = 0;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_group_falls_silent_and_wakes_without_an_election() {
    let mut cluster = start_patient().await;
    for id in 0..5 {
        cluster.put(id, BYTES).await;
    }
    let term = cluster.asleep(GROUP).await;
    let leader = cluster.leads();
    // Nobody misses the heartbeats, and everybody can tell that the leader is there.
    let until = Instant::now() + SLEEP;
    while Instant::now() < until {
        for (at, node) in cluster.nodes.iter().enumerate() {
            let status = node.host().status(GROUP).expect("a status");
            assert!(status.quiesced && status.term == term, "{status:?}");
            let age = if at == leader { status.quorum_ack_age_ms } else { node.host().heard_age_ms(GROUP) };
            assert!(age.is_some_and(|age| age < 10_000), "{age:?} at {at}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.nodes[leader].host().read_barrier(GROUP).await.expect("a consistent read");
    assert!(!cluster.nodes[leader].host().status(GROUP).expect("a status").quiesced);
    cluster.asleep(GROUP).await;
    cluster.put(5, BYTES).await;
    assert_eq!(cluster.asleep(GROUP).await, term);
    check_exactly_once(&cluster.settled(GROUP).await, &(0..6).collect(), BYTES);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_used_stays_awake() {
    let mut cluster = start().await;
    let until = Instant::now() + SLEEP;
    let mut id = 0;
    while Instant::now() < until {
        cluster.put(id, BYTES).await;
        id += 1;
        let leader = cluster.leads();
        assert!(!cluster.nodes[leader].host().status(GROUP).expect("a status").quiesced);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_members_of_a_silent_group_notice_that_their_leader_is_gone() {
    let mut cluster = start().await;
    cluster.put(0, BYTES).await;
    let term = cluster.asleep(GROUP).await;
    let leader = cluster.leads();
    cluster.nodes[leader].stop().await;
    // Nothing but the silence of its node tells them.
    let new = eventually("another leader", || async {
        let hosts = cluster.nodes.iter().filter_map(|node| node.host.as_ref());
        hosts.filter_map(|host| host.status(GROUP)).find(|status| status.leads()).map(|status| status.term)
    })
    .await;
    assert!(new > term);
    cluster.put(1, BYTES).await;
    cluster.nodes[leader].start().await;
    check_exactly_once(&cluster.settled(GROUP).await, &(0..2).collect(), BYTES);
    cluster.asleep(GROUP).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaders_node_that_comes_back_in_another_life_leads_nothing() {
    let mut cluster = start().await;
    cluster.put(0, BYTES).await;
    let term = cluster.asleep(GROUP).await;
    let leader = cluster.leads();
    // Back before anybody has missed it, mostly; it has forgotten that it led.
    cluster.nodes[leader].stop().await;
    cluster.nodes[leader].start().await;
    eventually("a new term", || async {
        let hosts = cluster.nodes.iter().filter_map(|node| node.host.as_ref());
        hosts.filter_map(|host| host.status(GROUP)).any(|status| status.leads() && status.term > term).then_some(())
    })
    .await;
    cluster.put(1, BYTES).await;
    check_exactly_once(&cluster.settled(GROUP).await, &(0..2).collect(), BYTES);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_comes_back_to_a_silent_group_costs_no_election() {
    let mut cluster = start_patient().await;
    cluster.put(0, BYTES).await;
    let term = cluster.asleep(GROUP).await;
    let leader = cluster.leads();
    let follower = (leader + 1) % 3;
    cluster.nodes[follower].stop().await;
    cluster.nodes[follower].start().await;
    assert_eq!(cluster.asleep(GROUP).await, term);
    assert_eq!(cluster.leads(), leader);
    // Nor does one that stays away for long keep the others awake.
    cluster.nodes[follower].stop().await;
    cluster.put(1, BYTES).await;
    assert_eq!(cluster.asleep(GROUP).await, term);
    cluster.nodes[follower].start().await;
    check_exactly_once(&cluster.settled(GROUP).await, &(0..2).collect(), BYTES);
    assert_eq!(cluster.asleep(GROUP).await, term);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_leaders_of_a_silent_group_change() {
    let mut cluster = start().await;
    cluster.put(0, BYTES).await;
    cluster.asleep(GROUP).await;
    let leader = cluster.leads();
    let next = cluster.nodes[(leader + 1) % 3].id;
    cluster.nodes[leader].host().transfer(GROUP, next).await.expect("a transfer");
    cluster.asleep(GROUP).await;
    let leader = cluster.leads();
    assert_eq!(cluster.nodes[leader].id, next);
    let away = cluster.nodes[(leader + 1) % 3].id;
    let voters = cluster.nodes.iter().map(|node| node.id).filter(|id| *id != away).collect();
    cluster.nodes[leader].host().change_members(GROUP, voters).await.expect("a change");
    let removed = cluster.nodes.iter().position(|node| node.id == away).expect("the node");
    cluster.nodes[removed].host().remove_replica(GROUP).await.expect("a removal");
    cluster.asleep(GROUP).await;
    cluster.put(1, BYTES).await;
    check_exactly_once(&cluster.settled(GROUP).await, &(0..2).collect(), BYTES);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_groups_sleep_and_wake_by_themselves() {
    const GROUPS: u32 = 30;
    let mut cluster = start().await;
    let groups: Vec<GroupId> = (2..2 + GROUPS).map(GroupId).collect();
    for group in &groups {
        cluster.create(*group).await;
    }
    for group in &groups {
        cluster.asleep(*group).await;
    }
    // A member that agreed while a heartbeat was under way must not wake by it: nobody would speak to it.
    let until = Instant::now() + SLEEP;
    while Instant::now() < until {
        for group in &groups {
            let mut statuses = cluster.nodes.iter().map(|node| node.host().status(*group).expect("a status"));
            assert!(statuses.all(|status| status.quiesced), "{group} sleeps on");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let woken = groups[GROUPS as usize / 2];
    let leader = cluster.leader_of(woken).await;
    cluster.nodes[leader].host().propose(woken, support::command(1, BYTES)).await.expect("a proposal");
    for group in groups.iter().filter(|group| **group != woken) {
        let sleeps = |host: &Host| host.status(*group).expect("a status").quiesced;
        assert!(cluster.nodes.iter().all(|node| sleeps(node.host())), "{group} sleeps on");
    }
    cluster.asleep(woken).await;
    cluster.shutdown().await;
}
