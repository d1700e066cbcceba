//! Where the replicas of one shard may be: the one place that says so, for everything that sets replicas or changes a node.
//!
//! Invariant: all replicas of a shard are in its zone, so that nothing of the zone is stored outside it. The placement shard
//! alone, which knows no person and no mail, may be spread over zones.
//! Invariant (P-7): no two replicas are in one region or one failure domain, or, where the shard's policy says so, in one failure domain. What
//! fails at once takes one replica. A replica that is there already may stay where a policy has changed: the balancer moves it.

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{Node, Policy, Refusal, Region, Shard, Spread};
use postrider_api::version::or_initial;

use crate::key::{Key, KeyRange, Table, name_hash};
use crate::placement::{node, policy};
use crate::row;
use crate::store::{Direction, Reader};
use crate::turn::{Stop, malformed, refuse};

/// Replicas of one shard.
const REPLICAS_MAX: usize = 7;

/// Checks the replicas that `shard` shall have, all of them together. `field` is how the caller's command names them; `held` are those that
/// it has already.
///
/// # Errors
/// When there are too few or too many, one is named twice or not registered, is outside of the shard's zone, or a new one is where its policy
/// allows none, or shares a region or a failure domain with another.
pub(crate) fn check_replicas(reader: &impl Reader, field: &str, shard: &Shard, held: &[u64]) -> Result<(), Stop> {
    let replicas = &shard.replicas;
    if replicas.is_empty() || replicas.len() > REPLICAS_MAX {
        return Err(malformed(format!("{field}: 1 to {REPLICAS_MAX}")));
    }
    let policy = policy::of(reader, &shard.policy)?;
    let spread = policy.as_ref().map_or(Spread::Regions, Policy::spread);
    let mut nodes: Vec<Node> = Vec::with_capacity(replicas.len());
    for id in replicas {
        if nodes.iter().any(|known| known.id == *id) {
            return Err(malformed(format!("{field}: node {id} is named twice")));
        }
        let node = node(reader, NodeId(*id))?;
        check_zone(reader, field, shard, &node)?;
        check_version(&node, shard.version)?;
        let is_new = |id: u64| !held.contains(&id);
        let allowed = policy.as_ref().map(|policy| policy.regions.as_slice()).filter(|regions| !regions.is_empty());
        if is_new(node.id) && allowed.is_some_and(|regions| !regions.contains(&node.region)) {
            let detail = format!("{field}: policy {:?} allows no replica in region {:?}", shard.policy, node.region);
            return Err(refuse(Refusal::Conflict, detail));
        }
        let mut others = nodes.iter().filter(|other| is_new(other.id) || is_new(node.id));
        if let Some((other, what)) = others.find_map(|other| Some((other, shared(spread, other, &node)?))) {
            let detail = format!("{field}: nodes {} and {id} are both in {what}", other.id);
            return Err(refuse(Refusal::Conflict, detail));
        }
        nodes.push(node);
    }
    Ok(())
}

/// Checks what a registered node shall become: its region stays, and no shard gets two replicas in one failure domain.
///
/// # Errors
/// When it would be so.
pub(crate) fn check_node(reader: &impl Reader, node: &Node) -> Result<(), Stop> {
    let Some(was) = row::get::<Node>(reader, Key::Node(NodeId(node.id)))? else { return Ok(()) };
    if was.region != node.region {
        let detail = format!("node.region: node {} is in region {:?}, and stays there", node.id, was.region);
        return Err(refuse(Refusal::Conflict, detail));
    }
    if was.failure_domain == node.failure_domain || node.failure_domain.is_empty() {
        return Ok(());
    }
    for found in reader.scan(&KeyRange::table(Table::Shards), Direction::Forward) {
        let (key, value) = found?;
        let (_, shard) = row::decode_row::<Shard>(key, value)?;
        if !shard.replicas.contains(&node.id) {
            continue;
        }
        for id in shard.replicas.iter().filter(|id| **id != node.id) {
            let other: Node = row::need(reader, Key::Node(NodeId(*id)))?;
            if other.failure_domain == node.failure_domain {
                let detail =
                    format!("node.failure_domain: node {id}, which is in it, has a replica of shard {}", shard.id);
                return Err(refuse(Refusal::Conflict, format!("{detail} as node {} has", node.id)));
            }
        }
    }
    Ok(())
}

fn check_zone(reader: &impl Reader, field: &str, shard: &Shard, node: &Node) -> Result<(), Stop> {
    if ShardId(shard.id) == ShardId::PLACEMENT {
        return Ok(());
    }
    let region: Region = row::need(reader, Key::Region(name_hash(&node.region)))?;
    if region.zone == shard.zone {
        return Ok(());
    }
    let detail =
        format!("{field}: node {} is in zone {:?}, shard {} in zone {:?}", node.id, region.zone, shard.id, shard.zone);
    Err(refuse(Refusal::Conflict, detail))
}

/// Refuses a node whose build does not know the version that a shard is at, or has not said that it knows it (P-12).
///
/// # Errors
/// When it is so.
pub(crate) fn check_version(node: &Node, version: u32) -> Result<(), Stop> {
    let known = or_initial(node.version_max);
    if known < version {
        let detail =
            format!("node {} knows versions up to {known} by its last report, version {version} is needed", node.id);
        return Err(refuse(Refusal::VersionNotEnabled, detail));
    }
    Ok(())
}

/// What two nodes lose together, if there is such a thing.
fn shared(spread: Spread, a: &Node, b: &Node) -> Option<String> {
    // Nodes of a region that name no failure domain are one together.
    let is_region = spread == Spread::Regions || a.failure_domain.is_empty() && b.failure_domain.is_empty();
    if is_region && a.region == b.region {
        return Some(format!("region {:?}", a.region));
    }
    let is_shared = !a.failure_domain.is_empty() && a.failure_domain == b.failure_domain;
    is_shared.then(|| format!("failure domain {:?}", a.failure_domain))
}
