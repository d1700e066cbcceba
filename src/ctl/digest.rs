//! `ctl digest`: do all replicas of a shard hold the same? (P-12)

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::join_all;
use postrider_api::id::ShardId;
use postrider_api::pb::DigestReply;
use serde::Serialize;

use super::Verdict;
use super::session::Session;
use super::table::{Align, Table};

/// How long to wait for a moment in which all replicas have applied the same.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Serialize)]
struct Digests {
    shard: u32,
    applied: u64,
    digests: BTreeMap<u64, String>,
}

pub(super) async fn run(session: &Session, shard: u32) -> anyhow::Result<Verdict> {
    let until = tokio::time::Instant::now() + DEADLINE;
    let found = loop {
        match same_index(shard, ask(session, shard).await?) {
            Ok(found) => break found,
            Err(applied) if tokio::time::Instant::now() > until => {
                bail!("the replicas of shard {shard} did not come to the same index: {applied:?}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let equal = found.digests.values().collect::<std::collections::BTreeSet<_>>().len() == 1;
    if session.json {
        session.print_json(&found)?;
    } else {
        let mut table = Table::new(&[("node", Align::Right), ("digest", Align::Left)]);
        for (node, digest) in &found.digests {
            table.row([node.to_string(), digest.clone()]);
        }
        table.print();
        let verdict = if equal { "equal" } else { "DIFFERENT" };
        println!("\nShard {shard} at index {}: {verdict}.", found.applied);
    }
    Ok(if equal { Verdict::Good } else { Verdict::Bad })
}

async fn ask(session: &Session, shard: u32) -> anyhow::Result<BTreeMap<u64, DigestReply>> {
    let place = session.shard(shard)?;
    let asked = join_all(place.replicas.iter().map(|node| async move {
        let reply = session.admin(*node)?.digest(ShardId(shard)).await;
        Ok::<_, anyhow::Error>((*node, reply.with_context(|| format!("digest of the replica on node {node}"))?))
    }));
    asked.await.into_iter().collect()
}

/// The digests, if all are of one index; otherwise where each replica was.
fn same_index(shard: u32, replies: BTreeMap<u64, DigestReply>) -> Result<Digests, BTreeMap<u64, u64>> {
    let applied: BTreeMap<u64, u64> = replies.iter().map(|(node, reply)| (*node, reply.applied)).collect();
    let mut indexes = applied.values();
    let Some(first) = indexes.next().copied() else { return Err(applied) };
    if indexes.any(|index| *index != first) {
        return Err(applied);
    }
    let digests = replies.iter().map(|(node, reply)| (*node, hex::encode(&reply.digest))).collect();
    Ok(Digests { shard, applied: first, digests })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_different_indexes_are_not_compared() {
        let reply = |applied| DigestReply { applied, digest: vec![1; 32].into(), ..Default::default() };
        let replies = BTreeMap::from([(1, reply(7)), (2, reply(8))]);
        assert_eq!(same_index(1000, replies).err(), Some(BTreeMap::from([(1, 7), (2, 8)])));
        let replies = BTreeMap::from([(1, reply(8)), (2, reply(8))]);
        let same = same_index(1000, replies).ok().unwrap();
        assert_eq!((same.applied, same.digests.len()), (8, 2));
    }
}
