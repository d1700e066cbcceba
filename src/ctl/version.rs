//! `ctl version`: which version groups are at, which builds know more, and the order to raise them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use postrider_api::id::ShardId;
use postrider_api::pb::{self, command::Op, outcome};
use postrider_api::version::or_initial;
use serde::Serialize;

use super::Verdict;
use super::session::{DEADLINE, Session};
use super::table::{Align, Table};

/// Until every group is raised: each is woken for it, some at a time.
const RAISE_MAX: Duration = Duration::from_secs(300);

#[derive(Serialize)]
struct Versions {
    /// What groups are raised to.
    target: u32,
    /// How many shards are at which version, as their leaders have recorded it.
    shards: BTreeMap<u32, usize>,
    nodes: Vec<NodeLine>,
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

impl Versions {
    fn of(map: &pb::ShardMap) -> Self {
        let mut shards = BTreeMap::new();
        for shard in &map.shards {
            *shards.entry(or_initial(shard.version)).or_default() += 1;
        }
        let mut nodes: Vec<NodeLine> = map
            .nodes
            .iter()
            .map(|node| NodeLine {
                node: node.id,
                region: node.region.clone(),
                build: node.build.clone(),
                knows: or_initial(node.version_max),
            })
            .collect();
        nodes.sort_by_key(|node| node.node);
        Self { target: or_initial(map.target_version), shards, nodes }
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
        }
        Ok(if self.reached() { Verdict::Good } else { Verdict::Bad })
    }
}

pub(super) fn show(session: &Session) -> anyhow::Result<Verdict> {
    Versions::of(&session.map()).print(session)
}

/// Records the operator's wish and waits until every group has followed it.
pub(super) async fn raise(session: &Session, version: u32) -> anyhow::Result<Verdict> {
    let command = pb::Command { op: Some(Op::SetVersion(pb::SetVersion { version })), ..pb::Command::default() };
    let mut changes = session.router.map_changes();
    let placed = session.router.propose(ShardId::PLACEMENT, None, command, DEADLINE).await.context("ask placement")?;
    if let Some(outcome::Result::Refused(refused)) = placed.result {
        bail!("placement refuses: {}", refused.detail);
    }
    let reached = changes.wait_for(|map| or_initial(map.target_version) == version && Versions::of(map).reached());
    // Groups with a node that does not know the version stay as they are: what is printed shows which nodes those are.
    if let Ok(followed) = tokio::time::timeout(RAISE_MAX, reached).await {
        drop(followed.context("follow the shard map")?);
    }
    show(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_are_behind_are_no_good_state() {
        let shard = |id, version| pb::Shard { id, version, ..pb::Shard::default() };
        let mut map =
            pb::ShardMap { shards: vec![shard(1, 0), shard(1000, 2)], target_version: 2, ..Default::default() };
        let versions = Versions::of(&map);
        assert_eq!((versions.target, versions.reached()), (2, false));
        assert_eq!(versions.shards, BTreeMap::from([(1, 1), (2, 1)]));
        map.shards[0].version = 2;
        assert!(Versions::of(&map).reached());
    }
}
