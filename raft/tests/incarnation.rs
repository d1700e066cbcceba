//! A group that was removed and made again under its number is another group: what is left of the first one has no part in it.

#![allow(unreachable_pub)] // shared between test files; nobody depends on a test
#![allow(dead_code)] // each test file uses a part of the support

mod support;

use std::collections::BTreeMap;

use postrider_raft::{GroupError, Incarnation, Member, NodeId, ProposeError, Role};
use support::{Cluster, GROUP, MADE, command, eventually, rows};

const BYTES: usize = 100;
/// The second making of the group.
const AGAIN: Incarnation = Incarnation(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_a_removed_group_does_not_join_the_one_that_was_made_again() {
    let mut cluster = Cluster::start(3).await;
    for id in 0..20 {
        cluster.put(id, BYTES).await;
    }
    cluster.settled(GROUP).await;
    // Two nodes remove their replicas; the third one does not hear of it. It may even think that it leads.
    for at in 0..2 {
        cluster.nodes[at].host().remove_replica(GROUP).await.expect("a removal");
    }
    let stale = cluster.nodes[2].host().clone();
    // They make it again, and the third is to be a member.
    for at in 0..2 {
        cluster.nodes[at].host().open_replica(GROUP, AGAIN).await.expect("a replica");
    }
    cluster.nodes[0].host().create_group(GROUP, AGAIN, cluster.members()).await.expect("a group");
    let refused = stale.open_replica(GROUP, AGAIN).await;
    assert_eq!(refused, Err(GroupError::OtherIncarnation { group: GROUP, hosted: MADE }));
    let refused = stale.create_group(GROUP, AGAIN, cluster.members()).await;
    assert_eq!(refused, Err(GroupError::OtherIncarnation { group: GROUP, hosted: MADE }));

    let leader = eventually("a leader of the new one", || async {
        for at in 0..2 {
            if cluster.nodes[at].host().read_barrier(GROUP).await.is_ok() {
                return Some(at);
            }
        }
        None
    })
    .await;
    let host = cluster.nodes[leader].host();
    for id in 100..110 {
        host.propose(GROUP, command(id, BYTES)).await.expect("a reply");
    }
    // What the third has is what it had, and nobody takes anything from it.
    assert_eq!(rows(&stale.state(), GROUP).keys().copied().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    let answered = stale.propose(GROUP, command(999, BYTES)).await;
    assert!(
        matches!(answered, Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum | ProposeError::Unknown)),
        "{answered:?}"
    );
    assert_eq!(rows(&host.state(), GROUP).len(), 10);
    assert_eq!(stale.status(GROUP).expect("a status").incarnation, MADE);
    assert_eq!(host.status(GROUP).expect("a status").incarnation, AGAIN);

    // Restarted, it is still the one that it was; removed, it may join.
    drop(stale);
    cluster.nodes[2].stop().await;
    cluster.nodes[2].start().await;
    let stale = cluster.nodes[2].host().clone();
    assert_eq!(stale.status(GROUP).expect("a status").incarnation, MADE);
    stale.remove_replica(GROUP).await.expect("a removal");
    stale.open_replica(GROUP, AGAIN).await.expect("a replica");
    eventually("it has caught up", || async { (rows(&stale.state(), GROUP).len() == 10).then_some(()) }).await;
    assert_ne!(stale.status(GROUP).expect("a status").role, Role::Leader);
    cluster.shutdown().await;
}

/// A group that was never begun is made again without ado: an interrupted bootstrap is repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_never_began_makes_way() {
    let mut cluster = Cluster::empty(|_| {});
    cluster.add_node().await;
    let host = cluster.nodes[0].host();
    host.open_replica(GROUP, MADE).await.expect("a replica");
    let alone: BTreeMap<NodeId, Member> = cluster.members();
    host.create_group(GROUP, AGAIN, alone).await.expect("a group");
    eventually("it leads", || async { host.read_barrier(GROUP).await.ok() }).await;
    host.propose(GROUP, command(1, BYTES)).await.expect("a reply");
    assert_eq!(host.status(GROUP).expect("a status").incarnation, AGAIN);
    cluster.shutdown().await;
}

/// A member at another address is reached there as soon as that is known, and the membership follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_moves_to_another_address() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(1, BYTES).await;
    let leader = cluster.leader().await;
    let moved = (leader + 1) % 3;
    cluster.nodes[moved].stop().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    cluster.nodes[moved].address = listener.local_addr().expect("its address");
    drop(listener);
    cluster.nodes[moved].start().await;
    let addresses: Vec<_> = cluster.members().into_iter().map(|(id, member)| (id, member.address)).collect();
    for node in &cluster.nodes {
        node.host().know_addresses(addresses.clone());
    }
    cluster.put(2, BYTES).await;
    let settled = cluster.settled(GROUP).await;
    assert_eq!(settled.len(), 2);
    eventually("the membership has the new address", || async {
        let leader = cluster.leader().await;
        let (id, member) = (cluster.nodes[moved].id, cluster.member(moved));
        let changed = cluster.nodes[leader].host().set_member(GROUP, id, member).await;
        changed.ok()
    })
    .await;
    cluster
        .all(GROUP, "every replica has it", |status| {
            status.voters.get(&cluster.nodes[moved].id).is_some_and(|member| *member == cluster.member(moved))
                && status.voters.len() == 3
        })
        .await;
    cluster.put(3, BYTES).await;
    assert_eq!(cluster.settled(GROUP).await.len(), 3);
    cluster.shutdown().await;
}

/// Two of three are at other addresses, and nobody but they themselves can tell: they find the third, and it finds them.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_most_of_whose_members_have_moved_finds_itself() {
    let mut cluster = Cluster::empty(|options| options.advertise.clone_from(&ADVERTISED.lock().expect("no panic")));
    for _ in 0..3 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        drop(listener);
        *ADVERTISED.lock().expect("no panic") = address.to_string();
        cluster.add_node_at(address).await;
    }
    cluster.create(GROUP).await;
    cluster.put(1, BYTES).await;
    cluster.settled(GROUP).await;
    for moved in [1, 2] {
        cluster.nodes[moved].stop().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        cluster.nodes[moved].address = listener.local_addr().expect("its address");
        drop(listener);
    }
    for moved in [1, 2] {
        *ADVERTISED.lock().expect("no panic") = cluster.nodes[moved].address.to_string();
        cluster.nodes[moved].start().await;
    }
    cluster.put(2, BYTES).await;
    assert_eq!(cluster.settled(GROUP).await.len(), 2);
    // Neither can have connected to the other by the address of their membership.
    for (leader, id) in [(1, 3), (2, 4)] {
        eventually("one that has moved leads", || async {
            let now = cluster.leader().await;
            if now != leader {
                // Whoever asks at a bad moment asks again.
                let _ = cluster.nodes[now].host().transfer(GROUP, cluster.nodes[leader].id).await;
            }
            (now == leader).then_some(())
        })
        .await;
        cluster.put(id, BYTES).await;
        assert_eq!(cluster.settled(GROUP).await.len() as u64, id);
    }
    cluster.shutdown().await;
}

/// What the node that starts next says of itself.
static ADVERTISED: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());
