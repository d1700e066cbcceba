//! A new cluster from empty nodes. Every step may be done again, so an interrupted bootstrap is simply repeated.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use postrider_api::env::random;
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, command::Op, outcome};
use thiserror::Error;

use crate::admin::{AdminClient, AdminError};
use crate::backoff::Backoff;
use crate::error::{ConnectError, RouteError};
use crate::options::RouterOptions;
use crate::router::Router;

/// Shards that are made at a time.
const SHARDS_AT_A_TIME: usize = 8;

/// What the cluster shall be.
#[derive(Debug, Clone, Default)]
pub struct BootstrapPlan {
    /// All regions.
    pub regions: Vec<pb::Region>,
    /// All nodes; each must be running and reachable at its address.
    pub nodes: Vec<pb::Node>,
    /// All shards, the placement shard among them. Epochs are set by the placement group.
    pub shards: Vec<pb::Shard>,
    /// Domains whose addresses the cluster owns.
    pub domains: Vec<pb::Domain>,
}

/// Why a cluster could not be made.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// The plan has no placement shard, or names a node that it does not list.
    #[error("the plan is not complete: {0}")]
    Plan(&'static str),
    /// A node did not do its part in time.
    #[error(transparent)]
    Node(#[from] AdminError),
    /// The placement shard gave no map.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The placement shard cannot be reached.
    #[error("placement: {0}")]
    Route(#[from] RouteError),
    /// The placement shard refused a registration.
    #[error("placement refused {what}: {detail}")]
    Refused {
        /// What was registered.
        what: String,
        /// Its sentence.
        detail: String,
    },
}

/// Makes the cluster of `plan` and returns a router for it. `made` is called with each shard that is ready. `limit` bounds
/// how long a node may take to come up, and placement to take in what it is told: its members may all be starting.
///
/// # Errors
/// When a node cannot be reached within `limit`, or refuses.
pub async fn bootstrap(
    options: RouterOptions,
    plan: &BootstrapPlan,
    limit: Duration,
    made: impl Fn(ShardId),
) -> Result<Router, BootstrapError> {
    let placement = plan
        .shards
        .iter()
        .find(|shard| shard.id == ShardId::PLACEMENT.0)
        .ok_or(BootstrapError::Plan("there is no placement shard"))?;
    let incarnation = make_group(&options, plan, placement, limit).await?;

    let router = Router::connect(options.clone()).await?;
    for region in &plan.regions {
        let op = Op::RegisterRegion(pb::RegisterRegion { region: Some(region.clone()) });
        register(&router, format!("region {}", region.name), op, limit).await?;
    }
    for node in &plan.nodes {
        let op = Op::RegisterNode(pb::RegisterNode { node: Some(node.clone()) });
        register(&router, format!("node {}", node.id), op, limit).await?;
    }
    place(&router, placement, incarnation, limit).await?;
    made(ShardId::PLACEMENT);

    let known: BTreeSet<u32> = router.map().shards.iter().map(|shard| shard.id).collect();
    let missing = plan.shards.iter().filter(|shard| shard.id != placement.id && !known.contains(&shard.id));
    let (options, router, made) = (&options, &router, &made);
    stream::iter(missing)
        .map(|shard| async move {
            let incarnation = make_group(options, plan, shard, limit).await?;
            place(router, shard, incarnation, limit).await?;
            made(ShardId(shard.id));
            Ok::<(), BootstrapError>(())
        })
        .buffer_unordered(SHARDS_AT_A_TIME)
        .try_collect::<()>()
        .await?;
    for domain in &plan.domains {
        let op = Op::AddDomain(pb::AddDomain { domain: domain.name.clone(), zone: domain.zone.clone() });
        register(router, format!("domain {}", domain.name), op, limit).await?;
    }
    Ok(router.clone())
}

/// Opens the replicas, then makes the group on the one that shall lead. Returns which making of it this is: another one than was drawn
/// where a bootstrap before this was interrupted.
async fn make_group(
    options: &RouterOptions,
    plan: &BootstrapPlan,
    shard: &pb::Shard,
    limit: Duration,
) -> Result<u64, BootstrapError> {
    let mut incarnation = u64::from_be_bytes(random(&*options.entropy)).max(1);
    let mut members = Vec::with_capacity(shard.replicas.len());
    for &id in &shard.replicas {
        let node = plan.nodes.iter().find(|node| node.id == id);
        members.push(node.ok_or(BootstrapError::Plan("a shard names a node that is not listed"))?.clone());
    }
    let first = members
        .iter()
        .find(|node| node.region == shard.home_region)
        .or(members.first())
        .ok_or(BootstrapError::Plan("a shard has no replica"))?;
    for (place, node) in members.iter().enumerate() {
        let client = AdminClient::connect(&node.address, &options.identity)?;
        match persist(options, limit, || client.open_replica(ShardId(shard.id), incarnation)).await {
            // Replicas are opened in this order, so the first has what there is.
            Err(AdminError::OtherIncarnation { hosted, .. }) if place == 0 => incarnation = hosted,
            opened => opened?,
        }
    }
    let client = AdminClient::connect(&first.address, &options.identity)?;
    persist(options, limit, || client.create_group(ShardId(shard.id), incarnation, members.clone())).await?;
    Ok(incarnation)
}

/// Asks until the node answers: it may still be starting.
async fn persist<F, Fut>(options: &RouterOptions, limit: Duration, ask: F) -> Result<(), AdminError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), AdminError>>,
{
    let until = options.clock.monotonic().saturating_add(limit);
    let mut backoff = Backoff::new(options.timings.backoff_min * 2, options.timings.backoff_max);
    loop {
        match ask().await {
            Err(AdminError::Unreachable { .. }) if options.clock.monotonic() < until => {
                tokio::time::sleep(backoff.next(&*options.entropy)).await;
            }
            other => return other,
        }
    }
}

async fn place(router: &Router, shard: &pb::Shard, incarnation: u64, limit: Duration) -> Result<(), BootstrapError> {
    // What is placed may have been changed since.
    let known = router.map().shards.iter().any(|known| known.id == shard.id);
    if known {
        return Ok(());
    }
    let op = Op::PlaceShard(pb::PlaceShard { shard: Some(pb::Shard { incarnation, ..shard.clone() }), make: false });
    register(router, format!("shard {}", shard.id), op, limit).await
}

async fn register(router: &Router, what: String, op: Op, limit: Duration) -> Result<(), BootstrapError> {
    let command = pb::Command { op: Some(op), ..Default::default() };
    let outcome = router.propose(ShardId::PLACEMENT, None, command, limit).await?;
    match outcome.result {
        Some(outcome::Result::Refused(refused)) => Err(BootstrapError::Refused { what, detail: refused.detail }),
        _ => Ok(()),
    }
}

impl BootstrapPlan {
    /// A shard with a replica on each of `replicas`, at home in `home_region`.
    pub fn shard(id: ShardId, replicas: &[NodeId], home_region: &str, zone: &str) -> pb::Shard {
        pb::Shard {
            id: id.0,
            kind: id.kind().unwrap_or(pb::ShardKind::Unspecified).into(),
            replicas: replicas.iter().map(|node| node.0).collect(),
            home_region: home_region.to_owned(),
            zone: zone.to_owned(),
            ..Default::default()
        }
    }
}
