//! The cluster that a drill is held on: its regions, where clients reach them, and whose nodes they have.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::files;
use crate::local::{self, CONFIG, Job};
use crate::role;
use crate::role::dns::config::DnsRoleConfig;
use crate::role::frontend::FrontendRoleConfig;
use crate::role::node::NodeRoleConfig;
use crate::role::store::StoreRoleConfig;

/// What a drill has to know of an installation. For others than a demo it is a JSON file of this form (docs/operating/drills.md); a
/// demo's ready file is one, too.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Installation {
    /// Where accounts for the drill are made, without it in the first domain of the region's zone.
    #[serde(default)]
    pub(super) domain: Option<String>,
    /// For sign-ups where nobody else may, and so that a drill's requests are not counted as a client's.
    #[serde(default)]
    pub(super) admin_token: Option<String>,
    pub(super) regions: Vec<Region>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Region {
    pub(super) name: String,
    /// `http://HOST:PORT`.
    pub(super) rest: String,
    /// `HOST:PORT`.
    pub(super) smtp: String,
    pub(super) nodes: Vec<NodeAt>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct NodeAt {
    pub(super) id: u64,
    pub(super) grpc: String,
}

impl Installation {
    /// Of a file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let found: Option<Self> = files::read_json(path)?;
        let found = found.with_context(|| format!("{} is not there", path.display()))?;
        ensure!(!found.regions.is_empty(), "{} names no region", path.display());
        Ok(found)
    }

    /// Of the demo in a directory, by the configurations of its processes.
    pub(super) fn of_demo(root: &Path) -> anyhow::Result<Self> {
        let jobs: Vec<Job> = local::processes(root)?.iter().filter_map(local::ProcessRecord::job).collect();
        ensure!(!jobs.is_empty(), "no demo has run in {}: start one with `postrider demo --data-dir`", root.display());
        let mut installation = Self { domain: None, admin_token: None, regions: Vec::new() };
        for job in &jobs {
            if let Job::Frontend { .. } = job {
                let config: FrontendRoleConfig = role::read(&config_of(root, job))?;
                if let Some(file) = &config.admin_token_file {
                    installation.admin_token = Some(role::read_secret(file)?);
                }
                installation.regions.push(Region {
                    name: config.region,
                    rest: format!("http://{}", config.rest.listen),
                    smtp: config.smtp.listen.to_string(),
                    nodes: Vec::new(),
                });
            }
        }
        for job in &jobs {
            if let Job::Node { id } = job {
                let config: NodeRoleConfig = role::read(&config_of(root, job))?;
                let region = installation.regions.iter_mut().find(|region| region.name == config.region);
                let region = region.with_context(|| format!("the region {} has no frontend", config.region))?;
                region.nodes.push(NodeAt { id: *id, grpc: config.advertise });
            }
        }
        Ok(installation)
    }

    pub(super) fn region(&self, name: &str) -> anyhow::Result<&Region> {
        let known = || self.regions.iter().map(|region| region.name.as_str()).collect::<Vec<_>>().join(", ");
        self.regions
            .iter()
            .find(|region| region.name == name)
            .with_context(|| format!("there is no region {name:?}, but {}", known()))
    }

    /// The region of a node.
    pub(super) fn region_of(&self, node: u64) -> anyhow::Result<&Region> {
        self.regions
            .iter()
            .find(|region| region.nodes.iter().any(|at| at.id == node))
            .with_context(|| format!("there is no node {node}"))
    }

    /// The addresses of all nodes.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.regions.iter().flat_map(|region| region.nodes.iter().map(|node| node.grpc.clone())).collect()
    }

    /// All processes, in the order in which a roll goes through them.
    pub(super) fn jobs(&self) -> Vec<Job> {
        let of = |region: &Region| {
            let nodes = region.nodes.iter().map(|node| Job::Node { id: node.id });
            let name = || region.name.clone();
            let others = [Job::Store { region: name() }, Job::Frontend { region: name() }, Job::Dns { region: name() }];
            nodes.chain(others).collect::<Vec<_>>()
        };
        self.regions.iter().flat_map(of).collect()
    }
}

/// The configuration of a process of the demo in `root`.
pub(super) fn config_of(root: &Path, job: &Job) -> PathBuf {
    root.join(job.name()).join(CONFIG)
}

/// Addresses of a demo where only its own processes connect to: storage nodes, object stores, and name servers for what they are told.
pub(super) fn inner_listeners(root: &Path, jobs: &[Job]) -> anyhow::Result<BTreeSet<SocketAddrV4>> {
    let mut found = BTreeSet::new();
    let mut add = |address: SocketAddr| match address {
        SocketAddr::V4(address) => {
            found.insert(address);
            Ok(())
        }
        SocketAddr::V6(_) => bail!("{address}: a demo listens on IPv4"),
    };
    for job in jobs {
        let path = config_of(root, job);
        match job {
            Job::Node { .. } => add(role::read::<NodeRoleConfig>(&path)?.listen)?,
            Job::Store { .. } => add(role::read::<StoreRoleConfig>(&path)?.listen)?,
            Job::Dns { .. } => {
                if let Some(address) = role::read::<DnsRoleConfig>(&path)?.round_trips_listen {
                    add(address)?;
                }
            }
            Job::Frontend { .. } => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demos_ready_file_describes_an_installation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        let text = r#"{"domain": "postrider.example", "domains": [], "admin_token": "t", "accounts": [], "regions": [{"name": "seoul",
            "zone": "demo", "rest": "http://127.0.1.1:8080", "smtp": "127.0.1.1:2525", "nodes": [{"id": 1, "grpc": "127.0.1.1:7101",
            "pid": 7}]}]}"#;
        std::fs::write(&path, text).unwrap();
        let installation = Installation::read(&path).unwrap();
        assert_eq!(installation.region_of(1).unwrap().name, "seoul");
        assert_eq!(installation.addresses(), ["127.0.1.1:7101"]);
        assert_eq!(installation.jobs().len(), 4);
        let error = installation.region("moon").err().unwrap();
        assert!(error.to_string().contains("seoul"), "{error}");
        assert!(Installation::read(&dir.path().join("none")).is_err());
    }
}
