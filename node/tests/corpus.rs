//! What releases have written is opened by this build: `tests/upgrade/data/VERSION.tar.zst`, one for each release that
//! `tests/upgrade/releases` names.
//!
//! A corpus is the directory of one node of a cluster. The node is started on it alone, so it leads nothing: its replicas are
//! opened and verified, and what is in them is read as it stands (P-4).

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test

#[path = "../../router/tests/support/authority.rs"]
mod authority;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use authority::Authority;
use postrider_api::env::{SystemClock, SystemEntropy};
use postrider_api::id::{NodeId, UserId};
use postrider_api::identity::Role;
use postrider_api::pb::shard_service_client::ShardServiceClient;
use postrider_api::pb::{self, answer, query, query_reply};
use postrider_node::{Node, NodeOptions};
use postrider_router::AdminClient;
use serde::Deserialize;
use tonic::transport::Channel;

/// What a node's directory must hold.
#[derive(Deserialize)]
struct Manifest {
    version: String,
    node: u64,
    region: String,
    shards: Vec<u32>,
    users: Vec<User>,
}

#[derive(Deserialize)]
struct User {
    user_id: String,
    shard: u32,
    inbox: String,
    /// Total and unread.
    folders: BTreeMap<String, (u64, u64)>,
    subjects: Vec<String>,
}

fn upgrade() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/upgrade")
}

/// The releases that are named, and the corpora that are there.
fn releases() -> Vec<String> {
    let text = std::fs::read_to_string(upgrade().join("releases")).unwrap();
    let lines = text.lines().filter_map(|line| line.split('#').next()?.split_whitespace().next().map(str::to_owned));
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_release_has_written_is_opened_verified_and_read() {
    for version in releases() {
        let packed = upgrade().join("data").join(format!("{version}.tar.zst"));
        assert!(packed.is_file(), "release {version} has no corpus: tests/upgrade/README.md says how to make it");
        open(&packed).await;
    }
}

/// For a corpus that is not named yet: `POSTRIDER_CORPUS=FILE`.
#[tokio::test(flavor = "multi_thread")]
async fn a_corpus_that_was_just_made_is_opened_verified_and_read() {
    match std::env::var_os("POSTRIDER_CORPUS") {
        Some(packed) => open(Path::new(&packed)).await,
        None => println!("no corpus was just made"),
    }
}

async fn open(packed: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let unpacked = Command::new("tar").arg("--zstd").arg("-xf").arg(packed).arg("-C").arg(dir.path()).status();
    assert!(unpacked.is_ok_and(|status| status.success()), "unpack {}: tar and zstd are needed", packed.display());
    let manifest = std::fs::read(dir.path().join("manifest.json")).unwrap();
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    let authority = Authority::new();
    let options = NodeOptions::new(
        NodeId(manifest.node),
        manifest.region.clone(),
        SocketAddr::from(([127, 0, 0, 1], 0)),
        dir.path().join("data"),
        authority.issue(Role::Node),
        SystemClock::shared(),
        SystemEntropy::shared(),
    );
    let node = Node::start(options).await.unwrap();
    let address = node.local_addr().to_string();
    let admin = AdminClient::connect(&address, &authority.issue(Role::Ctl)).unwrap();
    let status = admin.status().await.unwrap();
    let mut shards: Vec<u32> = status.replicas.iter().map(|replica| replica.shard).collect();
    shards.sort_unstable();
    assert_eq!(shards, manifest.shards, "{}", manifest.version);
    for replica in &status.replicas {
        assert_ne!(replica.role(), pb::ReplicaRole::Stopped, "shard {}: {}", replica.shard, replica.stopped_reason);
        let shard = postrider_api::id::ShardId(replica.shard);
        let verified = admin.verify(shard).await.unwrap();
        assert_eq!(verified.differences, Vec::<String>::new(), "{} of {}", shard, manifest.version);
        assert!(verified.checked > 0);
    }
    let frontend = authority.issue(Role::Frontend).endpoint(&address).unwrap().connect_lazy();
    let mut service = ShardServiceClient::new(frontend);
    for user in &manifest.users {
        read(&mut service, user).await;
    }
    node.shutdown().await;
}

async fn read(service: &mut ShardServiceClient<Channel>, user: &User) {
    let user_id = user.user_id.parse::<UserId>().unwrap().to_bytes();
    let ask = query::Query::ListFolders(pb::ListFolders { user_id: user_id.clone() });
    let answer::Answer::Folders(folders) = stale(service, user.shard, ask).await else { panic!("folders were wanted") };
    let folders: BTreeMap<String, (u64, u64)> =
        folders.folders.iter().map(|folder| (folder.folder_id.to_string(), (folder.total, folder.unread))).collect();
    assert_eq!(folders, user.folders);
    let folder_id = user.inbox.parse().unwrap();
    let ask = pb::ListMessages { user_id: user_id.clone(), folder_id, ..Default::default() };
    let page = stale(service, user.shard, query::Query::ListMessages(ask)).await;
    let answer::Answer::Messages(page) = page else { panic!("messages were wanted") };
    let mut subjects: Vec<String> = page.rows.iter().map(|row| row.subject.clone()).collect();
    subjects.sort();
    assert_eq!(subjects, user.subjects);
    for row in &page.rows {
        let ask = pb::GetBody { user_id: user_id.clone(), email_id: row.email_id.clone() };
        let body = stale(service, user.shard, query::Query::GetBody(ask)).await;
        assert!(matches!(body, answer::Answer::Body(body) if body.body.is_some()));
    }
}

/// As the replica has it: it has no leader.
async fn stale(service: &mut ShardServiceClient<Channel>, shard: u32, query: query::Query) -> answer::Answer {
    let query = Some(pb::Query { query: Some(query) });
    let request = pb::QueryRequest { shard, mode: pb::ReadMode::Stale.into(), query, ..Default::default() };
    match service.query(request).await.unwrap().into_inner().result {
        Some(query_reply::Result::Answer(answer)) => answer.answer.unwrap(),
        other => panic!("{other:?}"),
    }
}
