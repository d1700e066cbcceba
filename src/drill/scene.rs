//! Breaking and healing in order: the journal first, then the fault, then its end; and the drills that are made of that.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use postrider_api::id::ShardId;
use postrider_api::pb;
use postrider_router::operate::primary_of;
use tokio::time::Instant;

use super::fault::{Fault, Who};
use super::hands::Hands;
use super::installation::Installation;
use super::journal::Journal;
use super::steer::Ctl;
use super::timeline::Timeline;
use super::watch::Watch;
use crate::ctl::session::Session;
use crate::ctl::whole;
use crate::local::Job;

/// How long the cluster may take to be whole again after everything was healed.
const WHOLE_MAX: Duration = Duration::from_secs(240);
/// How long a frontend may take to serve after its start.
const READY_MAX: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(250);
/// Shards that `move-under-load` moves.
const MOVED_SHARDS_MAX: usize = 3;
/// A drain or a move that takes longer than that does not come to an end.
const OPERATION_MAX: Duration = Duration::from_secs(600);

/// Everything that a drill works with.
pub(super) struct Scene {
    pub(super) hands: Hands,
    pub(super) journal: Journal,
    pub(super) installation: Installation,
    pub(super) ctl: Ctl,
    pub(super) session: Arc<Session>,
    pub(super) timeline: Timeline,
    /// There while something may go wrong.
    pub(super) watch: Option<Watch>,
    /// What is started again is started from it.
    pub(super) binary: Option<PathBuf>,
}

impl Scene {
    /// Breaks one thing, leaves it broken for so long, and heals it.
    pub(super) async fn hold(&mut self, fault: &Fault, long: Duration) -> anyhow::Result<()> {
        self.timeline.phase(&fault.to_string(), true);
        self.break_it(fault).await?;
        tokio::time::sleep(long).await;
        self.timeline.phase("healing", true);
        self.heal(fault).await
    }

    /// The journal says so before it is so.
    pub(super) async fn break_it(&mut self, fault: &Fault) -> anyhow::Result<()> {
        if let Some(watch) = &self.watch {
            watch.hurts(self.hurts(fault));
        }
        self.journal.begin(fault)?;
        self.hands.break_it(fault).await
    }

    pub(super) async fn heal(&mut self, fault: &Fault) -> anyhow::Result<()> {
        self.hands.heal(fault, self.binary.as_deref()).await?;
        if let Fault::Drain { node } = fault {
            self.ctl.activate(*node).await.with_context(|| format!("let node {node} take part again"))?;
        }
        self.journal.end(fault)
    }

    /// Heals whatever is broken, the newest first. What cannot be healed does not keep the others from it.
    pub(super) async fn heal_all(&mut self) -> anyhow::Result<usize> {
        let broken = self.journal.broken();
        let mut failed = Vec::new();
        for fault in &broken {
            if let Err(error) = self.heal(fault).await {
                failed.push(format!("{error:#}"));
            }
        }
        match failed.is_empty() {
            true => Ok(broken.len()),
            false => bail!("not everything is healed: {}", failed.join("; ")),
        }
    }

    /// Nodes that may not answer while this is broken.
    pub(super) fn hurts(&self, fault: &Fault) -> BTreeSet<u64> {
        match fault.who() {
            // A node that is drained answers.
            Who::Node(_) if matches!(fault, Fault::Drain { .. }) => BTreeSet::new(),
            Who::Node(id) => BTreeSet::from([id]),
            Who::Region(region) => {
                self.installation.region(&region).map(|r| r.nodes.iter().map(|n| n.id).collect()).unwrap_or_default()
            }
            Who::Frontend(_) | Who::Store(_) | Who::Dns(_) => BTreeSet::new(),
        }
    }

    /// Refuses what would take a shard's quorum: that is no drill.
    pub(super) fn check_quorum(&self, fault: &Fault) -> anyhow::Result<()> {
        let hurt = self.hurts(fault);
        match without_quorum(&self.session.map().shards, &hurt) {
            Some(shard) => bail!(
                "{fault}: shard {} would be without a quorum of its replicas {:?}. A drill breaks what the cluster is made to bear",
                shard.id,
                shard.replicas
            ),
            None => Ok(()),
        }
    }

