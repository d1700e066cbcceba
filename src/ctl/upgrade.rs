//! `ctl upgrade`: which builds run where, which version groups are at, and the order to raise them once every node has been upgraded.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use postrider_api::id::ShardId;
use postrider_api::pb::{self, command::Op, outcome};
use postrider_api::version::{CHANGES, or_initial};
use serde::Serialize;

use super::Verdict;
use super::session::{DEADLINE, Session};
use super::table::{Align, Table};

/// Until every group is raised: each is woken for it, some at a time.
const RAISE_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Which builds run where, what groups have switched on, and what finishing would switch on. Changes nothing.
    Status,
    /// Raise all groups to the newest version that every node knows. There is no way back: older builds refuse to start from then on.
    Finish {
        /// An older one instead: of a wish that no group has followed yet.
        #[arg(long, value_name = "N")]
        version: Option<u32>,
    },
}

pub(super) async fn run(session: &Session, task: Task) -> anyhow::Result<Verdict> {
    match task {
        Task::Status => Upgrade::of(&session.map()).print(session),
        Task::Finish { version } => finish(session, version).await,
    }
}

#[derive(Serialize)]
struct Upgrade {
    /// What groups are raised to.
    target: u32,
    /// How many shards are at which version, as their leaders have recorded it.
    shards: BTreeMap<u32, usize>,
    nodes: Vec<NodeLine>,
    /// The newest version that every node knows: what finishing raises groups to.
    finishes_at: u32,
    /// What that switches on.
    switches_on: Vec<Change>,
    /// Why it is not more.
    waits_for: Vec<String>,
}

#[derive(Serialize)]
struct NodeLine {
    node: u64,
    region: String,
    /// Empty: it has not reported since it was registered.
    build: String,
    /// The newest version that it knows.
    knows: u32,
}

#[derive(Serialize)]
struct Change {
    version: u32,
    what: String,
}

impl Upgrade {
    fn of(map: &pb::ShardMap) -> Self {
        let mut shards = BTreeMap::new();
        for shard in &map.shards {
            *shards.entry(or_initial(shard.version)).or_default() += 1;
        }
        let line = |node: &pb::Node| NodeLine {
            node: node.id,
            region: node.region.clone(),
            build: node.build.clone(),
            knows: or_initial(node.version_max),
        };
        let mut nodes: Vec<NodeLine> = map.nodes.iter().map(line).collect();
        nodes.sort_by_key(|node| node.node);
        let target = or_initial(map.target_version);
        let newest = nodes.iter().map(|node| node.knows).max().unwrap_or(target);
        let finishes_at = nodes.iter().map(|node| node.knows).min().unwrap_or(target);
        let waits_for = nodes.iter().filter(|node| node.knows < newest).map(|node| match &node.build[..] {
            "" => format!("node {} has not reported which build it runs", node.node),
            build => format!("node {} runs {build}, which knows up to {}", node.node, node.knows),
        });
        let waits_for = waits_for.collect();
        let switches_on = (target + 1..=finishes_at).map(|version| {
            let what = CHANGES.iter().find(|(of, _)| *of == version).map(|(_, what)| *what);
            Change { version, what: what.unwrap_or("newer than this command knows").to_owned() }
        });
        let switches_on = switches_on.collect();
        Self { target, shards, nodes, finishes_at, switches_on, waits_for }
    }

    /// Whether every group is where it shall be.
    fn reached(&self) -> bool {
        self.shards.keys().all(|version| *version >= self.target)
    }

    fn print(&self, session: &Session) -> anyhow::Result<Verdict> {
        if session.json {
            session.print_json(self)?;
        } else {
            println!("Groups are raised to version {}.", self.target);
            for (version, count) in &self.shards {
                println!("  at version {version}: {count} shards");
            }
            let mut table = Table::new(&[
                ("node", Align::Right),
                ("region", Align::Left),
                ("build", Align::Left),
                ("knows up to", Align::Right),
            ]);
            for node in &self.nodes {
                let build = if node.build.is_empty() { "-" } else { &node.build };
                table.row([node.node.to_string(), node.region.clone(), build.to_owned(), node.knows.to_string()]);
            }
            table.print();
            match &self.switches_on[..] {
                [] => println!("There is nothing to finish."),
                some => {
                    println!("`ctl upgrade finish` raises them to version {}, which switches on:", self.finishes_at);
                    some.iter().for_each(|change| println!("  {}: {}", change.version, change.what));
                }
            }
            self.waits_for.iter().for_each(|reason| println!("Not yet upgraded: {reason}."));
        }
        Ok(if self.reached() { Verdict::Good } else { Verdict::Bad })
    }
}

/// Records the operator's wish and waits until every group has followed it.
async fn finish(session: &Session, version: Option<u32>) -> anyhow::Result<Verdict> {
    let upgrade = Upgrade::of(&session.map());
    let version = match version {
        Some(version) => version,
        None => {
            ensure!(upgrade.waits_for.is_empty(), "not every node has been upgraded: {}", upgrade.waits_for.join("; "));
            upgrade.finishes_at
        }
    };
    let command = pb::Command { op: Some(Op::SetVersion(pb::SetVersion { version })), ..pb::Command::default() };
    let mut changes = session.router.map_changes();
    let placed = session.router.propose(ShardId::PLACEMENT, None, command, DEADLINE).await.context("ask placement")?;
    if let Some(outcome::Result::Refused(refused)) = placed.result {
        bail!("placement refuses: {}", refused.detail);
    }
    let reached = changes.wait_for(|map| or_initial(map.target_version) == version && Upgrade::of(map).reached());
    // Groups with a node that does not know the version stay as they are: what is printed shows which nodes those are.
    if let Ok(followed) = tokio::time::timeout(RAISE_MAX, reached).await {
        drop(followed.context("follow the shard map")?);
    }
    Upgrade::of(&session.map()).print(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> pb::ShardMap {
        let shard = |id, version| pb::Shard { id, version, ..pb::Shard::default() };
        let node =
            |id, build: &str, version_max| pb::Node { id, build: build.into(), version_max, ..Default::default() };
        pb::ShardMap {
            shards: vec![shard(1, 0), shard(1000, 2)],
            nodes: vec![node(2, "0.1.0", 1), node(1, "0.2.0", 2), node(3, "", 0)],
            target_version: 2,
            ..Default::default()
        }
    }

    #[test]
    fn groups_that_are_behind_are_no_good_state() {
        let mut map = map();
        let upgrade = Upgrade::of(&map);
        assert_eq!((upgrade.target, upgrade.reached()), (2, false));
        assert_eq!(upgrade.shards, BTreeMap::from([(1, 1), (2, 1)]));
        map.shards[0].version = 2;
        assert!(Upgrade::of(&map).reached());
    }

    #[test]
    fn what_prevents_the_end_is_told_node_by_node() {
        let mut map = map();
        map.target_version = 1;
        let upgrade = Upgrade::of(&map);
        assert_eq!((upgrade.finishes_at, upgrade.switches_on.len()), (1, 0));
        let waits = ["node 2 runs 0.1.0, which knows up to 1", "node 3 has not reported which build it runs"];
        assert_eq!(upgrade.waits_for, waits);
        map.nodes.iter_mut().for_each(|node| node.version_max = 3);
        let upgrade = Upgrade::of(&map);
        assert_eq!(upgrade.switches_on.iter().map(|change| change.version).collect::<Vec<_>>(), [2, 3]);
        assert!(upgrade.waits_for.is_empty());
    }
}
