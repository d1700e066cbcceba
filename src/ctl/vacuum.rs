//! `ctl vacuum`: what was deleted goes from the disks now, and not within a week.

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _};
use postrider_api::audit;
use postrider_api::id::NodeId;
use serde::Serialize;

use super::Verdict;
use super::session::Session;

/// Nodes that rewrite at a time: the others serve.
const NODES_AT_A_TIME: usize = 1;

#[derive(Serialize)]
struct Vacuumed {
    nodes: Vec<u64>,
    /// Nodes that did not, with the reason.
    failed: Vec<String>,
}

pub(super) async fn run(session: &Session, node: Option<u64>) -> anyhow::Result<Verdict> {
    let nodes: Vec<u64> = match node {
        Some(node) => vec![node],
        None => session.map().nodes.iter().map(|node| node.id).collect(),
    };
    let targets = nodes.iter().take(AUDITED_NODES_MAX).map(|node| audit::node(NodeId(*node)));
    let work = async { Ok(vacuum(session, nodes.clone()).await) };
    let vacuumed = session.audited("node.vacuum", targets.collect::<Vec<_>>(), work).await?;
    let is_done = vacuumed.failed.is_empty();
    if session.json {
        session.print_json(&vacuumed)?;
    } else {
        for line in &vacuumed.failed {
            println!("{line}");
        }
        println!("What was deleted is gone from the disks of {} nodes.", vacuumed.nodes.len());
    }
    Ok(if is_done { Verdict::Good } else { Verdict::Bad })
}

/// Nodes that the audit log names; more of them are all.
const AUDITED_NODES_MAX: usize = 8;

async fn vacuum(session: &Session, nodes: Vec<u64>) -> Vacuumed {
    let results: Vec<(u64, anyhow::Result<()>)> = stream::iter(nodes)
        .map(|node| async move {
            let done = async { session.admin(node)?.vacuum().await.context("rewrite its files") };
            (node, done.await)
        })
        .buffered(NODES_AT_A_TIME)
        .collect()
        .await;
    let mut vacuumed = Vacuumed { nodes: Vec::new(), failed: Vec::new() };
    for (node, result) in results {
        match result {
            Ok(()) => vacuumed.nodes.push(node),
            Err(error) => vacuumed.failed.push(format!("node {node}: {error:#}")),
        }
    }
    vacuumed
}
