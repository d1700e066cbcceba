//! What a node looks after by itself.

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test
#![allow(dead_code)] // each test file uses a part of the support

mod support;

use std::time::Duration;

use postrider_api::env::{SystemClock, SystemEntropy};
use postrider_api::id::{NodeId, ShardId};
use postrider_api::identity::Role;
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, answer, query};
use postrider_node::{Node, NodeLimits, NodeOptions, NodeTimings};
use postrider_router::{AdminError, ReadMode};
use support::authority::Authority;
use support::mail::{accept, receive, sign_up};
use support::{Cluster, DIRECTORY, GENEROUS, MAILBOX, OTHER_MAILBOX, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Looks often, and leaves leads where they are.
fn attentive() -> NodeTimings {
    NodeTimings {
        homesick: Duration::from_secs(3600),
        steward: Duration::from_millis(100),
        clock_check: Duration::from_millis(200),
        leftover: Duration::from_millis(500),
        move_patience: Duration::from_secs(3),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_wrong_leads_nothing() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, attentive()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let wrong = cluster.leader(MAILBOX).await;
    cluster.set_ahead(wrong, 30_000);
    for shard in [ShardId::PLACEMENT, DIRECTORY, MAILBOX, OTHER_MAILBOX] {
        eventually("the lead is given up", || async { cluster.leader(shard).await != wrong }).await;
    }
    receive(&router, ada, "stamped by a clock that is right").await;
    assert_ne!(cluster.leader(MAILBOX).await, wrong);
}

/// A stamp stays for good: not one may come from a clock that was set wrong, however soon after.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_wrong_stamps_nothing() {
    let timings = NodeTimings { homesick: Duration::from_secs(3600), ..Default::default() };
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, timings));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let hour_ms = 3_600_000;
    cluster.set_ahead(cluster.leader(MAILBOX).await, hour_ms);
    eventually("mail is accepted again", || async {
        router.propose(MAILBOX, None, accept(&[ada], "stamped by a clock that is right"), GENEROUS).await.is_ok()
    })
    .await;
    let stats = query::Query::GetShardStats(pb::GetShardStats {});
    let answered = router.query(MAILBOX, None, stats, ReadMode::Consistent, 0, GENEROUS).await.unwrap();
    let Some(answer::Answer::ShardStats(record)) = answered.answer.answer else { panic!("{answered:?}") };
    let now_ms = SystemClock::shared().wall_ms();
    assert!(record.now_ms < now_ms + hour_ms / 2, "{} ms ahead for good", record.now_ms - now_ms);
}

/// The map lists sixteen nodes first that are gone: those that share its groups are there, and confirm a node's clock.
#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_where_the_first_sixteen_nodes_of_the_map_are_gone() {
    let start = || Cluster::start_numbered(17..=19, attentive(), NodeLimits::default());
    let mut cluster = tokio::task::block_in_place(start);
    cluster.bootstrap_on(&[NodeId(17), NodeId(18), NodeId(19)]).await;
    let ada = sign_up(&cluster.router().await, "ada", MAILBOX).await;
    for id in 1..=16 {
        let gone =
            pb::Node { id, region: "seoul".to_owned(), address: format!("127.0.0.1:{id}"), ..Default::default() };
        cluster.place(Op::RegisterNode(pb::RegisterNode { node: Some(gone) })).await.unwrap();
    }
    // What was compared before is forgotten.
    tokio::task::block_in_place(|| (17..=19).for_each(|id| cluster.kill(id)));
    tokio::task::block_in_place(|| (17..=19).for_each(|id| cluster.run(id)));
    let router = cluster.router().await;
    eventually("mail is accepted again", || async {
        router.propose(MAILBOX, None, accept(&[ada], "stamped"), GENEROUS).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_alone_stamps_by_its_own_clock() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(1, attentive()));
    cluster.bootstrap_on(&[NodeId(1)]).await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    receive(&router, ada, "before").await;
    cluster.set_ahead(1, 3_600_000);
    eventually("nobody is there to contradict", || async {
        router.propose(MAILBOX, None, accept(&[ada], "after"), GENEROUS).await.is_ok()
    })
    .await;
}