    /// Waits until every shard has its primary and all its replicas, caught up, and every node answers.
    pub(super) async fn until_whole(&self) -> anyhow::Result<()> {
        let until = Instant::now() + WHOLE_MAX;
        loop {
            let Some(lacks) = self.lacks().await else {
                let now = self.timeline.now_ms();
                self.timeline.with(|events| events.whole_ms = Some(now));
                if let Some(watch) = &self.watch {
                    watch.hurts(BTreeSet::new());
                }
                return Ok(());
            };
            if Instant::now() > until {
                bail!("the cluster is not whole {} s after everything was healed: {lacks}", WHOLE_MAX.as_secs());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What the cluster lacks, in words.
    pub(super) async fn lacks(&self) -> Option<String> {
        let look = whole::look(&self.session).await;
        let silent: Vec<String> = look
            .reports
            .iter()
            .filter(|report| report.status.is_err())
            .map(|report| format!("node {} does not answer", report.node.id))
            .collect();
        match look.lacks.nothing() {
            true if silent.is_empty() => None,
            true => Some(silent.join("; ")),
            false => {
                Some(std::iter::once(format!("shards {}", look.lacks)).chain(silent).collect::<Vec<_>>().join("; "))
            }
        }
    }

    /// The node that leads the most mailbox shards, of a region or of these regions.
    pub(super) async fn busiest(&self, regions: &[String]) -> anyhow::Result<u64> {
        let reports = self.session.reports().await;
        let map = self.session.map();
        let led: Vec<u64> = map
            .shards
            .iter()
            .filter(|shard| shard.id >= ShardId::MAILBOX_FIRST.0)
            .filter_map(|shard| primary_of(shard.id, &reports))
            .collect();
        let nodes = map.nodes.iter().filter(|node| regions.contains(&node.region)).map(|node| node.id);
        let most = nodes.max_by_key(|id| (led.iter().filter(|node| *node == id).count(), std::cmp::Reverse(*id)));
        most.with_context(|| format!("{} has no node", regions.join(", ")))
    }

    /// Another node of the same region that has room for a shard's replica.
    pub(super) fn neighbour(&self, shard: &pb::Shard, from: u64) -> Option<u64> {
        let map = self.session.map();
        let region = map.nodes.iter().find(|node| node.id == from).map(|node| node.region.clone())?;
        let takes = |node: &&pb::Node| {
            node.region == region && !shard.replicas.contains(&node.id) && node.state() == pb::NodeState::Active
        };
        map.nodes.iter().find(takes).map(|node| node.id)
    }

    /// Whether a node can be emptied: somebody in its region takes what it has.
    pub(super) fn has_neighbour(&self, node: u64) -> bool {
        let map = self.session.map();
        let region = map.nodes.iter().find(|known| known.id == node).map(|known| known.region.clone());
        map.nodes.iter().any(|other| {
            other.id != node && Some(&other.region) == region.as_ref() && other.state() == pb::NodeState::Active
        })
    }

    /// Empties a node, and lets it take part again.
    pub(super) async fn drain(&mut self, node: u64) -> anyhow::Result<()> {
        let fault = Fault::Drain { node };
        self.timeline.phase(&fault.to_string(), true);
        self.break_it(&fault).await?;
        let drained = tokio::time::timeout(OPERATION_MAX, self.ctl.drain(node)).await;
        drained.with_context(|| format!("node {node} is not empty after {} s", OPERATION_MAX.as_secs()))??;
        self.timeline.phase("taking part again", true);
        self.heal(&fault).await
    }

    /// Stops and starts every process in turn; the next node only once the cluster is whole.
    pub(super) async fn roll(&mut self) -> anyhow::Result<()> {
        for job in self.installation.jobs() {
            self.roll_one(&job).await?;
        }
        Ok(())
    }

    pub(super) async fn roll_one(&mut self, job: &Job) -> anyhow::Result<()> {
        let fault = Fault::Stop { who: Who::from(job) };
        self.timeline.phase(&format!("{} is restarted", job.name()), true);
        self.break_it(&fault).await?;
        self.heal(&fault).await?;
        match job {
            Job::Node { .. } => self.until_whole().await,
            Job::Frontend { region } => self.until_ready(region).await,
            Job::Store { .. } | Job::Dns { .. } => Ok(()),
        }
    }

    async fn until_ready(&self, region: &str) -> anyhow::Result<()> {
        let url = format!("{}/readyz", self.installation.region(region)?.rest);
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().context("make an HTTP client")?;
        let until = Instant::now() + READY_MAX;
        loop {
            let said = http.get(&url).send().await.and_then(reqwest::Response::error_for_status);
            match said {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until => {
                    return Err(error).with_context(|| format!("{url} is not ready"));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Moves the replicas of some shards to other nodes of their regions, where there are any, and hands their leads round.
    pub(super) async fn move_around(&mut self, shards: &[u32]) -> anyhow::Result<()> {
        for shard in shards.iter().take(MOVED_SHARDS_MAX) {
            self.timeline.phase(&format!("shard {shard} moves"), true);
            let place = self.session.shard(*shard)?;
            let primary = self.session.primary(*shard).await?.0;
            let mut replicas = place.replicas.clone();
            // The leading one last.
            replicas.sort_by_key(|node| *node == primary);
            for from in replicas {
                let place = self.session.shard(*shard)?;
                if let Some(to) = self.neighbour(&place, from) {
                    let moved = tokio::time::timeout(OPERATION_MAX, self.ctl.relocate(*shard, from, to)).await;
                    moved.with_context(|| {
                        format!("shard {shard} does not move within {} s", OPERATION_MAX.as_secs())
                    })??;
                }
            }
            let place = self.session.shard(*shard)?;
            self.timeline.phase(&format!("the lead of shard {shard} goes round"), true);
            for node in place.replicas {
                self.ctl.transfer(*shard, node).await?;
            }
        }
        Ok(())
    }
}

/// A shard whose replicas off these nodes are no majority.
fn without_quorum<'a>(shards: &'a [pb::Shard], hurt: &BTreeSet<u64>) -> Option<&'a pb::Shard> {
    shards.iter().find(|shard| {
        let left = shard.replicas.iter().filter(|node| !hurt.contains(node)).count();
        left * 2 <= shard.replicas.len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_take_a_quorum_is_no_drill() {
        let shard = |id, replicas: &[u64]| pb::Shard { id, replicas: replicas.to_vec(), ..pb::Shard::default() };
        let shards = [shard(1000, &[1, 2, 3]), shard(1001, &[3, 4, 5])];
        let hurt = |nodes: &[u64]| without_quorum(&shards, &nodes.iter().copied().collect()).map(|shard| shard.id);
        assert_eq!(hurt(&[1]), None);
        assert_eq!(hurt(&[1, 4]), None);
        assert_eq!(hurt(&[3, 4]), Some(1001));
        assert_eq!(hurt(&[1, 2, 4]), Some(1000));
    }
}
