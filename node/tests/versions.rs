//! Builds and versions, on nodes that run: what a newer build asks for, what a node reports, what it does not start on.

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test
#![allow(dead_code)] // each test file uses a part of the support

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use postrider_api::id::ShardId;
use postrider_api::identity::Role;
use postrider_api::pb::{self, command::Op, outcome, propose_reply};
use postrider_node::{NodeTimings, StartError};
use postrider_raft::{GroupId, state_prefix};
use postrider_shard::format::VERSION_MAX;
use postrider_shard::key::Key;
use prost::Message as _;
use support::{Cluster, GENEROUS, MAILBOX, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_reports_what_its_build_knows() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, NodeTimings::default()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    eventually("nodes report", || async {
        router.map().nodes.iter().all(|node| node.version_max == VERSION_MAX && !node.build.is_empty())
    })
    .await;
    // There is nothing to raise: groups begin where every build does.
    let status = cluster.admin(1).status().await.unwrap();
    assert!(status.replicas.iter().all(|replica| replica.version == 1));
}

/// What a build that is newer than this one sends: an op that this one does not know.
fn newer_command() -> Bytes {
    let command = pb::Command { requires: VERSION_MAX + 1, request: vec![9; 16].into(), ..Default::default() };
    let mut bytes = command.encode_to_vec();
    prost::encoding::string::encode(999, &"what this build does not know".to_owned(), &mut bytes);
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_newer_build_is_refused_and_stops_nobody() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, NodeTimings::default()));
    cluster.bootstrap().await;
    let leader = cluster.leader(MAILBOX).await;
    let request = pb::ProposeRequest { shard: MAILBOX.0, command: newer_command(), ..Default::default() };
    let reply = cluster.shard_service(leader, Role::Frontend).propose(request).await.unwrap().into_inner();
    let Some(propose_reply::Result::Outcome(outcome)) = reply.result else { panic!("{reply:?}") };
    let Some(outcome::Result::Refused(refused)) = outcome.result else { panic!("{outcome:?}") };
    assert_eq!(refused.refusal(), pb::Refusal::VersionNotEnabled);
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_cannot_ask_for_what_no_node_knows() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, NodeTimings::default()));
    cluster.bootstrap().await;
    let router = cluster.operator().await;
    let set = |version| pb::Command { op: Some(Op::SetVersion(pb::SetVersion { version })), ..Default::default() };
    let outcome = router.propose(ShardId::PLACEMENT, None, set(VERSION_MAX + 1), GENEROUS).await.unwrap();
    let Some(outcome::Result::Refused(refused)) = outcome.result else { panic!("{outcome:?}") };
    assert_eq!(refused.refusal(), pb::Refusal::VersionNotEnabled);
    support::mail::done(router.propose(ShardId::PLACEMENT, None, set(VERSION_MAX), GENEROUS).await.unwrap());
}

/// A shard that a newer build has raised, as this one finds it after a roll that went back too late.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_on_what_a_newer_build_has_raised() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(3, NodeTimings::default()));
    cluster.bootstrap().await;
    let router = cluster.router().await;
    support::mail::sign_up(&router, "ada", MAILBOX).await;
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
    tokio::task::block_in_place(|| cluster.shut_down(3));
    let key = [&state_prefix(GroupId(MAILBOX.0))[..], Key::Shard.bytes().as_ref()].concat();
    let path = cluster.directory(3).join("raft/state");
    let raise = |version: u32| {
        let db = open(&path);
        let mut record = pb::ShardRecord::decode(&db.get(&key).unwrap().unwrap()[..]).unwrap();
        record.version = version;
        db.put(&key, record.encode_to_vec()).unwrap();
        db.flush().unwrap();
    };
    tokio::task::block_in_place(|| raise(VERSION_MAX + 1));
    let error = tokio::task::block_in_place(|| cluster.start_refused(3));
    assert!(matches!(error, StartError::Newer { shard: 1000, .. }), "{error}");
    let told = error.to_string();
    assert!(told.contains(&format!("knows up to {VERSION_MAX}")) && told.contains("start the build"), "{told}");
    // The build that knows it goes on: here, this one with the row as it was.
    tokio::task::block_in_place(|| {
        raise(VERSION_MAX);
        cluster.run(3);
    });
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
    cluster.verify(MAILBOX, &[1, 2, 3]).await;
}

/// What a node that just ended has may be held for a moment more.
fn open(path: &std::path::Path) -> rocksdb::DB {
    let began = Instant::now();
    loop {
        match rocksdb::DB::open(&rocksdb::Options::default(), path) {
            Ok(db) => return db,
            Err(error) => assert!(began.elapsed() < GENEROUS, "{}: {error}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
