//! Elections of many silent groups at once: a node is lost, and those that it led have a leader again without anybody starting their consensus.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_raft::wire::{Ballots, GroupBallot, LogId, Vote, answer, ballots, message};
use postrider_raft::{GroupId, GroupIdentity, Host, HostOptions, NodeId};
use support::mesh::{Mesh, ids};
use support::{Cluster, MADE, check_exactly_once, command, eventually, rows};
use tokio::time::Instant;

const BYTES: usize = 200;
const NODES: usize = 3;

fn timings(options: &mut HostOptions) {
    options.timings.quiesce_ms = 1_000;
    options.timings.park_ms = 2_700;
}

/// Three nodes that talk through memory, with so many groups that the first one leads at first.
async fn start(
    groups: u32,
    tweak: impl Fn(&mut HostOptions) + Send + Sync + 'static,
) -> (Arc<Mesh>, Cluster, Vec<GroupId>) {
    let mesh = Arc::new(Mesh::default());
    let network = mesh.clone();
    let mut cluster = Cluster::empty(move |options| {
        tweak(options);
        options.transport = Some(network.place(options.node));
    });
    for _ in 0..NODES {
        let at = cluster.add_node().await;
        mesh.join(&cluster.nodes[at].host().inbox());
    }
    let groups: Vec<GroupId> = (1..=groups).map(GroupId).collect();
    for group in &groups {
        cluster.create(*group).await;
    }
    (mesh, cluster, groups)
}

async fn down(mesh: &Mesh, cluster: &mut Cluster, at: usize) {
    mesh.leave(ids(at));
    cluster.nodes[at].stop().await;
}

async fn up(mesh: &Mesh, cluster: &mut Cluster, at: usize) {
    cluster.nodes[at].start().await;
    mesh.join(&cluster.nodes[at].host().inbox());
}

async fn all_parked(cluster: &Cluster, groups: &[GroupId]) -> BTreeMap<GroupId, u64> {
    let mut terms = BTreeMap::new();
    for group in groups {
        terms.insert(*group, cluster.parked(*group).await);
    }
    terms
}

/// Waits until each group has a leader of a later term than these.
async fn all_led(cluster: &Cluster, terms: &BTreeMap<GroupId, u64>) {
    for (group, term) in terms {
        eventually("a leader of a later term", || async {
            cluster.statuses(*group).into_iter().find(|status| status.leads() && status.term > *term).map(drop)
        })
        .await;
    }
}

