//! `ctl bootstrap`: makes a cluster of nodes that run and hold nothing. Done again it goes on where it was interrupted, and does nothing
//! to a cluster that is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postrider_api::env::{SystemClock, SystemEntropy};
use postrider_api::pb;
use postrider_api::tls::TlsIdentity;
use postrider_router::{BootstrapPlan, ConnectError, Router, RouterOptions, bootstrap};
use serde::Deserialize;

use super::Verdict;
use crate::initial::{self, ZoneShape};
use crate::role;

/// How long a node may take to answer: it may be starting.
const NODE_DEADLINE: Duration = Duration::from_secs(120);

/// What the cluster shall be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    zones: Vec<ZonePlan>,
    regions: Vec<RegionPlan>,
    nodes: Vec<NodePlan>,
}

/// A residency zone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ZonePlan {
    name: String,
    /// Whose mail is in it.
    domains: Vec<String>,
    /// Mailbox shards.
    shards: u32,
    /// Of each shard.
    #[serde(default = "replicas")]
    replicas: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionPlan {
    name: String,
    zone: String,
    /// host:port of its object store.
    store: String,
    /// Where clients reach its REST; left out, they are not told of the region (`ctl region url`).
    #[serde(default)]
    url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodePlan {
    node: u64,
    region: String,
    /// host:port of its gRPC, as its configuration advertises it.
    address: String,
}

fn replicas() -> usize {
    3
}

/// Makes the cluster.
pub(super) async fn run(plan: &Path, identity: Option<PathBuf>) -> anyhow::Result<Verdict> {
    let wanted: Plan = role::read(plan)?;
    let plan = wanted.checked().with_context(|| format!("the plan {}", plan.display()))?;
    let dir = identity.context("--identity DIR or POSTRIDER_IDENTITY: an operator's certificate is needed")?;
    let identity = TlsIdentity::load(&dir.join("ca.pem"), &dir.join("cert.pem"), &dir.join("key.pem"))
        .with_context(|| format!("use the certificate in {}", dir.display()))?;
    let nodes = plan.nodes.iter().map(|node| node.address.clone()).collect();
    let options = RouterOptions::new(
        nodes,
        plan.regions[0].name.clone(),
        identity,
        SystemClock::shared(),
        SystemEntropy::shared(),
    );
    let (shards, count) = (plan.shards.len(), plan.nodes.len());
    match Router::connect(options.clone()).await {
        Ok(router) => {
            let known: BTreeSet<u32> = router.map().shards.iter().map(|shard| shard.id).collect();
            // What has moved since must stay where it is.
            if plan.shards.iter().all(|shard| known.contains(&shard.id)) {
                println!("The cluster is there: {} shards. Nothing was done.", known.len());
                return Ok(Verdict::Good);
            }
        }
        Err(ConnectError::NoMap { .. }) => {}
        Err(error) => return Err(error).context("connect to the nodes"),
    }
    bootstrap(options, &plan, NODE_DEADLINE, |shard| println!("shard {shard} is made"))
        .await
        .context("make the cluster")?;
    println!("The cluster is made: {shards} shards on {count} nodes.");
    Ok(Verdict::Good)
}

impl Plan {
    fn nodes_of(&self, region: &RegionPlan) -> Vec<u64> {
        self.nodes.iter().filter(|node| node.region == region.name).map(|node| node.node).collect()
    }

    fn checked(&self) -> anyhow::Result<BootstrapPlan> {
        distinct("zones", self.zones.iter().map(|zone| zone.name.as_str()))?;
        distinct("regions", self.regions.iter().map(|region| region.name.as_str()))?;
        distinct("nodes", self.nodes.iter().map(|node| node.node))?;
        distinct("addresses of nodes", self.nodes.iter().map(|node| node.address.as_str()))?;
        distinct("domains", self.zones.iter().flat_map(|zone| &zone.domains))?;
        for region in &self.regions {
            let known = self.zones.iter().any(|zone| zone.name == region.zone);
            ensure!(known, "region {}: there is no zone {}", region.name, region.zone);
        }
        for node in &self.nodes {
            let known = self.regions.iter().any(|region| region.name == node.region);
            ensure!(known, "node {}: there is no region {}", node.node, node.region);
        }
        let shape = |zone: &ZonePlan| {
            let regions = self.regions.iter().filter(|region| region.zone == zone.name);
            let regions = regions.map(|region| (region.name.as_str(), self.nodes_of(region)));
            // A region without nodes serves clients and holds nothing.
            let regions = regions.filter(|(_, nodes)| !nodes.is_empty());
            ZoneShape { regions: regions.collect(), shards: zone.shards, replicas: zone.replicas }
        };
        let places = initial::places(&self.zones.iter().map(shape).collect::<Vec<_>>())?;
        let region = |region: &RegionPlan| pb::Region {
            name: region.name.clone(),
            zone: region.zone.clone(),
            store_address: region.store.clone(),
            api_url: region.url.clone(),
            ..pb::Region::default()
        };
        let node = |node: &NodePlan| pb::Node {
            id: node.node,
            region: node.region.clone(),
            address: node.address.clone(),
            ..pb::Node::default()
        };
        let domains = self.zones.iter().flat_map(|zone| {
            let domain =
                |name: &String| pb::Domain { name: name.clone(), zone: zone.name.clone(), ..Default::default() };
            zone.domains.iter().map(domain)
        });
        Ok(BootstrapPlan {
            regions: self.regions.iter().map(region).collect(),
            nodes: self.nodes.iter().map(node).collect(),
            shards: places.iter().map(|place| place.shard(&self.zones[place.zone].name)).collect(),
            domains: domains.collect(),
        })
    }
}

fn distinct<T: Ord + std::fmt::Display + Copy>(what: &str, names: impl Iterator<Item = T>) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        ensure!(seen.insert(name), "{what}: {name} is there twice");
    }
    ensure!(!seen.is_empty(), "{what}: there is none");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
        [[zones]]
        name = "world"
        domains = ["example.org"]
        shards = 2
        [[regions]]
        name = "a"
        zone = "world"
        store = "10.0.0.1:9000"
        [[regions]]
        name = "b"
        zone = "world"
        store = "10.0.0.2:9000"
        [[regions]]
        name = "c"
        zone = "world"
        store = "10.0.0.3:9000"
        [[nodes]]
        node = 1
        region = "a"
        address = "10.0.0.1:7101"
        [[nodes]]
        node = 2
        region = "b"
        address = "10.0.0.2:7101"
        [[nodes]]
        node = 3
        region = "c"
        address = "10.0.0.3:7101"
    "#;

    fn checked(text: &str) -> anyhow::Result<BootstrapPlan> {
        toml::from_str::<Plan>(text).map_err(anyhow::Error::from)?.checked()
    }

    #[test]
    fn a_plan_becomes_shards() {
        let plan = checked(PLAN).unwrap();
        let shards: Vec<_> = plan.shards.iter().map(|shard| (shard.id, shard.home_region.as_str())).collect();
        assert_eq!(shards, [(1, "a"), (2, "b"), (1000, "a"), (1001, "b")]);
        assert!(plan.shards.iter().all(|shard| shard.replicas.len() == 3 && shard.zone == "world"));
        assert_eq!(plan.domains[0].name, "example.org");
    }

    #[test]
    fn what_is_wrong_with_a_plan_is_said() {
        for (from, to, word) in [
            ("zone = \"world\"", "zone = \"moon\"", "there is no zone moon"),
            ("region = \"c\"", "region = \"d\"", "there is no region d"),
            ("node = 3", "node = 2", "nodes: 2 is there twice"),
            ("10.0.0.3:7101", "10.0.0.2:7101", "10.0.0.2:7101 is there twice"),
            ("region = \"c\"", "region = \"b\"", "3 replicas want as many regions"),
            ("domains = [\"example.org\"]", "domains = []", "domains: there is none"),
            ("shards = 2", "shards = 2\nreplica = 3", "unknown field"),
        ] {
            let error = checked(&PLAN.replace(from, to)).unwrap_err();
            assert!(format!("{error:#}").contains(word), "{error:#}");
        }
    }
}
