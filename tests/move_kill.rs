//! `kill -9` of each of the nodes that a move needs, in its middle, under load (P-1, P-6, P-8): the node that shall have the
//! replica, the node that has it, and the node that leads. The move is recorded: whoever leads then brings it to its end.
//!
//! Each takes a minute or two, for calls to a frozen node have to time out; CI has the leader alone. POSTRIDER_MOVE_KILLS=3 asks
//! for all.
//!
//! The node that shall have the replica is frozen before the move begins, so that it stands in its middle for as long as the
//! test wants.

mod harness;

use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, Options, parameter};
use tokio::process::Child;

/// How long a move may take with all that is done to it: each call to a frozen node has to time out.
const MOVE_DEADLINE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(200);

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Target,
    Source,
    Leader,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_outlives_the_nodes_that_carry_it() {
    let mut cluster = Cluster::start(Options { shards: 2, nodes_per_region: 2, ..Options::default() }).await;
    let user = Api::sign_up(cluster.region("seoul"), "mover@postrider.example").await;
    let plan = Plan::everywhere(&cluster, std::slice::from_ref(&user), "move-kill");
    let load = Load::start(Plan { connections: 6, attachment_every: 10, ..plan });
    let kills = usize::try_from(parameter("POSTRIDER_MOVE_KILLS", 1)).expect("a count");
    for victim in [Victim::Leader, Victim::Target, Victim::Source].into_iter().take(kills) {
        load.until_accepted(30).await;
        kill_in_the_middle(&mut cluster, &user, victim, &load).await;
    }
    load.until_accepted(30).await;
    let books = load.finish().await;
    println!("{} acknowledged of {}", books.accepted(), books.attempts.len());
    books.check(std::slice::from_ref(&user)).await;
    cluster.assert_consistent().await;
}

async fn kill_in_the_middle(cluster: &mut Cluster, user: &Api, victim: Victim, load: &Load) {
    let (shard, leader) = cluster.primary_of(&user.address).await;
    let before = cluster.replicas(shard).await;
    let source = *before.iter().find(|node| **node != leader).expect("a replica that does not lead");
    let target = sibling(cluster, source);
    assert!(!before.contains(&target), "the region's other node has no replica: {before:?}");
    let frozen = cluster.node_pid(target);
    cluster.freeze(frozen);
    let mut command = begin_move(cluster, shard, source, target);
    until_recorded(cluster).await;
    let killed = match victim {
        Victim::Target => target,
        Victim::Source => source,
        Victim::Leader => cluster.primary_of(&user.address).await.1,
    };
    println!("{victim:?}: shard {shard} moves from node {source} to {target}; node {killed} is killed");
    cluster.kill(&[cluster.node_pid(killed)]).await;
    assert_eq!(cluster.replicas(shard).await, before, "the move was in its middle");
    if victim == Victim::Target {
        cluster.revive("node", &target.to_string()).await;
    } else {
        cluster.thaw(frozen);
    }
    // Mail goes on coming in; without its target or source the move may end before the node is back, without its leader, too.
    load.until_accepted(10).await;
    let mut after: Vec<u64> = before.iter().copied().filter(|node| *node != source).chain([target]).collect();
    after.sort_unstable();
    until_moved(cluster, shard, &after).await;
    if victim != Victim::Target {
        cluster.revive("node", &killed.to_string()).await;
    }
    cluster.until_whole().await;
    // It may have lost the leader that it asked; the move does not depend on it.
    command.kill().await.expect("end the command");
}

/// The other node of a node's region.
fn sibling(cluster: &Cluster, node: u64) -> u64 {
    cluster.region_of(node).nodes.iter().map(|other| other.id).find(|id| *id != node).expect("another node")
}

fn begin_move(cluster: &Cluster, shard: u64, from: u64, to: u64) -> Child {
    cluster
        .ctl_command(&["move", &shard.to_string(), &from.to_string(), &to.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("run postrider ctl move")
}

async fn until_recorded(cluster: &Cluster) {
    let begin = Instant::now();
    loop {
        let (status, _) = cluster.ctl(&["status"]).await;
        if status["operations"] == 1 {
            return;
        }
        assert!(begin.elapsed() < MOVE_DEADLINE, "the move is recorded: {status}");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn until_moved(cluster: &Cluster, shard: u64, expected: &[u64]) {
    let begin = Instant::now();
    loop {
        let now = cluster.replicas(shard).await;
        let (status, _) = cluster.ctl(&["status"]).await;
        if now == expected && status["operations"] == 0 {
            return;
        }
        assert!(begin.elapsed() < MOVE_DEADLINE, "the replicas are {now:?}, not yet {expected:?}: {status}");
        tokio::time::sleep(PAUSE).await;
    }
}
