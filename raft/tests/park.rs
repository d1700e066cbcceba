//! Groups that have been silent for long: consensus of their replicas is taken down, and whoever needs it finds it as it was.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider_raft::{FaultPoint, Faults, GroupId, HostOptions, Injected, ProposeError};
use support::{Cluster, GROUP, MADE, check_exactly_once, command, eventually};
use tokio::time::Instant;

const BYTES: usize = 1_000;

/// Nobody stands for election, also when the machine stands still for a second.
fn patient(options: &mut HostOptions) {
    options.timings.election_min_ms = 1_500;
    options.timings.election_max_ms = 2_000;
    options.timings.quiesce_ms = 2_000;
    options.timings.park_ms = 6_000;
}

/// Whoever is gone is missed soon.
fn hasty(options: &mut HostOptions) {
    options.timings.heartbeat_ms = 100;
    options.timings.election_min_ms = 200;
    options.timings.election_max_ms = 400;
    options.timings.quiesce_ms = 500;
    options.timings.park_ms = 1_200;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_group_is_used_as_if_it_were_not_and_keeps_its_leader() {
    let mut cluster = Cluster::start_with(3, patient).await;
    for id in 0..5 {
        cluster.put(id, BYTES).await;
    }
    let term = cluster.parked(GROUP).await;
    let leader = cluster.leads();
    for (at, status) in cluster.statuses(GROUP).into_iter().enumerate() {
        assert_eq!((status.leads(), status.leader), (at == leader, Some(cluster.nodes[leader].id)), "{status:?}");
        assert!(status.applied == status.last_log && status.committed == status.last_log, "{status:?}");
        let host = cluster.nodes[at].host();
        let age = if at == leader { status.quorum_ack_age_ms } else { host.heard_age_ms(GROUP) };
        assert!(age.is_some_and(|age| age < 10_000), "{age:?} at {at}");
        assert_eq!(status.leads_for_ms.is_some(), at == leader, "{status:?}");
    }
    let led_ms = cluster.statuses(GROUP)[leader].leads_for_ms;
    assert!(led_ms.is_some_and(|led_ms| led_ms >= 6_000), "it led before it was parked, and leads since: {led_ms:?}");

    // The first use is answered, whatever it is, and by whom it was before.
    cluster.nodes[leader].host().read_barrier(GROUP).await.expect("a consistent read");
    let awake = cluster.nodes[leader].host().status(GROUP).expect("a status");
    assert!(!awake.parked && !awake.quiesced && awake.term == term, "{awake:?}");
    assert!(awake.leads_for_ms >= led_ms, "its lead goes on: {awake:?}");
    assert_eq!(cluster.parked(GROUP).await, term);
    cluster.nodes[leader].host().propose(GROUP, command(5, BYTES)).await.expect("a proposal");
    let follower = cluster.nodes[(leader + 1) % 3].host();
    eventually("the entry at a follower", || async {
        let status = follower.status(GROUP)?;
        (status.applied == cluster.nodes[leader].host().status(GROUP)?.applied).then_some(())
    })
    .await;
    assert_eq!(cluster.parked(GROUP).await, term);

    // A proposal in the wrong place hears where the right one is, and wakes nobody.
    let elsewhere = cluster.nodes[(leader + 2) % 3].host().propose(GROUP, command(9, BYTES)).await;
    assert_eq!(elsewhere, Err(ProposeError::NotLeader { leader: Some(cluster.nodes[leader].id) }));
    assert!(cluster.statuses(GROUP).iter().all(|status| status.parked));

    check_exactly_once(&cluster.settled(GROUP).await, &(0..6).collect(), BYTES);
    assert_eq!(cluster.parked(GROUP).await, term);
    assert_eq!(cluster.leads(), leader);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_used_in_the_moment_it_is_parked_loses_nothing() {
    const USES: u64 = 40;
    let mut cluster = Cluster::start_with(3, patient).await;
    let groups: Vec<GroupId> = (2..10).map(GroupId).collect();
    for group in &groups {
        cluster.create(*group).await;
    }
    // All of them again and again, each time when some are parked, some are being parked, and some are not yet.
    let mut parked_before = 0;
    for id in 0..USES {
        for group in &groups {
            let leader = cluster.leader_of(*group).await;
            let host = cluster.nodes[leader].host();
            host.propose(*group, command(id, BYTES)).await.expect("an acknowledgement");
        }
        let is_one_parked = || async {
            let parked =
                groups.iter().flat_map(|group| cluster.statuses(*group)).filter(|status| status.parked).count();
            (parked > 0).then_some(parked)
        };
        if id % 10 == 0 {
            parked_before += eventually("a parked replica", is_one_parked).await;
        }
    }
    assert!(parked_before > 0);
    for group in &groups {
        check_exactly_once(&cluster.settled(*group).await, &(0..USES).collect(), BYTES);
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_members_of_a_parked_group_elect_when_their_leaders_node_is_gone() {
    let mut cluster = Cluster::start_with(3, hasty).await;
    let mut expected = BTreeSet::new();
    for id in 0..3 {
        cluster.put(id, BYTES).await;
        expected.insert(id);
        let term = cluster.parked(GROUP).await;
        let leader = cluster.leads();
        cluster.nodes[leader].stop().await;
        let new = eventually("another leader", || async {
            cluster.statuses(GROUP).into_iter().find(|status| status.leads()).map(|status| status.term)
        })
        .await;
        assert!(new > term);
        cluster.nodes[leader].start().await;
    }
    check_exactly_once(&cluster.settled(GROUP).await, &expected, BYTES);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_to_a_parked_group_costs_no_election() {
    let mut cluster = Cluster::start_with(3, patient).await;
    cluster.put(0, BYTES).await;
    let term = cluster.parked(GROUP).await;
    let leader = cluster.leads();
    let follower = (leader + 1) % 3;
    cluster.nodes[follower].stop().await;
    cluster.nodes[follower].start().await;
    // It hears nobody, and asks for votes that nobody gives.
    assert_eq!(cluster.parked(GROUP).await, term);
    assert_eq!(cluster.leads(), leader);
    // One that was away for long finds what it lacks.
    cluster.nodes[follower].stop().await;
    for id in 1..5 {
        cluster.put(id, BYTES).await;
    }
    let other = (leader + 2) % 3;
    eventually("a parked follower", || async {
        cluster.nodes[other].host().status(GROUP).filter(|status| status.parked)
    })
    .await;
    assert!(!cluster.nodes[leader].host().status(GROUP).expect("a status").parked, "it has to bring something yet");
    cluster.nodes[follower].start().await;
    check_exactly_once(&cluster.settled(GROUP).await, &(0..5).collect(), BYTES);
    assert_eq!(cluster.parked(GROUP).await, term);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_leaders_of_a_parked_group_change() {
    let mut cluster = Cluster::start_with(3, hasty).await;
    cluster.put(0, BYTES).await;
    cluster.parked(GROUP).await;
    let leader = cluster.leads();
    let next = cluster.nodes[(leader + 1) % 3].id;
    cluster.nodes[leader].host().transfer(GROUP, next).await.expect("a transfer");
    cluster.parked(GROUP).await;
    let leader = cluster.leads();
    let away = cluster.nodes[(leader + 1) % 3].id;
    let voters = cluster.nodes.iter().map(|node| node.id).filter(|id| *id != away).collect();
    cluster.nodes[leader].host().change_members(GROUP, voters).await.expect("a change");
    let removed = cluster.nodes.iter().position(|node| node.id == away).expect("the node");
    cluster.nodes[removed].host().remove_replica(GROUP).await.expect("a removal");
    assert!(cluster.nodes[removed].host().status(GROUP).is_none());
    cluster.parked(GROUP).await;
    cluster.put(1, BYTES).await;
    check_exactly_once(&cluster.settled(GROUP).await, &(0..2).collect(), BYTES);
    // A replica that is parked is removed, too.
    let other = GroupId(2);
    let others = [leader, (leader + 2) % 3];
    for at in others {
        cluster.nodes[at].host().open_replica(other, MADE).await.expect("a replica");
    }
    let members = others.map(|at| (cluster.nodes[at].id, cluster.member(at))).into();
    cluster.nodes[leader].host().create_group(other, MADE, members).await.expect("a group");
    cluster.parked(other).await;
    cluster.nodes[leader].host().remove_replica(other).await.expect("a removal");
    // A host whose replicas are parked closes, and opens with all that it had.
    cluster.parked(GROUP).await;
    for node in &mut cluster.nodes {
        node.stop().await;
        node.start().await;
    }
    cluster.put(2, BYTES).await;
    check_exactly_once(&cluster.settled(GROUP).await, &(0..3).collect(), BYTES);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_parked_replica_is_purged_and_a_leader_is_parked_once_its_own_is_short() {
    const COMMANDS: u64 = 200;
    const KEEP: u64 = 20;
    let mut cluster = Cluster::start_with(3, |options| {
        patient(options);
        options.limits.keep_entries = KEEP;
    })
    .await;
    for id in 0..COMMANDS {
        cluster.put(id, BYTES).await;
    }
    let leader = eventually("parked followers", || async {
        let (leads, follow): (Vec<_>, Vec<_>) = (0..3)
            .filter_map(|at| Some((at, cluster.nodes[at].host().status(GROUP)?)))
            .partition(|(_, status)| status.leads());
        (leads.len() == 1 && follow.iter().all(|(_, status)| status.parked)).then(|| leads[0].0)
    })
    .await;
    let before = cluster.nodes[leader].host().status(GROUP).expect("a status");
    assert!(!before.parked && before.quiesced, "its log is long: {before:?}");
    for (at, node) in cluster.nodes.iter().enumerate() {
        node.host().flush().await.expect("a flush");
        let after = node.host().status(GROUP).expect("a status");
        assert!(after.quiesced, "a flush wakes nobody");
        // Another leader may have to bring somebody what a follower keeps.
        let kept = if at == leader { 1 } else { KEEP };
        assert_eq!(
            (after.flushed, after.purged),
            (after.last_log, after.last_log.map(|last| last - kept)),
            "{after:?}"
        );
    }
    let term = cluster.parked(GROUP).await;
    assert_eq!((term, cluster.leads()), (before.term, leader));
    // It starts from what is left, and so does a process; nobody is sent a snapshot for that.
    cluster.put(COMMANDS, BYTES).await;
    assert_eq!(cluster.parked(GROUP).await, term);
    for node in &mut cluster.nodes {
        node.stop().await;
        node.start().await;
    }
    cluster.put(COMMANDS + 1, BYTES).await;
    check_exactly_once(&cluster.settled(GROUP).await, &(0..COMMANDS + 2).collect(), BYTES);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_learner_is_gone_stays_awake_for_it() {
    let mut cluster = Cluster::start_with(3, hasty).await;
    let at = cluster.add_node().await;
    let learner = cluster.nodes[at].id;
    cluster.nodes[at].host().open_replica(GROUP, MADE).await.expect("a replica");
    let leader = cluster.leader().await;
    cluster.nodes[leader].host().add_learner(GROUP, learner, cluster.member(at)).await.expect("a learner");
    cluster.put(0, BYTES).await;
    cluster.nodes[at].stop().await;
    cluster.put(1, BYTES).await;
    // For longer than it takes to fall silent and be parked without a voter.
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        assert!(cluster.statuses(GROUP).iter().all(|status| !status.quiesced));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.nodes[at].start().await;
    // It asks for nothing, and is brought what it lacks.
    eventually("the learner's state", || async {
        let status = cluster.nodes[at].host().status(GROUP)?;
        (support::rows(&cluster.nodes[at].host().state(), GROUP).len() == 2 && status.leader.is_some()).then_some(())
    })
    .await;
    cluster.parked(GROUP).await;
    cluster.shutdown().await;
}

/// A disk that does not answer while it is told so.
#[derive(Default)]
struct Hanging {
    hangs: AtomicBool,
}

impl Faults for Hanging {
    fn reach(&self, point: FaultPoint) -> Result<(), Injected> {
        while point == FaultPoint::LogBeforeWrite && self.hangs.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_leader_whose_disk_hangs_lets_go() {
    let disks: Vec<Arc<Hanging>> = (0..3).map(|_| Arc::default()).collect();
    let theirs = disks.clone();
    let mut cluster = Cluster::start_with(3, move |options| {
        hasty(options);
        options.faults = theirs[usize::try_from(options.node.0).expect("small") - 1].clone();
    })
    .await;
    // Another group of the node writes to the disk, and finds that it hangs.
    let other = GroupId(2);
    cluster.create(other).await;
    cluster.put(0, BYTES).await;
    let term = cluster.parked(GROUP).await;
    cluster.parked(other).await;
    let leader = cluster.leads();
    disks[leader].hangs.store(true, Ordering::Relaxed);
    let host = cluster.nodes[leader].host().clone();
    let stuck = tokio::spawn(async move { host.propose(other, command(1, BYTES)).await });
    let new = eventually("another leader", || async {
        let others = (0..3).filter(|at| *at != leader);
        let mut statuses = others.filter_map(|at| cluster.nodes[at].host().status(GROUP));
        statuses.find(|status| status.leads()).map(|status| status.term)
    })
    .await;
    assert!(new > term);
    let mine = cluster.nodes[leader].host().status(GROUP).expect("a status");
    assert!(!mine.leads(), "{mine:?}");
    drop(stuck.await.expect("the proposer"));
    // The group takes commands without it, and with it once its disk is well.
    let leads_now = eventually("another leader", || async {
        (0..3).find(|at| *at != leader && cluster.nodes[*at].host().status(GROUP).is_some_and(|status| status.leads()))
    })
    .await;
    cluster.nodes[leads_now].host().propose(GROUP, command(1, BYTES)).await.expect("a proposal");
    disks[leader].hangs.store(false, Ordering::Relaxed);
    check_exactly_once(&cluster.settled(GROUP).await, &(0..2).collect(), BYTES);
    cluster.parked(GROUP).await;
    cluster.shutdown().await;
}
