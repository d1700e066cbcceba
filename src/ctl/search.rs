//! `ctl search`: the search indexes of all replicas, and what is done to one.

use anyhow::ensure;
use clap::Subcommand;
use futures::stream::{self, StreamExt as _};
use postrider_api::audit;
use postrider_api::id::ShardId;
use postrider_router::operate::NodeIndexes;
use serde::Serialize;

use super::Verdict;
use super::session::Session;
use super::table::{Align, Table};

/// Replicas that are checked at a time: each reads a whole shard.
const REPLICAS_AT_A_TIME: usize = 4;
/// Changes that an index may be behind its rows and still be well: it is committed every few seconds.
const LAG_MAX: u64 = 10_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Each replica's index: messages, bytes, how far it is, and how a rebuild is getting on.
    Status,
    /// Throw away the indexes of a shard and build them anew from the rows. Searches are answered meanwhile, in large mailboxes with an
    /// error that says so.
    Rebuild {
        /// The shard.
        shard: u32,
        /// One node's alone.
        #[arg(long, value_name = "NODE")]
        node: Option<u64>,
    },
    /// Hold every message of a shard against its indexes, both ways.
    Check {
        /// The shard.
        shard: u32,
    },
}

pub(super) async fn run(session: &Session, task: Task) -> anyhow::Result<Verdict> {
    match task {
        Task::Status => status(session).await,
        Task::Rebuild { shard, node } => rebuild(session, shard, node).await,
        Task::Check { shard } => check(session, shard).await,
    }
}

#[derive(Serialize)]
struct Line {
    shard: u32,
    node: u64,
    documents: u64,
    bytes: u64,
    watermark: u64,
    /// Behind the newest change of the replica.
    lag: u64,
    pending_bytes: u64,
    rebuilding: bool,
    rebuilt: u64,
    to_rebuild: u64,
}

#[derive(Serialize)]
struct Indexes {
    indexes: Vec<Line>,
    /// Nodes that did not answer, with the reason.
    failed: Vec<String>,
}

async fn status(session: &Session) -> anyhow::Result<Verdict> {
    let mut indexes = Indexes { indexes: Vec::new(), failed: Vec::new() };
    for NodeIndexes { node, indexes: answer } in session.router.search_statuses().await {
        match answer {
            Ok(shards) => indexes.indexes.extend(shards.into_iter().map(|index| Line {
                shard: index.shard,
                node,
                documents: index.documents,
                bytes: index.bytes,
                watermark: index.watermark,
                lag: index.newest.saturating_sub(index.watermark),
                pending_bytes: index.pending_bytes,
                rebuilding: index.rebuilding,
                rebuilt: index.rebuilt,
                to_rebuild: index.to_rebuild,
            })),
            Err(error) => indexes.failed.push(format!("node {node}: {error}")),
        }
    }
    indexes.indexes.sort_by_key(|line| (line.shard, line.node));
    let is_well =
        indexes.failed.is_empty() && indexes.indexes.iter().all(|line| !line.rebuilding && line.lag <= LAG_MAX);
    if session.json {
        session.print_json(&indexes)?;
    } else {
        print(&indexes);
    }
    Ok(if is_well { Verdict::Good } else { Verdict::Bad })
}

fn print(indexes: &Indexes) {
    let mut table = Table::new(&[
        ("shard", Align::Right),
        ("node", Align::Right),
        ("messages", Align::Right),
        ("bytes", Align::Right),
        ("watermark", Align::Right),
        ("behind", Align::Right),
        ("state", Align::Left),
    ]);
    for line in &indexes.indexes {
        let state = match line.rebuilding {
            true => format!("rebuilding, {} of {}", line.rebuilt, line.to_rebuild),
            false => "ready".to_owned(),
        };
        table.row([
            line.shard.to_string(),
            line.node.to_string(),
            line.documents.to_string(),
            line.bytes.to_string(),
            line.watermark.to_string(),
            line.lag.to_string(),
            state,
        ]);
    }
    table.print();
    indexes.failed.iter().for_each(|line| println!("{line}"));
}

/// The nodes with a replica of the shard.
fn replicas(session: &Session, shard: u32) -> anyhow::Result<Vec<u64>> {
    let nodes: Vec<u64> = session
        .map()
        .shards
        .iter()
        .filter(|known| known.id == shard)
        .flat_map(|known| known.replicas.clone())
        .collect();
    ensure!(!nodes.is_empty(), "the shard map knows no shard {shard}");
    Ok(nodes)
}

async fn rebuild(session: &Session, shard: u32, node: Option<u64>) -> anyhow::Result<Verdict> {
    let mut nodes = replicas(session, shard)?;
    if let Some(node) = node {
        ensure!(nodes.contains(&node), "node {node} has no replica of shard {shard}");
        nodes = vec![node];
    }
    let work = async {
        for node in &nodes {
            session.admin(*node)?.rebuild_search(ShardId(shard)).await?;
        }
        Ok(())
    };
    session.audited("search.rebuild", vec![audit::shard(ShardId(shard))], work).await?;
    if session.json {
        session.print_json(&nodes)?;
    } else {
        println!("The index of shard {shard} is being built anew on {} nodes; see `ctl search status`.", nodes.len());
    }
    Ok(Verdict::Good)
}

#[derive(Serialize)]
struct Checked {
    checked: u64,
    differences: Vec<String>,
}

async fn check(session: &Session, shard: u32) -> anyhow::Result<Verdict> {
    let nodes = replicas(session, shard)?;
    let results: Vec<_> = stream::iter(nodes)
        .map(|node| async move {
            let checked = async { anyhow::Ok(session.admin(node)?.check_search(ShardId(shard)).await?) };
            (node, checked.await)
        })
        .buffered(REPLICAS_AT_A_TIME)
        .collect()
        .await;
    let mut checked = Checked { checked: 0, differences: Vec::new() };
    for (node, result) in results {
        match result {
            Ok(reply) => {
                checked.checked += reply.checked;
                checked.differences.extend(reply.differences.into_iter().map(|line| format!("node {node}: {line}")));
            }
            // What nobody has looked at may differ.
            Err(error) => checked.differences.push(format!("node {node}: was not checked: {error:#}")),
        }
    }
    if session.json {
        session.print_json(&checked)?;
    } else {
        checked.differences.iter().for_each(|line| println!("{line}"));
        println!("{} messages checked, {} differences.", checked.checked, checked.differences.len());
    }
    Ok(if checked.differences.is_empty() { Verdict::Good } else { Verdict::Bad })
}