/// Proposes to whoever leads until it is acknowledged.
async fn put(cluster: &Cluster, group: GroupId, id: u64) {
    eventually("an acknowledgement", || async {
        for node in cluster.nodes.iter().filter_map(|node| node.host.as_ref()) {
            if node.propose(group, command(id, BYTES)).await.is_ok() {
                return Some(());
            }
        }
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_groups_elect_together_and_sleep_on() {
    const GROUPS: u32 = 40;
    let (mesh, mut cluster, groups) = start(GROUPS, timings).await;
    for group in &groups {
        put(&cluster, *group, 0).await;
    }
    let terms = all_parked(&cluster, &groups).await;
    let lost = 0;
    let led = cluster.nodes[lost]
        .host()
        .groups()
        .into_iter()
        .filter(|group| cluster.nodes[lost].host().status(*group).is_some_and(|status| status.leads()));
    let led: BTreeMap<GroupId, u64> = led.map(|group| (group, terms[&group])).collect();
    assert!(led.len() > GROUPS as usize / 2, "it leads most: {led:?}");
    mesh.votes();
    down(&mesh, &mut cluster, lost).await;
    all_led(&cluster, &led).await;
    let votes = mesh.votes();
    assert!(votes.single * 2 < led.len(), "openraft has not elected them: {votes:?}");
    assert!(votes.frames > 0 && votes.ballots > votes.frames, "many in one frame: {votes:?}");
    for group in led.keys() {
        // Those who do not lead know who does.
        let leader = cluster.parked(*group).await;
        assert!(leader > led[group]);
        eventually("all know the leader", || async {
            let statuses = cluster.statuses(*group);
            let leads = statuses.iter().filter(|status| status.leads()).count();
            let leader = statuses[0].leader;
            (leads == 1 && statuses.iter().all(|status| status.leader == leader)).then_some(())
        })
        .await;
    }
    // Each is used, the other member having slept through its election; and the one that was lost comes back.
    for group in &groups {
        put(&cluster, *group, 1).await;
    }
    up(&mesh, &mut cluster, lost).await;
    for group in &groups {
        check_exactly_once(&cluster.settled(*group).await, &(0..2).collect(), BYTES);
    }
    all_parked(&cluster, &groups).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_nobody_has_used_is_lost_as_well() {
    let (mesh, mut cluster, groups) = start(6, timings).await;
    for id in 0..3 {
        for group in &groups {
            put(&cluster, *group, id).await;
        }
        let before = all_parked(&cluster, &groups).await;
        // The first takes its leads with it; whoever gets them is lost before anybody has used one.
        for lost in 0..2 {
            let terms: BTreeMap<_, _> = groups
                .iter()
                .filter(|group| cluster.nodes[lost].host().status(**group).is_some_and(|status| status.leads()))
                .map(|group| (*group, before[group]))
                .collect();
            down(&mesh, &mut cluster, lost).await;
            all_led(&cluster, &terms).await;
            up(&mesh, &mut cluster, lost).await;
        }
    }
    for group in &groups {
        put(&cluster, *group, 3).await;
        check_exactly_once(&cluster.settled(*group).await, &(0..4).collect(), BYTES);
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_an_older_build_are_asked_by_consensus() {
    let (mesh, mut cluster, groups) = start(4, timings).await;
    for node in 0..NODES {
        mesh.make_old(ids(node));
    }
    for group in &groups {
        put(&cluster, *group, 0).await;
    }
    let mut terms = all_parked(&cluster, &groups).await;
    terms.retain(|group, _| cluster.nodes[0].host().status(*group).is_some_and(|status| status.leads()));
    assert!(!terms.is_empty());
    mesh.votes();
    down(&mesh, &mut cluster, 0).await;
    all_led(&cluster, &terms).await;
    assert!(mesh.votes().single > 0);
    for group in &groups {
        put(&cluster, *group, 1).await;
    }
    up(&mesh, &mut cluster, 0).await;
    for group in &groups {
        check_exactly_once(&cluster.settled(*group).await, &(0..2).collect(), BYTES);
    }
    cluster.shutdown().await;
}

/// Whether the replica of the first group gives its vote of `term` to `candidate`.
async fn granted(host: &Host, kind: ballots::Kind, term: u64, candidate: u64) -> bool {
    let ballot = GroupBallot {
        group: 1,
        incarnation: MADE.0,
        vote: Some(Vote { term, node: candidate, committed: false }),
        last_log: Some(LogId { term: term - 1, index: 1_000_000 }),
    };
    let asked = Ballots { kind: kind.into(), ballots: vec![ballot], life: 0, wake: 0 };
    let body = message::Body::Ballots(asked);
    match host.inbox().deliver(NodeId(candidate), GroupIdentity::default(), body).await {
        answer::Body::Ballots(answers) => answers.answers[0].granted,
        other => panic!("no votes: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_replica_votes_for_nobody_while_its_leader_is_there_and_then_once_a_term() {
    let (mesh, mut cluster, groups) = start(1, |options| {
        options.timings.election_min_ms = 1_500;
        options.timings.election_max_ms = 2_000;
        options.timings.quiesce_ms = 2_000;
        options.timings.park_ms = 6_000;
    })
    .await;
    let group = groups[0];
    put(&cluster, group, 0).await;
    cluster.parked(group).await;
    let leads = |at: &usize| cluster.nodes[*at].host().status(group).is_some_and(|status| status.leads());
    let leader = (0..NODES).find(leads).expect("a leader");
    let (voter, other) = ((leader + 1) % NODES, (leader + 2) % NODES);
    let (one, two) = (ids(other).0, ids(leader).0);
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        for kind in [ballots::Kind::PreVote, ballots::Kind::Vote] {
            assert!(!granted(cluster.nodes[voter].host(), kind, 1_000, one).await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(cluster.nodes[voter].host().status(group).expect("a status").parked, "nobody was woken by asking");
    // The one that leads says no, and wakes.
    assert!(!granted(cluster.nodes[leader].host(), ballots::Kind::Vote, 1_000, one).await);
    eventually("an awake leader", || async {
        cluster.nodes[leader].host().status(group).filter(|status| !status.parked && status.leads())
    })
    .await;
    cluster.parked(group).await;
    down(&mesh, &mut cluster, other).await;
    let gone = Instant::now();
    down(&mesh, &mut cluster, leader).await;
    let host = cluster.nodes[voter].host();
    eventually("a vote", || async { granted(host, ballots::Kind::PreVote, 1_000, one).await.then_some(()) }).await;
    // Its node may have answered last a beat and the time to stop before.
    assert!(gone.elapsed() > Duration::from_millis(1_000), "granted after {:?}", gone.elapsed());
    eventually("a vote", || async { granted(host, ballots::Kind::Vote, 1_000, one).await.then_some(()) }).await;
    assert!(host.status(group).expect("a status").parked, "no consensus was started");
    assert!(granted(host, ballots::Kind::Vote, 1_000, one).await, "the same again");
    assert!(!granted(host, ballots::Kind::Vote, 1_000, two).await);
    assert!(!granted(host, ballots::Kind::PreVote, 999, two).await);
    // It stands by what it has said, also in its next life.
    down(&mesh, &mut cluster, voter).await;
    up(&mesh, &mut cluster, voter).await;
    let host = cluster.nodes[voter].host();
    eventually("a vote", || async { granted(host, ballots::Kind::Vote, 1_000, one).await.then_some(()) }).await;
    assert!(!granted(host, ballots::Kind::Vote, 1_000, two).await);
    for at in [leader, other] {
        up(&mesh, &mut cluster, at).await;
    }
    put(&cluster, group, 1).await;
    check_exactly_once(&cluster.settled(group).await, &(0..2).collect(), BYTES);
    cluster.shutdown().await;
}

/// Who was seen to lead in which term.
#[derive(Default)]
struct Seen {
    leaders: Mutex<BTreeMap<(GroupId, u64), BTreeSet<usize>>>,
    acknowledged: Mutex<BTreeMap<GroupId, BTreeSet<u64>>>,
    stopping: AtomicBool,
    last: AtomicU64,
}

impl Seen {
    async fn watch(self: Arc<Self>, hosts: Vec<Host>, groups: Vec<GroupId>) {
        while !self.stopping.load(Ordering::Relaxed) {
            for group in &groups {
                for (at, host) in hosts.iter().enumerate() {
                    if let Some(status) = host.status(*group).filter(|status| status.leads()) {
                        self.leaders.lock().entry((*group, status.term)).or_default().insert(at);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Proposes each command once, now and then, so that the groups fall asleep between.
    async fn write(self: Arc<Self>, hosts: Vec<Host>, group: GroupId) {
        while !self.stopping.load(Ordering::Relaxed) {
            for host in &hosts {
                if !host.status(group).is_some_and(|status| status.leads()) {
                    continue;
                }
                let id = self.last.fetch_add(1, Ordering::Relaxed);
                if host.propose(group, command(id, BYTES)).await.is_ok() {
                    self.acknowledged.lock().entry(group).or_default().insert(id);
                }
            }
            let pause = 300 + u64::from(group.0) * 700;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_cut_off_no_term_has_two_leaders_and_nothing_is_lost() {
    const ROUNDS: usize = 6;
    const GROUPS: u32 = 8;
    let (mesh, mut cluster, groups) = start(GROUPS, |options| {
        options.timings.heartbeat_ms = 100;
        options.timings.election_min_ms = 200;
        options.timings.election_max_ms = 400;
        options.timings.quiesce_ms = 500;
        options.timings.park_ms = 1_200;
    })
    .await;
    let hosts: Vec<Host> = cluster.nodes.iter().map(|node| node.host().clone()).collect();
    let seen = Arc::new(Seen::default());
    let mut clients = vec![tokio::spawn(seen.clone().watch(hosts.clone(), groups.clone()))];
    clients.extend(groups.iter().map(|group| tokio::spawn(seen.clone().write(hosts.clone(), *group))));
    for round in 0..ROUNDS {
        // Long enough that the first groups are in use, and the last ones parked.
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        let one = round % NODES;
        match round % 3 {
            0 => mesh.isolate(one, NODES),
            1 => mesh.silence(one, (one + 1) % NODES),
            _ => mesh.cut(one, (one + 1) % NODES),
        }
        tokio::time::sleep(Duration::from_millis(2_000)).await;
        mesh.heal();
    }
    seen.stopping.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("a client");
    }
    for ((group, term), leaders) in seen.leaders.lock().iter() {
        assert_eq!(leaders.len(), 1, "{group} in term {term}: {leaders:?}");
    }
    let acknowledged = seen.acknowledged.lock().clone();
    assert_eq!(acknowledged.len(), groups.len(), "all were written to");
    for (group, ids) in &acknowledged {
        check_exactly_once(&cluster.settled(*group).await, ids, BYTES);
        assert!(!rows(&cluster.nodes[0].host().state(), *group).is_empty());
    }
    drop(hosts);
    cluster.shutdown().await;
}
