//! The cluster looks after itself: nodes that are gone are replaced, and what is uneven is evened out, while mail comes in.

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test
#![allow(dead_code)] // each test file uses a part of the support

mod support;

use std::time::Duration;

use postrider_api::id::ShardId;
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, OperationState, answer, query};
use postrider_node::{BalanceOptions, NodeTimings};
use postrider_router::ReadMode;
use support::mail::{accept, receive, sign_up, subjects};
use support::{Cluster, DIRECTORY, GENEROUS, MAILBOX, OTHER_MAILBOX, eventually};

const SHARDS: [ShardId; 4] = [ShardId::PLACEMENT, DIRECTORY, MAILBOX, OTHER_MAILBOX];

/// Looks often, and leaves leads where they are.
fn attentive() -> NodeTimings {
    NodeTimings {
        homesick: Duration::from_secs(3600),
        steward: Duration::from_millis(100),
        leftover: Duration::from_millis(500),
        ..Default::default()
    }
}

fn after(seconds: u64) -> BalanceOptions {
    BalanceOptions { dead_after: Some(Duration::from_secs(seconds)), automatic: false, ..Default::default() }
}

async fn node(cluster: &Cluster, id: u64) -> pb::Node {
    cluster.operator().await.map().nodes.iter().find(|node| node.id == id).unwrap().clone()
}

async fn audited(cluster: &Cluster) -> Vec<pb::AuditRecord> {
    let list = query::Query::ListAudit(pb::ListAudit { limit: 100, ..Default::default() });
    let operator = cluster.operator().await;
    let answered = operator.query(ShardId::PLACEMENT, None, list, ReadMode::Consistent, 0, GENEROUS).await.unwrap();
    let Some(answer::Answer::Audit(page)) = answered.answer.answer else { panic!("{answered:?}") };
    page.records
}

/// Waits until no shard has a replica on the node, and each is settled where the map has it; says where that is.
async fn replaced(cluster: &Cluster, node: u64) -> Vec<(ShardId, Vec<u64>)> {
    let mut settled = Vec::new();
    for shard in SHARDS {
        eventually("it has its replicas elsewhere", || async { !cluster.placed(shard).await.contains(&node) }).await;
        let placed = cluster.placed(shard).await;
        assert_eq!(placed.len(), 3, "{shard}");
        cluster.settled_on(shard, &placed).await;
        settled.push((shard, placed));
    }
    settled
}

/// Node 6 is the other one of node 1's region. What is at home there is made there, whoever led what, and nobody did anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_is_replaced_and_told_so_when_it_comes_back() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start_balanced(6, attentive(), after(5)));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    receive(&router, ada, "before").await;
    tokio::task::block_in_place(|| cluster.kill(1));
    receive(&router, ada, "while it is gone").await;
    let settled = replaced(&cluster, 1).await;
    assert_eq!(cluster.placed(MAILBOX).await, [2, 3, 6]);
    let given_up = node(&cluster, 1).await;
    assert!(given_up.silent_since_ms > 0, "{given_up:?}");
    assert!(given_up.given_up_ms - given_up.silent_since_ms >= 5_000, "{given_up:?}");
    let log = audited(&cluster).await;
    for (action, target) in [("node.give-up", "node 1"), ("balance.steps", "shard 1000")] {
        let is_it = |record: &&pb::AuditRecord| record.action == action && record.targets.iter().any(|t| t == target);
        let begun = log.iter().find(is_it).unwrap_or_else(|| panic!("{action}: {log:?}"));
        assert_eq!(begun.operator, "balancer");
        assert!(log.iter().any(|record| record.of == begun.sequence), "{action} has ended");
    }
    receive(&router, ada, "after").await;
    let (found, _) = subjects(&router, ada, ReadMode::Consistent).await;
    assert_eq!(found, ["before", "while it is gone", "after"]);

    // What it holds was made elsewhere: it goes, and the node takes part again.
    tokio::task::block_in_place(|| cluster.run(1));
    for (shard, placed) in &settled {
        cluster.settled_on(*shard, placed).await;
    }
    eventually("it takes part again", || async {
        let back = node(&cluster, 1).await;
        back.silent_since_ms == 0 && back.given_up_ms == 0
    })
    .await;
    for (shard, placed) in &settled {
        cluster.agree(*shard, placed).await;
    }
    cluster.verify(MAILBOX, &cluster.placed(MAILBOX).await).await;
}

