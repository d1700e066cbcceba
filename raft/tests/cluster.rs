//! Three hosts, one group: proposals, reads, leaders that go away and come back.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_raft::{GroupId, Host, HostOptions, MemberError, NodeId, ProposeError, ReadError, Role};
use support::{Cluster, GROUP, Ledgers, check_exactly_once, command, eventually, rows};
use tokio::time::Instant;

const BYTES: usize = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_is_applied_everywhere_and_read_back() {
    let mut cluster = Cluster::start(3).await;
    for id in 0..50 {
        assert_eq!(cluster.put(id, BYTES).await, id + 1);
    }
    let leader = cluster.leader().await;
    let host = cluster.nodes[leader].host();
    let applied = host.read_barrier(GROUP).await.expect("a consistent read");
    assert_eq!(rows(&host.state(), GROUP).len(), 50);
    assert!(host.status(GROUP).expect("a status").applied >= Some(applied));
    let rows = cluster.settled(GROUP).await;
    check_exactly_once(&rows, &(0..50).collect(), BYTES);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_refuses_and_names_the_leader() {
    let mut cluster = Cluster::start(3).await;
    // A machine that stands still for a second may change its leader in between.
    let host = eventually("a follower that knows its leader", || async {
        let leader = cluster.leader().await;
        let named = Some(cluster.nodes[leader].id);
        let host = cluster.nodes[(leader + 1) % 3].host();
        let proposed = host.propose(GROUP, command(1, 10)).await;
        let read = host.read_barrier(GROUP).await;
        let names = proposed == Err(ProposeError::NotLeader { leader: named })
            && read == Err(ReadError::NotLeader { leader: named });
        names.then_some(host)
    })
    .await;
    assert_eq!(host.propose(GroupId(9), Bytes::new()).await, Err(ProposeError::UnknownGroup));
    assert_eq!(host.read_barrier(GroupId(9)).await, Err(ReadError::UnknownGroup));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_before_it_is_written() {
    let mut cluster = Cluster::start(1).await;
    let host = cluster.nodes[0].host();
    let max = 1 << 20;
    assert_eq!(host.propose(GROUP, command(1, max + 1)).await, Err(ProposeError::TooLarge { max }));
    host.propose(GROUP, command(1, max)).await.expect("just as large as allowed");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_commands_reach_the_followers() {
    let mut cluster = Cluster::start(3).await;
    for id in 0..12 {
        cluster.put(id, 1 << 20).await;
    }
    let rows = cluster.settled(GROUP).await;
    check_exactly_once(&rows, &(0..12).collect(), 1 << 20);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_dies_another_takes_over_and_the_dead_one_catches_up() {
    let mut cluster = Cluster::start(3).await;
    for id in 0..20 {
        cluster.put(id, BYTES).await;
    }
    let dead = cluster.leader().await;
    cluster.nodes[dead].stop().await;
    let since = Instant::now();
    cluster.put(20, BYTES).await;
    println!("writes went on after {:?}", since.elapsed());
    let leader = cluster.leader().await;
    let status = cluster.nodes[leader].host().status(GROUP).expect("a status");
    let led = Duration::from_millis(status.leads_for_ms.expect("it leads"));
    assert!(led <= since.elapsed(), "a lead counts from when it began: {led:?}");
    for id in 21..40 {
        cluster.put(id, BYTES).await;
    }
    cluster.nodes[dead].start().await;
    let rows = cluster.settled(GROUP).await;
    assert_eq!(rows.len(), 40);
    for id in 0..40 {
        assert_eq!(rows[&id].2, command(id, BYTES));
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_all_have_stopped_everything_is_still_there() {
    let mut cluster = Cluster::start(3).await;
    let ids: BTreeSet<u64> = (0..30).collect();
    for id in &ids {
        cluster.put(*id, BYTES).await;
    }
    let before = cluster.settled(GROUP).await;
    cluster.shutdown().await;
    for node in &mut cluster.nodes {
        node.start().await;
    }
    let after = cluster.settled(GROUP).await;
    assert_eq!(before, after);
    check_exactly_once(&after, &ids, BYTES);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_writes_and_reads_are_refused_in_time() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(1, BYTES).await;
    let leader = cluster.leader().await;
    for at in 0..3 {
        if at != leader {
            cluster.nodes[at].stop().await;
        }
    }
    let host = cluster.nodes[leader].host();
    // The first may be written before the leader notices; later ones are not.
    let since = Instant::now();
    let first = host.propose(GROUP, command(2, BYTES)).await.expect_err("no quorum");
    assert!(matches!(first, ProposeError::Unknown | ProposeError::NoQuorum), "{first}");
    assert!(since.elapsed() < Duration::from_secs(5), "took {:?}", since.elapsed());
    let since = Instant::now();
    let second = host.propose(GROUP, command(3, BYTES)).await.expect_err("no quorum");
    assert!(matches!(second, ProposeError::NoQuorum | ProposeError::NotLeader { leader: None }), "{second}");
    let read = host.read_barrier(GROUP).await.expect_err("no quorum");
    assert!(matches!(read, ReadError::NoQuorum | ReadError::NotLeader { leader: None }), "{read}");
    assert!(since.elapsed() < Duration::from_secs(5), "took {:?}", since.elapsed());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_proposals_in_flight_are_refused_and_room_comes_back() {
    let mut cluster = Cluster::start_with(3, |options| {
        options.limits.group_inflight_bytes_max = 2 << 20;
    })
    .await;
    cluster.put(0, BYTES).await;
    let leader = cluster.leader().await;
    let host = cluster.nodes[leader].host().clone();
    let size = 500_000;
    let tasks: Vec<_> = (1..=40)
        .map(|id| {
            let host = host.clone();
            tokio::spawn(async move { host.propose(GROUP, command(id, size)).await })
        })
        .collect();
    let mut busy = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(_) => {}
            Err(ProposeError::Busy) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(busy > 0, "nothing was refused");
    host.propose(GROUP, command(100, size)).await.expect("room again");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_on_request() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(1, BYTES).await;
    let old = cluster.leader().await;
    let new = (old + 1) % 3;
    let to = cluster.nodes[new].id;
    eventually("a willing successor", || async {
        match cluster.nodes[old].host().transfer(GROUP, to).await {
            Ok(()) => Some(()),
            // It has not answered its first heartbeat yet.
            Err(MemberError::Impossible { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    assert_eq!(cluster.leader().await, new);
    cluster.put(2, BYTES).await;
    assert_eq!(cluster.nodes[new].host().transfer(GROUP, to).await, Ok(()));
    let stranger = postrider_raft::NodeId(99);
    assert_eq!(
        cluster.nodes[new].host().transfer(GROUP, stranger).await,
        Err(MemberError::UnknownMember { node: stranger })
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_invariant_stops_the_replica_and_says_why() {
    let mut cluster = Cluster::start(1).await;
    cluster.put(1, BYTES).await;
    let host = cluster.nodes[0].host();
    let poisoned = host.propose(GROUP, Bytes::from_static(support::POISON)).await;
    assert_eq!(poisoned, Err(ProposeError::Unknown));
    // For a moment it is only stopping.
    eventually("it stops and says why", || async {
        matches!(host.status(GROUP)?.role, Role::Stopped { reason } if reason.contains("poisoned")).then_some(())
    })
    .await;
    let refused = host.propose(GROUP, command(2, BYTES)).await.expect_err("it has stopped");
    assert!(matches!(refused, ProposeError::Stopped { .. }), "{refused}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_groups_share_the_hosts() {
    let mut cluster = Cluster::start(3).await;
    let groups: Vec<GroupId> = (10..30).map(GroupId).collect();
    for group in &groups {
        cluster.create(*group).await;
    }
    for group in &groups {
        let leader = cluster.leader_of(*group).await;
        cluster.nodes[leader].host().propose(*group, command(u64::from(group.0), BYTES)).await.expect("a leader");
    }
    for group in &groups {
        let rows = cluster.settled(*group).await;
        assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [u64::from(group.0)]);
    }
    assert_eq!(cluster.nodes[0].host().groups().len(), 21);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_log_is_an_error_that_says_where_and_is_never_taken_for_its_end() {
    let mut cluster = Cluster::start(1).await;
    for id in 0..10 {
        cluster.put(id, BYTES).await;
    }
    let node = cluster.nodes[0].dir.clone();
    cluster.shutdown().await;
    let log = node.join("log");
    let segment = std::fs::read_dir(&log)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max()
        .expect("a segment");
    let mut bytes = std::fs::read(&segment).expect("readable");
    // The third proposal: others that were acknowledged lie behind it.
    let proposal = command(3, BYTES);
    let at = bytes.windows(proposal.len()).position(|window| window == &proposal[..]).expect("it is in there");
    bytes[at + BYTES / 2] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let refused = Host::open(HostOptions::new(NodeId(1), &node), Arc::new(Ledgers)).await;
    let error = refused.err().expect("a damaged log does not open").to_string();
    let name = segment.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(error.contains(name) && error.contains("checksum"), "{error}");
}
