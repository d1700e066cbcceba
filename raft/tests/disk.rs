//! Disks that are full and disks that hang, real ones: the replicas there step aside and say so, the others go on, and all of them
//! have everything once the disk is well again.

mod support;

use std::collections::BTreeSet;

use postrider_raft::{GroupStatus, HostOptions, NodeId, Role};
use support::volume::{Volume, may_mount};
use support::{Cluster, GROUP, check_exactly_once, command, eventually};
use tokio::sync::watch;

const BYTES: usize = 50_000;
const VOLUME_BYTES: u64 = 192 << 20;

fn small(options: &mut HostOptions) {
    options.limits.log_segment_bytes = 4 << 20;
    options.limits.log_bytes_max = 32 << 20;
    options.limits.state_buffer_bytes = 16 << 20;
    options.limits.flush_log_bytes = 8 << 20;
}

/// Three nodes, each with a disk of its own; none where there can be no such disks. The volumes are to go before the cluster, in whose directory they are.
async fn start() -> Option<(Cluster, Vec<Volume>)> {
    if !may_mount() {
        return None;
    }
    let mut cluster = Cluster::empty(small);
    let mut volumes = Vec::new();
    for id in 1..=3 {
        let mount = cluster.dir().join(NodeId(id).to_string());
        volumes.push(Volume::mount(cluster.dir(), &mount, VOLUME_BYTES));
        cluster.add_node().await;
    }
    cluster.create(GROUP).await;
    Some((cluster, volumes))
}

fn status(cluster: &Cluster, at: usize) -> GroupStatus {
    cluster.nodes[at].host().status(GROUP).expect("a status")
}

/// Waits until one of the others leads, and takes commands.
async fn led_without(cluster: &Cluster, away: usize) {
    eventually("another leader", || async {
        let mut others = (0..cluster.nodes.len()).filter(|at| *at != away);
        others.find(|at| status(cluster, *at).leads()).map(|_| ())
    })
    .await;
}

async fn put(cluster: &Cluster, ids: &mut BTreeSet<u64>, count: u64) {
    for _ in 0..count {
        let id = ids.len() as u64;
        let is_put = || async {
            for node in &cluster.nodes {
                // Whoever has stopped, or does not lead, is not the one; whoever does not know is asked again.
                if node.host().propose(GROUP, command(id, BYTES)).await.is_ok() {
                    return Some(());
                }
            }
            None
        };
        eventually("an acknowledgement", is_put).await;
        ids.insert(id);
    }
}

/// Waits until the replica has said that it stopped, and why.
async fn says_that_it_is_full(mut said: watch::Receiver<GroupStatus>) {
    let is_full =
        |status: &GroupStatus| matches!(&status.role, Role::Stopped { reason } if reason.contains("No space"));
    said.wait_for(is_full).await.expect("the replica is there");
}

/// All acknowledged commands are there; one whose outcome was unknown was proposed again, and may be there twice.
async fn check(cluster: &Cluster, ids: &BTreeSet<u64>) {
    let rows = cluster.settled(GROUP).await;
    assert_eq!(rows.keys().copied().collect::<BTreeSet<_>>(), *ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_full_steps_down_says_so_and_comes_back() {
    let Some((mut cluster, volumes)) = start().await else { return };
    let mut ids = BTreeSet::new();
    put(&cluster, &mut ids, 20).await;
    let full = cluster.leader().await;
    volumes[full].fill();
    // What it has room for still, it takes; then the others do.
    let said = cluster.nodes[full].host().watch(GROUP).expect("a replica");
    let says = tokio::spawn(says_that_it_is_full(said));
    while !says.is_finished() {
        put(&cluster, &mut ids, 10).await;
        assert!(ids.len() < 5_000, "the disk is full and nothing stops: {:?}", status(&cluster, full));
    }
    led_without(&cluster, full).await;
    put(&cluster, &mut ids, 40).await;
    assert!(!status(&cluster, full).leads());
    volumes[full].free();
    check(&cluster, &ids).await;
    // Also its state's files are written again.
    put(&cluster, &mut ids, 5).await;
    cluster.nodes[full].host().flush().await.expect("a flush");
    check(&cluster, &ids).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_cannot_be_flushed_loses_nothing_and_is_flushed_later() {
    let Some((mut cluster, volumes)) = start().await else { return };
    let mut ids = BTreeSet::new();
    put(&cluster, &mut ids, 40).await;
    let leader = cluster.leader().await;
    let full = (leader + 1) % 3;
    volumes[full].fill();
    let refused = cluster.nodes[full].host().flush().await.expect_err("there is no room for the state's files");
    assert!(refused.to_string().contains("No space"), "{refused}");
    // The others do not notice, whatever becomes of this one.
    put(&cluster, &mut ids, 40).await;
    volumes[full].free();
    check(&cluster, &ids).await;
    cluster.nodes[full].host().flush().await.expect("a flush");
    // What was flushed is what the process would begin with.
    cluster.nodes[full].stop().await;
    cluster.nodes[full].start().await;
    check(&cluster, &ids).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_hangs_gives_way_and_comes_back() {
    let Some((mut cluster, volumes)) = start().await else { return };
    let mut ids = BTreeSet::new();
    put(&cluster, &mut ids, 20).await;
    let term = status(&cluster, cluster.leader().await).term;
    let hangs = cluster.leader().await;
    volumes[hangs].freeze();
    // It hears nothing from its disk, no error either.
    put(&cluster, &mut ids, 40).await;
    led_without(&cluster, hangs).await;
    assert!(!status(&cluster, hangs).leads());
    volumes[hangs].thaw();
    check(&cluster, &ids).await;
    let now = status(&cluster, cluster.leader().await).term;
    assert!(now > term, "another leads since");
    put(&cluster, &mut ids, 5).await;
    check_exactly_once(&cluster.settled(GROUP).await, &ids.range(ids.len() as u64 - 5..).copied().collect(), BYTES);
    cluster.shutdown().await;
}
