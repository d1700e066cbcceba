//! `ctl verify`: every replica recomputes its counters, quotas, indexes and references (P-10).

use futures::stream::{self, StreamExt as _};
use postrider_api::id::ShardId;
use serde::Serialize;

use super::Verdict;
use super::session::Session;

/// Replicas that are verified at a time: each reads a whole shard.
const REPLICAS_AT_A_TIME: usize = 4;

#[derive(Serialize)]
struct Verified {
    checked: u64,
    differences: Vec<String>,
}

pub(super) async fn run(session: &Session) -> anyhow::Result<Verdict> {
    let map = session.map();
    let replicas: Vec<(u32, u64)> =
        map.shards.iter().flat_map(|shard| shard.replicas.iter().map(|node| (shard.id, *node))).collect();
    let results: Vec<_> = stream::iter(replicas)
        .map(|(shard, node)| async move {
            let verified = match session.admin(node) {
                Ok(client) => client.verify(ShardId(shard)).await.map_err(anyhow::Error::from),
                Err(error) => Err(error),
            };
            (shard, node, verified)
        })
        .buffered(REPLICAS_AT_A_TIME)
        .collect()
        .await;
    let mut verified = Verified { checked: 0, differences: Vec::new() };
    let mut silent = 0;
    for (shard, node, result) in results {
        match result {
            Ok(reply) => {
                verified.checked += reply.checked;
                let lines = reply.differences.into_iter().map(|line| format!("shard {shard}, node {node}: {line}"));
                verified.differences.extend(lines);
            }
            Err(error) => {
                silent += 1;
                eprintln!("postrider: shard {shard}, node {node} was not verified: {error:#}");
            }
        }
    }
    if session.json {
        session.print_json(&verified)?;
    } else {
        for line in &verified.differences {
            println!("{line}");
        }
        println!("{} rows checked, {} differences.", verified.checked, verified.differences.len());
    }
    Ok(if silent == 0 && verified.differences.is_empty() { Verdict::Good } else { Verdict::Bad })
}
