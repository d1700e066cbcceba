//! What placement wants of shards and nodes becomes so, under load, whoever dies meanwhile; nobody who writes notices (P-8).

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test
#![allow(dead_code)] // each test file uses a part of the support

mod support;

use std::time::Duration;

use postrider_api::id::{ShardId, UserId};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, OperationState, OperationStep, outcome};
use postrider_node::NodeTimings;
use postrider_router::{ReadMode, Router};
use support::mail::{receive, sign_up, subjects};
use support::{Cluster, DIRECTORY, MAILBOX, OTHER_MAILBOX, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Looks often, and leaves leads where they are.
fn attentive() -> NodeTimings {
    NodeTimings {
        homesick: Duration::from_secs(3600),
        steward: Duration::from_millis(100),
        leftover: Duration::from_millis(500),
        ..Default::default()
    }
}

/// Writes one message after the other, each of which has to be taken at the first call, until it is told to stop.
struct Writer {
    stop: CancellationToken,
    writing: JoinHandle<Vec<String>>,
}

impl Writer {
    fn start(router: &Router, user: UserId) -> Self {
        let (router, stop) = (router.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let writing = tokio::spawn(async move {
            let mut written = Vec::new();
            while !stopped.is_cancelled() {
                let subject = format!("message {}", written.len());
                receive(&router, user, &subject).await;
                written.push(subject);
            }
            written
        });
        Self { stop, writing }
    }

    /// All that was acknowledged is there, once and in its order (P-1, P-6).
    async fn check(self, router: &Router, user: UserId) {
        self.stop.cancel();
        let written = self.writing.await.expect("every message was taken");
        assert!(written.len() > 10, "there was a load: {}", written.len());
        let (found, _) = subjects(router, user, ReadMode::Consistent).await;
        // A page has the newest.
        assert_eq!(found, written[written.len() - found.len()..]);
    }
}

fn set(shard: ShardId, replicas: &[u64]) -> Op {
    Op::SetReplicas(pb::SetReplicas { shard: shard.0, replicas: replicas.to_vec(), ..Default::default() })
}

async fn begin(cluster: &Cluster, op: Op) -> u64 {
    match cluster.place(op).await.unwrap() {
        outcome::Result::OperationBegun(begun) => begun.id,
        other => panic!("{other:?}"),
    }
}

fn assert_done(operation: &pb::Operation) {
    assert_eq!(operation.state(), OperationState::Done, "{operation:?}");
}

/// From three to five and back, to one and up again, and to nodes that had none.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_follow_what_is_wanted_under_load() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(7, attentive()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let writer = Writer::start(&router, ada);
    for replicas in [&[1, 2, 3, 4, 5][..], &[3, 4, 5], &[4], &[1, 2, 3], &[4, 5, 6]] {
        assert_done(&cluster.set_replicas(MAILBOX, replicas).await);
        cluster.settled_on(MAILBOX, replicas).await;
    }
    writer.check(&router, ada).await;
    cluster.agree(MAILBOX, &[4, 5, 6]).await;
    cluster.verify(MAILBOX, &[4, 5, 6]).await;
    cluster.verify(ShardId::PLACEMENT, &[1, 2, 3]).await;
    cluster.settled_on(OTHER_MAILBOX, &[1, 2, 3]).await;
}

/// The leader that carries it on dies after any time, in any step; so does placement's. Whoever leads next goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_outlives_whoever_carries_it_on() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(5, attentive()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let writer = Writer::start(&router, ada);
    let sets: [&[u64]; 2] = [&[1, 2, 3], &[1, 2, 3, 4, 5]];
    for (round, ms) in [0, 15, 40, 80, 150, 300].into_iter().enumerate() {
        let replicas = sets[(round + 1) % 2];
        let id = begin(&cluster, set(MAILBOX, replicas)).await;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        let dies = cluster.leader(MAILBOX).await;
        tokio::task::block_in_place(|| cluster.kill(dies));
        tokio::task::block_in_place(|| cluster.run(dies));
        assert_done(&cluster.ended(id).await);
        cluster.settled_on(MAILBOX, replicas).await;
    }
    writer.check(&router, ada).await;
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
    cluster.verify(ShardId::PLACEMENT, &[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_says_what_it_waits_for_and_is_taken_back() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(5, attentive()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    tokio::task::block_in_place(|| cluster.kill(5));
    let id = begin(&cluster, set(MAILBOX, &[1, 2, 3, 4, 5])).await;
    eventually("it says that node 5 is not there", || async {
        let operation = cluster.operation(id).await;
        operation.waits_for.contains("node 5")
    })
    .await;
    let writer = Writer::start(&router, ada);
    let cancel = pb::CancelOperation { id, reason: "a test".to_owned() };
    cluster.place(Op::CancelOperation(cancel)).await.unwrap();
    let ended = cluster.ended(id).await;
    assert_eq!((ended.state(), ended.waits_for.as_str()), (OperationState::Cancelled, "a test"));
    cluster.settled_on(MAILBOX, &[1, 2, 3]).await;
    writer.check(&router, ada).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_moves_and_the_lead_with_it() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, attentive()));
    cluster.bootstrap().await;
    for (region, node) in [("virginia", 3), ("frankfurt", 2), ("seoul", 1)] {
        let home = Op::SetHome(pb::SetHome { shard: MAILBOX.0, region: region.to_owned(), ..Default::default() });
        match cluster.place(home).await.unwrap() {
            outcome::Result::OperationBegun(begun) => assert_done(&cluster.ended(begun.id).await),
            other => panic!("{other:?}"),
        }
        assert_eq!(cluster.leader(MAILBOX).await, node);
    }
}

/// Emptied under load, removed, and told so when it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_emptied_and_removed_under_load() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(6, attentive()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let writer = Writer::start(&router, ada);
    let refused = cluster.place(Op::RemoveNode(pb::RemoveNode { node: 1 })).await.unwrap_err();
    assert!(refused.contains("drain"), "{refused}");
    let drained = cluster.operate(Op::DrainNode(pb::DrainNode { node: 1 })).await;
    assert_done(&drained);
    for shard in [ShardId::PLACEMENT, DIRECTORY, MAILBOX, OTHER_MAILBOX] {
        let placed = cluster.placed(shard).await;
        assert!(placed.len() == 3 && !placed.contains(&1), "{shard}: {placed:?}");
        // Node 6 is the other one of its region, where three of them are at home.
        assert!(shard == OTHER_MAILBOX || placed == [2, 3, 6], "{shard}: {placed:?}");
        cluster.settled_on(shard, &placed).await;
    }
    cluster.place(Op::RemoveNode(pb::RemoveNode { node: 1 })).await.unwrap();
    writer.check(&router, ada).await;
    cluster.agree(MAILBOX, &[2, 3, 6]).await;
    cluster.verify(ShardId::PLACEMENT, &[2, 3, 6]).await;

    tokio::task::block_in_place(|| cluster.kill(1));
    tokio::task::block_in_place(|| cluster.run(1));
    eventually("it is told that it was removed", || async {
        let refused = cluster.admin(1).open_replica(ShardId(1999), 7).await;
        refused.is_err_and(|error| error.to_string().contains("removed"))
    })
    .await;
    let map = cluster.operator().await.map();
    assert!(map.nodes.iter().all(|node| node.id != 1));
}

