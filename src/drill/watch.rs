//! Watching the cluster while something is broken: who leads what, and whether anything is wrong that the drill did not break.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use postrider_api::pb;
use postrider_router::AdminClient;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::timeline::Timeline;
use crate::ctl::session::Session;
use postrider_router::operate::{NodeReport, primary_of};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a node may take to say how it is: one that is frozen does not.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A node that the drill leaves alone may be silent for so long: a busy machine.
const SILENT_MAX: Duration = Duration::from_secs(10);
/// So long may a shard be without a primary while something is broken: elections take a second or two, and a lease that lapses a few.
const LEADERLESS_MAX: Duration = Duration::from_secs(45);

/// Looks until it is dropped.
pub(super) struct Watch {
    task: JoinHandle<()>,
    /// Nodes that the drill hurts now.
    hurt: Arc<Mutex<BTreeSet<u64>>>,
    alarm: watch::Receiver<Option<String>>,
}

impl Watch {
    pub(super) fn start(session: Arc<Session>, timeline: Timeline) -> Self {
        let hurt = Arc::<Mutex<BTreeSet<u64>>>::default();
        let (raise, alarm) = watch::channel(None);
        let seen = Arc::clone(&hurt);
        let task = tokio::spawn(async move {
            let mut concern = Concern::default();
            let mut clients = BTreeMap::new();
            loop {
                let map = session.map();
                let reports = reports(&session, &map, &mut clients).await;
                for shard in &map.shards {
                    timeline.led(shard.id, primary_of(shard.id, &reports));
                }
                let hurt = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(why) = concern.look(&map, &reports, &hurt, Instant::now()) {
                    raise.send_if_modified(|alarm| alarm.is_none().then(|| *alarm = Some(why)).is_some());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Self { task, hurt, alarm }
    }

    /// What the drill hurts from now on.
    pub(super) fn hurts(&self, nodes: BTreeSet<u64>) {
        *self.hurt.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// Where it is told that something is wrong that the drill did not break.
    pub(super) fn alarm(&self) -> watch::Receiver<Option<String>> {
        self.alarm.clone()
    }
}

/// Waits until something is wrong, and says what.
pub(super) async fn raised(mut alarm: watch::Receiver<Option<String>>) -> String {
    let raised = alarm.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
    match raised {
        Some(why) => why,
        // Nobody watches any more: the drill is over.
        None => std::future::pending().await,
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What all nodes say, those that are too slow left out.
async fn reports(session: &Session, map: &pb::ShardMap, clients: &mut BTreeMap<u64, AdminClient>) -> Vec<NodeReport> {
    for node in &map.nodes {
        if let std::collections::btree_map::Entry::Vacant(entry) = clients.entry(node.id)
            && let Ok(client) = session.admin(node.id)
        {
            entry.insert(client);
        }
    }
    let clients = &*clients;
    let asked = join_all(map.nodes.iter().map(|node| async move {
        let client = clients.get(&node.id)?;
        let status = tokio::time::timeout(ANSWER_MAX, client.status()).await.ok()?;
        Some(NodeReport { node: node.clone(), status })
    }));
    asked.await.into_iter().flatten().collect()
}

/// Since when something is not as it should be.
#[derive(Default)]
struct Concern {
    silent: BTreeMap<u64, Instant>,
    leaderless: BTreeMap<u32, Instant>,
}

impl Concern {
    /// The reason to stop, if there is one: a second failure beside the drill's takes the quorum that the first one left.
    fn look(
        &mut self,
        map: &pb::ShardMap,
        reports: &[NodeReport],
        hurt: &BTreeSet<u64>,
        now: Instant,
    ) -> Option<String> {
        let answers = |node: u64| reports.iter().any(|report| report.node.id == node && report.status.is_ok());
        for node in &map.nodes {
            if answers(node.id) || hurt.contains(&node.id) {
                self.silent.remove(&node.id);
            } else if now.duration_since(*self.silent.entry(node.id).or_insert(now)) > SILENT_MAX {
                return Some(format!("node {}, which the drill leaves alone, does not answer", node.id));
            }
        }
        for shard in &map.shards {
            if primary_of(shard.id, reports).is_some() {
                self.leaderless.remove(&shard.id);
            } else if now.duration_since(*self.leaderless.entry(shard.id).or_insert(now)) > LEADERLESS_MAX {
                return Some(format!("shard {} has had no primary for {} s", shard.id, LEADERLESS_MAX.as_secs()));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> pb::Node {
        pb::Node { id, ..pb::Node::default() }
    }

    fn answering(id: u64, leads: bool) -> NodeReport {
        let role = if leads { pb::ReplicaRole::Leader } else { pb::ReplicaRole::Follower };
        let replica = pb::ReplicaStatus { shard: 1000, role: role.into(), term: 1, ..pb::ReplicaStatus::default() };
        NodeReport { node: node(id), status: Ok(pb::StatusReply { replicas: vec![replica], ..Default::default() }) }
    }

    #[test]
    fn a_second_failure_ends_a_drill_and_the_drills_own_does_not() {
        let shard = pb::Shard { id: 1000, replicas: vec![1, 2, 3], ..pb::Shard::default() };
        let map = pb::ShardMap { nodes: vec![node(1), node(2), node(3)], shards: vec![shard], ..Default::default() };
        let mut concern = Concern::default();
        let begin = Instant::now();
        let hurt = BTreeSet::from([3]);
        let two = [answering(1, true), answering(2, false)];
        assert_eq!(concern.look(&map, &two, &hurt, begin), None);
        assert_eq!(concern.look(&map, &two, &hurt, begin + SILENT_MAX * 10), None);
        let one = [answering(1, true)];
        assert_eq!(concern.look(&map, &one, &hurt, begin), None, "not at once");
        let why = concern.look(&map, &one, &hurt, begin + SILENT_MAX * 2).unwrap();
        assert!(why.contains("node 2"), "{why}");
    }

    #[test]
    fn a_shard_that_gets_no_primary_ends_a_drill() {
        let shard = pb::Shard { id: 1000, replicas: vec![1], ..pb::Shard::default() };
        let map = pb::ShardMap { nodes: vec![node(1)], shards: vec![shard], ..Default::default() };
        let mut concern = Concern::default();
        let begin = Instant::now();
        let nobody = [answering(1, false)];
        assert_eq!(concern.look(&map, &nobody, &BTreeSet::new(), begin), None);
        let why = concern.look(&map, &nobody, &BTreeSet::new(), begin + LEADERLESS_MAX * 2).unwrap();
        assert!(why.contains("shard 1000"), "{why}");
        assert_eq!(concern.look(&map, &[answering(1, true)], &BTreeSet::new(), begin + LEADERLESS_MAX * 3), None);
    }
}
