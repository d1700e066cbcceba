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
    let mut silent = 0_usize;
    for (shard, node, result) in results {
        match result {
            Ok(reply) => {
                verified.checked += reply.checked;
                let lines = reply.differences.into_iter().map(|line| format!("shard {shard}, node {node}: {line}"));
                verified.differences.extend(lines);
            }
            Err(error) => {
                // What nobody has looked at may differ: it is told where the differences are.
                silent += 1;
                verified.differences.push(format!("shard {shard}, node {node}: was not verified: {error:#}"));
            }
        }
    }
    if session.json {
        session.print_json(&verified)?;
    } else {
        for line in &verified.differences {
            println!("{line}");
        }
        let differences = verified.differences.len() - silent;
        let unknown = if silent == 0 { String::new() } else { format!(", {silent} replicas not verified") };
        println!("{} rows checked, {differences} differences{unknown}.", verified.checked);
    }
    Ok(if verified.differences.is_empty() { Verdict::Good } else { Verdict::Bad })
}