/// Its own placement replica tells a node nothing any more once it was moved away: the node must notice, or it would keep its
/// map, and what is left of the replica, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_leftover_of_placement_follows_those_who_hold_it() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(4, attentive()));
    cluster.bootstrap().await;
    let gone = cluster.leader(ShardId::PLACEMENT).await % 3 + 1;
    tokio::task::block_in_place(|| cluster.kill(gone));
    let moved = cluster.move_replica(ShardId::PLACEMENT, gone, 4).await;
    assert_eq!(moved.state(), pb::OperationState::Done, "{moved:?}");
    tokio::task::block_in_place(|| cluster.run(gone));
    eventually("the leftover is removed", || async { cluster.admin(gone).digest(ShardId::PLACEMENT).await.is_err() })
        .await;
    let left: Vec<u64> = (1..=4).filter(|id| *id != gone).collect();
    cluster.agree(ShardId::PLACEMENT, &left).await;
}

/// A shard whose placing was cut short is in no map, and its replicas vote all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_votes_is_not_removed_because_a_map_does_not_list_it() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, attentive()));
    cluster.bootstrap().await;
    let (voting, empty) = (ShardId(1002), ShardId(1003));
    for id in 1..=3 {
        cluster.admin(id).open_replica(voting, 7).await.unwrap();
    }
    cluster.admin(1).create_group(voting, 7, cluster.nodes()).await.unwrap();
    let leader = cluster.leader(voting).await;
    for id in 1..=3 {
        let refused = cluster.admin(id).remove_replica(voting).await.unwrap_err();
        assert!(matches!(refused, AdminError::Refused { .. }), "{refused}");
    }
    assert!(cluster.admin(leader).digest(voting).await.is_ok());
    // One that was opened and never joined holds nothing.
    cluster.admin(2).open_replica(empty, 7).await.unwrap();
    cluster.admin(2).remove_replica(empty).await.unwrap();
    assert!(cluster.admin(2).digest(empty).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_moved_away_while_its_node_was_down_is_removed() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(4, attentive()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    receive(&router, ada, "before").await;
    let leader = cluster.leader(MAILBOX).await;
    let gone = leader % 3 + 1;
    tokio::task::block_in_place(|| cluster.kill(gone));
    let moved = cluster.move_replica(MAILBOX, gone, 4).await;
    assert_eq!(moved.state(), pb::OperationState::Done, "{moved:?}");
    receive(&router, ada, "after").await;
    tokio::task::block_in_place(|| cluster.run(gone));
    eventually("the leftover is removed", || async { cluster.admin(gone).digest(MAILBOX).await.is_err() }).await;
    let left: Vec<u64> = (1..=4).filter(|id| *id != gone).collect();
    cluster.agree(MAILBOX, &left).await;
    cluster.agree(DIRECTORY, &[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_a_node_that_is_down_is_given_up() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(4, attentive()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    tokio::task::block_in_place(|| cluster.kill(4));
    let leader = cluster.leader(MAILBOX).await;
    let from = leader % 3 + 1;
    let given_up = cluster.move_replica(MAILBOX, from, 4).await;
    assert_eq!(given_up.state(), pb::OperationState::Cancelled, "{given_up:?}");
    assert!(given_up.waits_for.contains("node 4"), "{given_up:?}");
    let map = router.map_changes().wait_for(|map| map.operations.is_empty()).await.unwrap().clone();
    let placed = map.shards.iter().find(|shard| shard.id == MAILBOX.0).unwrap();
    assert_eq!(placed.replicas, [1, 2, 3]);
    receive(&router, ada, "after").await;
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_still_a_member_is_not_removed_by_hand() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, attentive()));
    cluster.bootstrap().await;
    let refused = cluster.admin(2).remove_replica(MAILBOX).await.unwrap_err();
    assert!(matches!(refused, AdminError::Refused { .. }), "{refused}");
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = probe.local_addr().unwrap();
    drop(probe);
    let mut options = NodeOptions::new(
        NodeId(1),
        "seoul".to_owned(),
        "127.0.0.1:0".parse().unwrap(),
        dir.path().to_owned(),
        Authority::new().issue(Role::Node),
        SystemClock::shared(),
        SystemEntropy::shared(),
    );
    options.metrics_listen = Some(http);
    let node = Node::start(options).await.unwrap();
    assert_ne!(node.local_addr().port(), 0);
    assert!(get(http, "/healthz").await.starts_with("HTTP/1.1 200"));
    let metrics = get(http, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    tokio::time::timeout(GENEROUS, node.shutdown()).await.expect("it shuts down");
    assert!(tokio::net::TcpStream::connect(http).await.is_err(), "nobody listens any more");
}