/// It is reached there by clients and peers, and the memberships of its groups name the new address.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_comes_back_at_another_address_under_load() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(3, attentive()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    let ada = sign_up(&router, "ada", MAILBOX).await;
    let writer = Writer::start(&router, ada);
    for id in 1..=3 {
        tokio::task::block_in_place(|| cluster.kill(id));
        cluster.relocate(id);
        tokio::task::block_in_place(|| cluster.run(id));
        let addresses: Vec<_> = (1..=3).map(|id| (id, cluster.address(id))).collect();
        eventually("the map has its new address", || async {
            let map = cluster.operator().await.map();
            map.nodes.iter().map(|node| (node.id, node.address.clone())).eq(addresses.iter().cloned())
        })
        .await;
        for shard in [ShardId::PLACEMENT, DIRECTORY, MAILBOX, OTHER_MAILBOX] {
            cluster.settled_on(shard, &[1, 2, 3]).await;
        }
    }
    writer.check(&router, ada).await;
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_tell_their_steps() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(4, attentive()));
    cluster.bootstrap().await;
    let ended = cluster.set_replicas(MAILBOX, &[1, 2, 4]).await;
    assert_done(&ended);
    assert_ne!(ended.step(), OperationStep::Recorded, "{ended:?}");
    assert!(ended.started_ms > 0 && ended.ended_ms >= ended.started_ms, "{ended:?}");
}