/// A node that starts again in time keeps what it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_silent_for_a_while_keeps_what_it_has() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start_balanced(6, attentive(), after(3600)));
    cluster.bootstrap().await;
    tokio::task::block_in_place(|| cluster.kill(2));
    eventually("it is recorded", || async { node(&cluster, 2).await.silent_since_ms > 0 }).await;
    tokio::task::block_in_place(|| cluster.run(2));
    eventually("it is taken back", || async { node(&cluster, 2).await.silent_since_ms == 0 }).await;
    for shard in SHARDS {
        cluster.settled_on(shard, &[1, 2, 3]).await;
    }
    assert_eq!(node(&cluster, 2).await.given_up_ms, 0);
}

/// Whatever was begun goes on under the next leader, and ends when nothing is left to do.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_the_cluster_evened_out_and_whoever_leads_goes_on() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start_balanced(6, attentive(), after(3600)));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    receive(&router, ada, "before").await;
    let balance = async || match cluster.place(Op::Balance(pb::Balance {})).await.unwrap() {
        pb::outcome::Result::OperationBegun(begun) => begun.id,
        other => panic!("{other:?}"),
    };
    let (first, second) = (balance().await, balance().await);
    let before = cluster.operation(first).await;
    assert!(second == first || before.ended_ms > 0, "one at a time: {before:?}");
    let dies = cluster.leader(ShardId::PLACEMENT).await;
    tokio::task::block_in_place(|| cluster.kill(dies));
    tokio::task::block_in_place(|| cluster.run(dies));
    let ended = cluster.ended(second).await;
    assert_eq!(ended.state(), OperationState::Done, "{ended:?}");
    let map = cluster.operator().await.map();
    let held = |id: u64| map.shards.iter().filter(|shard| shard.replicas.contains(&id)).count();
    let counts: Vec<usize> = (1..=6).map(held).collect();
    assert_eq!(counts.iter().sum::<usize>(), 12, "{map:?}");
    assert!(counts.iter().all(|count| (1..=3).contains(count)), "{counts:?}");
    for shard in &map.shards {
        let mut regions: Vec<u64> = shard.replicas.iter().map(|id| (id - 1) % 5).collect();
        regions.sort_unstable();
        regions.dedup();
        assert_eq!(regions.len(), 3, "{shard:?}");
        cluster.agree(ShardId(shard.id), &shard.replicas).await;
    }
    receive(&router, ada, "after").await;
}

/// Placed first, made by whoever leads placement then, and used like the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_added_while_the_cluster_serves() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start_balanced(4, attentive(), after(3600)));
    cluster.bootstrap().await;
    let shard = pb::Shard {
        id: 1002,
        kind: pb::ShardKind::Mailbox.into(),
        replicas: vec![4, 2, 3],
        home_region: "sydney".to_owned(),
        incarnation: 77,
        ..Default::default()
    };
    tokio::task::block_in_place(|| cluster.kill(4));
    let place = || Op::PlaceShard(pb::PlaceShard { shard: Some(shard.clone()), make: true });
    let pb::outcome::Result::OperationBegun(begun) = cluster.place(place()).await.unwrap() else { panic!() };
    eventually("it says what it waits for", || async {
        cluster.operation(begun.id).await.waits_for.contains("node 4")
    })
    .await;
    tokio::task::block_in_place(|| cluster.run(4));
    assert_eq!(cluster.ended(begun.id).await.state(), OperationState::Done);
    eventually("every map has it", || async {
        let map = cluster.operator().await.map();
        map.shards.iter().any(|shard| shard.id == 1002 && !shard.making)
    })
    .await;
    cluster.settled_on(ShardId(1002), &[2, 3, 4]).await;
    let router = cluster.router().await;
    let eve = sign_up(&router, "eve", ShardId(1002)).await;
    let received = router.propose(ShardId(1002), None, accept(&[eve], "first"), GENEROUS).await.unwrap();
    assert!(matches!(received.result, Some(pb::outcome::Result::Accepted(_))), "{received:?}");
    cluster.agree(ShardId(1002), &[2, 3, 4]).await;
}
