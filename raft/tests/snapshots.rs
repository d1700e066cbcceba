//! Followers that lag too far, members that come and go, logs that are purged.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postrider_raft::{GroupId, HostOptions, Member, MemberError, NodeId, Role};
use support::mesh::{Mesh, Snag, Stream};
use support::{Cluster, GROUP, MADE, check_exactly_once, command, eventually, rows};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BYTES: usize = 3_000;

/// Small limits, so that purges and snapshots happen within a test.
fn small(options: &mut HostOptions) {
    options.limits.keep_entries = 4;
    options.limits.lag_bytes_max = 10_000;
    options.limits.snapshot_block_bytes = 8_000;
    options.limits.snapshot_file_bytes = 100_000;
}

async fn fill(cluster: &Cluster, ids: std::ops::Range<u64>) {
    for id in ids {
        cluster.put(id, BYTES).await;
    }
}

/// Flushes until the log of every running node is purged beyond `index`.
async fn purge_beyond(cluster: &Cluster, index: u64) {
    eventually("a purge", || async {
        for node in &cluster.nodes {
            let Some(host) = &node.host else { continue };
            host.flush().await.expect("a flush");
            if host.status(GROUP)?.purged < Some(index) {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_purged_that_was_not_flushed() {
    let mut cluster = Cluster::start_with(1, small).await;
    fill(&cluster, 0..100).await;
    let host = cluster.nodes[0].host();
    let before = host.status(GROUP).expect("a status");
    assert_eq!(before.purged, None);
    purge_beyond(&cluster, 50).await;
    let status = host.status(GROUP).expect("a status");
    assert!(status.purged.expect("purged") + 4 <= status.flushed.expect("flushed"), "{status:?}");
    assert!(status.flushed <= status.applied, "{status:?}");
    cluster.shutdown().await;
    cluster.nodes[0].start().await;
    let rows = cluster.settled(GROUP).await;
    check_exactly_once(&rows, &(0..100).collect(), BYTES);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_lags_beyond_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::start_with(3, small).await;
    fill(&cluster, 0..40).await;
    let leader = cluster.leader().await;
    let lagging = (leader + 1) % 3;
    let had = cluster.nodes[lagging].host().status(GROUP).expect("a status").last_log.expect("entries");
    cluster.nodes[lagging].stop().await;
    fill(&cluster, 40..400).await;
    purge_beyond(&cluster, had + 100).await;
    cluster.nodes[lagging].start().await;
    let rows = cluster.settled(GROUP).await;
    assert_eq!(rows.len(), 400);
    let status = cluster.nodes[lagging].host().status(GROUP).expect("a status");
    assert!(status.purged > Some(had + 50), "it came by entries, not by a snapshot: {status:?}");
    // It goes on from there, and survives a restart.
    fill(&cluster, 400..420).await;
    cluster.nodes[lagging].stop().await;
    cluster.nodes[lagging].start().await;
    let rows = cluster.settled(GROUP).await;
    assert_eq!(rows.len(), 420);
    let spool = cluster.nodes[lagging].dir.join("spool");
    assert_eq!(std::fs::read_dir(spool).expect("the spool").count(), 0, "files were left behind");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_a_little_behind_is_served_from_the_log() {
    let mut cluster = Cluster::start_with(3, |options| {
        small(options);
        options.limits.lag_bytes_max = 64 << 20;
    })
    .await;
    fill(&cluster, 0..40).await;
    let leader = cluster.leader().await;
    let lagging = (leader + 1) % 3;
    cluster.nodes[lagging].stop().await;
    fill(&cluster, 40..200).await;
    let host = cluster.nodes[leader].host();
    host.flush().await.expect("a flush");
    cluster.nodes[lagging].start().await;
    let rows = cluster.settled(GROUP).await;
    assert_eq!(rows.len(), 200);
    let status = cluster.nodes[lagging].host().status(GROUP).expect("a status");
    assert!(status.purged < Some(60), "a snapshot came although the log would have done: {status:?}");
    cluster.shutdown().await;
}

async fn change(cluster: &Cluster, voters: BTreeSet<NodeId>) {
    eventually("a change of members", || async {
        let leader = cluster.leader().await;
        match cluster.nodes[leader].host().change_members(GROUP, voters.clone()).await {
            Ok(()) => Some(()),
            Err(
                MemberError::NotLeader { .. } | MemberError::InProgress | MemberError::NoQuorum | MemberError::Unknown,
            ) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_moves_to_another_node() {
    let mut cluster = Cluster::start_with(3, small).await;
    fill(&cluster, 0..300).await;
    purge_beyond(&cluster, 100).await;
    let joining = cluster.add_node().await;
    let id = cluster.nodes[joining].id;
    cluster.nodes[joining].host().open_replica(GROUP, MADE).await.expect("a replica");
    let leader = cluster.leader().await;
    let host = cluster.nodes[leader].host();
    assert_eq!(
        host.change_members(GROUP, BTreeSet::from([NodeId(1), NodeId(2), id])).await,
        Err(MemberError::UnknownMember { node: id }),
    );
    host.add_learner(GROUP, id, cluster.member(joining)).await.expect("a learner");
    eventually("the learner has caught up", || async {
        let status = host.status(GROUP)?;
        (*status.matched.get(&id)? >= status.committed && status.committed.is_some()).then_some(())
    })
    .await;
    let status = cluster.nodes[joining].host().status(GROUP).expect("a status");
    assert_eq!(status.role, Role::Learner);

    // Whoever leads may be the one to go: it hands over by itself.
    let leaving = leader;
    let stay: BTreeSet<NodeId> =
        cluster.nodes.iter().enumerate().filter(|(at, _)| *at != leaving).map(|(_, node)| node.id).collect();
    change(&cluster, stay.clone()).await;
    let gone = cluster.nodes[leaving].id;
    cluster.nodes[leaving].host().remove_replica(GROUP).await.expect("a removal");
    assert_eq!(cluster.nodes[leaving].host().status(GROUP), None);
    assert_eq!(rows(&cluster.nodes[leaving].host().state(), GROUP).len(), 0);

    fill(&cluster, 300..320).await;
    let rows = cluster.settled(GROUP).await;
    check_exactly_once(&rows, &(0..320).collect(), BYTES);
    let leader = cluster.leader().await;
    let status = cluster.nodes[leader].host().status(GROUP).expect("a status");
    assert_eq!(status.voters.keys().copied().collect::<BTreeSet<_>>(), stay);
    assert!(!status.voters.contains_key(&gone));

    // And it may come back.
    let host = cluster.nodes[leader].host();
    cluster.nodes[leaving].host().open_replica(GROUP, MADE).await.expect("a replica");
    host.add_learner(GROUP, gone, cluster.member(leaving)).await.expect("a learner");
    let rows = cluster.settled(GROUP).await;
    assert_eq!(rows.len(), 320);
    host.remove_learner(GROUP, gone).await.expect("no learner any more");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_replica_stays_removed() {
    let mut cluster = Cluster::start_with(1, small).await;
    let other = GroupId(2);
    cluster.create(other).await;
    fill(&cluster, 0..50).await;
    let host = cluster.nodes[0].host();
    host.propose(other, command(1, BYTES)).await.expect("a reply");
    host.remove_replica(GROUP).await.expect("a removal");
    host.remove_replica(GROUP).await.expect("removing what is not there");
    cluster.shutdown().await;
    cluster.nodes[0].start().await;
    let host = cluster.nodes[0].host();
    assert_eq!(host.groups(), [other]);
    assert_eq!(rows(&host.state(), GROUP).len(), 0);
    eventually("the other group leads", || async { host.read_barrier(other).await.ok() }).await;
    assert_eq!(rows(&host.state(), other).len(), 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_state_travels_in_many_blocks_and_files() {
    let mut cluster = Cluster::start_with(3, small).await;
    let ids: Vec<u64> = (0..300).collect();
    for chunk in ids.chunks(50) {
        let leader = cluster.leader().await;
        let host = cluster.nodes[leader].host();
        let written = chunk.iter().map(|id| host.propose(GROUP, command(*id, 20_000)));
        for result in futures::future::join_all(written).await {
            result.expect("a reply");
        }
    }
    let leader = cluster.leader().await;
    let joining = cluster.add_node().await;
    purge_beyond_running(&cluster, 200).await;
    cluster.nodes[joining].host().open_replica(GROUP, MADE).await.expect("a replica");
    let host = cluster.nodes[leader].host();
    host.add_learner(GROUP, cluster.nodes[joining].id, cluster.member(joining)).await.expect("a learner");
    let rows = tokio::time::timeout(Duration::from_secs(120), cluster.settled(GROUP)).await.expect("a snapshot");
    check_exactly_once(&rows, &ids.iter().copied().collect(), 20_000);
    cluster.shutdown().await;
}

/// Three hosts on a network in memory, of which the last was down while so much was written that it needs a snapshot.
async fn lagging(mesh: &Arc<Mesh>, tweak: impl Fn(&mut HostOptions) + Send + Sync + 'static) -> Cluster {
    let places = mesh.clone();
    let mut cluster = Cluster::empty(move |options| {
        small(options);
        options.limits.snapshot_bytes_per_s = u64::MAX;
        options.transport = Some(places.place(options.node));
        tweak(options);
    });
    for at in 0..3 {
        cluster.add_node().await;
        mesh.join(&cluster.nodes[at].host().inbox());
    }
    cluster.create(GROUP).await;
    fill(&cluster, 0..40).await;
    if cluster.leader().await == 2 {
        cluster.nodes[2].host().transfer(GROUP, NodeId(1)).await.expect("another leader");
    }
    let had = cluster.nodes[2].host().status(GROUP).expect("a status").last_log.expect("entries");
    mesh.leave(cluster.nodes[2].id);
    cluster.nodes[2].stop().await;
    fill(&cluster, 40..400).await;
    purge_beyond(&cluster, had + 100).await;
    cluster
}

async fn rejoin(mesh: &Mesh, cluster: &mut Cluster) {
    cluster.nodes[2].start().await;
    mesh.join(&cluster.nodes[2].host().inbox());
}

/// Streams of the sending that came last, which must have brought the snapshot.
fn last_sending(mesh: &Mesh) -> Vec<Stream> {
    let mut streams = mesh.streams();
    let last = streams.last().expect("a stream").transfer;
    streams.retain(|stream| stream.transfer == last);
    streams
}

/// A cluster whose last member has come by a snapshot although this went wrong, and is checked.
async fn came_through(mesh: &Arc<Mesh>, snag: Snag) -> Cluster {
    let mut cluster = lagging(mesh, |_| {}).await;
    mesh.snag(snag);
    rejoin(mesh, &mut cluster).await;
    let rows = cluster.settled(GROUP).await;
    check_exactly_once(&rows, &(0..400).collect(), BYTES);
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_whose_stream_breaks_goes_on_where_it_broke() {
    let mesh = Arc::<Mesh>::default();
    let mut cluster = came_through(&mesh, Snag::Break(40)).await;
    // 400 rows of 3,000 bytes in blocks of 8,000: 134 blocks, for a stream has room for 39 of them.
    let streams = last_sending(&mesh);
    assert!(streams.len() >= 4, "{streams:?}");
    for (one, next) in streams.iter().zip(&streams[1..]) {
        // What was on its way when the sender asked comes again.
        let had = one.before..one.before + one.parts;
        assert!(next.before > one.before && had.contains(&next.before), "{streams:?}");
    }
    let spool = cluster.nodes[2].dir.join("spool");
    assert_eq!(std::fs::read_dir(spool).expect("the spool").count(), 0, "files were left behind");
    fill(&cluster, 400..410).await;
    assert_eq!(cluster.settled(GROUP).await.len(), 410);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_only_its_sender_gave_up_makes_way_for_the_next() {
    let mesh = Arc::<Mesh>::default();
    let mut cluster = came_through(&mesh, Snag::Hang(40)).await;
    let streams = last_sending(&mesh);
    assert!(streams.len() >= 4, "{streams:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_whose_answer_is_lost_is_not_sent_again() {
    let mesh = Arc::<Mesh>::default();
    let mut cluster = came_through(&mesh, Snag::Answer).await;
    let whole = mesh.streams().into_iter().filter(|stream| stream.parts > 130).count();
    assert_eq!(whole, 1, "{:?}", mesh.streams());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_a_snapshot_goes_when_its_sender_does() {
    let mesh = Arc::<Mesh>::default();
    let mut cluster = lagging(&mesh, |options| options.timings.snapshot_idle_ms = 1_000).await;
    mesh.snag(Snag::Part(40));
    rejoin(&mesh, &mut cluster).await;
    let spool = cluster.nodes[2].dir.join("spool");
    let folders = || std::fs::read_dir(&spool).expect("the spool").count();
    eventually("a stream breaks", || async { (mesh.streams().first()?.parts == 40).then_some(()) }).await;
    eventually("something is kept", || async { (folders() > 0).then_some(()) }).await;
    eventually("nothing is kept any more", || async { (folders() == 0).then_some(()) }).await;
    let had = cluster.nodes[2].host().status(GROUP).expect("a status").applied;
    assert!(had < Some(100), "it was installed after all: {had:?}");
    // Another sending begins from the start, and comes through.
    let before = mesh.streams();
    mesh.snag(Snag::Nothing);
    mesh.heal();
    let rows = cluster.settled(GROUP).await;
    check_exactly_once(&rows, &(0..400).collect(), BYTES);
    let after = mesh.streams()[before.len()..].to_vec();
    let fresh = |stream: &Stream| stream.before == 0 && stream.transfer != before[0].transfer;
    assert!(!after.is_empty() && after.iter().all(fresh), "{before:?} {after:?}");
    cluster.shutdown().await;
}

/// Passes on what comes for `to`, and cuts each connection after so many bytes.
async fn cutting_proxy(to: SocketAddr, bytes: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(far) = TcpStream::connect(to).await else { return };
                let (near_read, mut near_write) = near.into_split();
                let (mut far_read, mut far_write) = far.into_split();
                let mut near_read = near_read.take(bytes);
                let forth = async {
                    // What was passed on arrives, and then the end.
                    let _ = tokio::io::copy(&mut near_read, &mut far_write).await;
                    let _ = far_write.shutdown().await;
                };
                let back = tokio::io::copy(&mut far_read, &mut near_write);
                let _ = tokio::join!(forth, back);
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_larger_than_any_connection_lives() {
    let mut cluster = Cluster::start_with(1, small).await;
    let ids: Vec<u64> = (0..300).collect();
    for id in &ids {
        cluster.put(*id, 20_000).await;
    }
    purge_beyond(&cluster, 250).await;
    let joining = cluster.add_node().await;
    cluster.nodes[joining].host().open_replica(GROUP, MADE).await.expect("a replica");
    // Six megabytes, of which a connection brings one.
    let proxy = cutting_proxy(cluster.nodes[joining].address, 1_000_000).await;
    let member = Member { address: proxy.to_string(), region: "r".to_owned() };
    cluster.nodes[0].host().add_learner(GROUP, cluster.nodes[joining].id, member).await.expect("a learner");
    let rows = cluster.settled(GROUP).await;
    check_exactly_once(&rows, &ids.iter().copied().collect(), 20_000);
    cluster.shutdown().await;
}

/// Like `purge_beyond`, for the nodes that host the group.
async fn purge_beyond_running(cluster: &Cluster, index: u64) {
    eventually("a purge", || async {
        for node in &cluster.nodes {
            let host = node.host();
            host.flush().await.expect("a flush");
            if host.status(GROUP).is_some_and(|status| status.purged < Some(index)) {
                return None;
            }
        }
        Some(())
    })
    .await;
}
