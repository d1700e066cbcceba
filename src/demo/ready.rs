//! The ready file: what a program needs to use and to hurt the cluster.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::layout::{DOMAIN, Layout, Zone};
use super::process::Processes;
use crate::files::{self, Access};
use crate::local::Job;

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// The first of `domains`.
    pub(crate) domain: String,
    pub(crate) domains: Vec<ReadyDomain>,
    pub(crate) admin_token: String,
    pub(crate) accounts: Vec<Account>,
    pub(crate) regions: Vec<ReadyRegion>,
}

/// A domain, and the residency zone where its mailboxes are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadyDomain {
    pub(crate) name: String,
    pub(crate) zone: String,
}

/// A sample account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) address: String,
    pub(crate) password: String,
}

/// One region.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadyRegion {
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) address: String,
    pub(crate) rest: String,
    pub(crate) smtp: String,
    /// With STARTTLS.
    pub(crate) submission: String,
    /// With TLS from the first byte.
    pub(crate) submissions: String,
    pub(crate) dns: String,
    pub(crate) nodes: Vec<ReadyNode>,
    pub(crate) frontend_pid: u32,
    pub(crate) store_pid: u32,
    pub(crate) dns_pid: u32,
}

/// One storage node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadyNode {
    pub(crate) id: u64,
    pub(crate) grpc: String,
    pub(crate) pid: u32,
}

impl Ready {
    /// Of a cluster as it runs now. A process that died keeps the id it had until it is started again.
    pub(crate) fn new(layout: &Layout, processes: &Processes, admin_token: &str, accounts: Vec<Account>) -> Self {
        let pid = |job: Job| processes.pid(&job).unwrap_or(0);
        let regions = layout.regions.iter().map(|region| ReadyRegion {
            name: region.name.into(),
            zone: region.zone.name.into(),
            address: region.address.to_string(),
            rest: format!("http://{}", region.rest()),
            smtp: region.smtp(),
            submission: region.submission(),
            submissions: region.submissions(),
            dns: region.dns(),
            nodes: region
                .nodes
                .iter()
                .map(|node| ReadyNode { id: node.id, grpc: node.grpc.clone(), pid: pid(Job::Node { id: node.id }) })
                .collect(),
            frontend_pid: pid(Job::Frontend { region: region.name.into() }),
            store_pid: pid(Job::Store { region: region.name.into() }),
            dns_pid: pid(Job::Dns { region: region.name.into() }),
        });
        let domain = |zone: &Zone| ReadyDomain { name: zone.domain.into(), zone: zone.name.into() };
        let domains = layout.zones.iter().map(domain).collect();
        Self { domain: DOMAIN.into(), domains, admin_token: admin_token.into(), accounts, regions: regions.collect() }
    }

    /// Copies of a mailbox in `domain`: one in each region of its zone.
    pub(crate) fn replicas(&self) -> usize {
        let zone = self.domains.iter().find(|domain| domain.name == self.domain).map(|domain| &domain.zone);
        self.regions.iter().filter(|region| Some(&region.zone) == zone).count()
    }

    /// Written as a secret: it holds passwords.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        files::write_atomically(path, &serde_json::to_vec_pretty(self)?, Access::Secret)
    }

    /// All process ids.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.regions
            .iter()
            .flat_map(|region| {
                region.nodes.iter().map(|node| node.pid).chain([region.frontend_pid, region.store_pid, region.dns_pid])
            })
            .filter(|pid| *pid != 0)
            .collect()
    }
}
