//! The operator's page of a frontend: whose accounts are operators', and the operator's certificate that it asks and acts under
//! (docs/adr/149-the-operators-page.md).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use postrider_api::address::Address;
use postrider_api::env::{SystemClock, SystemEntropy};
use postrider_api::identity::Role;
use postrider_balance::limits::Limits;
use postrider_frontend::operating::{CheckedName, Operating, OperatorSettings, Plan, PlanStep};
use postrider_operator::plan;
use postrider_router::operate::{NodeIndexes, NodeReport};
use postrider_router::{Router, RouterOptions};
use serde::{Deserialize, Serialize};

use super::dns::config::DnsRoleConfig;
use super::{ClusterConfig, TlsFiles, backend};
use crate::ctl::records::{self, State};
use crate::signal::Stop;

/// Who operates the cluster through a frontend.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperatorsConfig {
    /// The addresses of operators' accounts. Whoever holds the administrator's token is one as well.
    pub(crate) accounts: Vec<String>,
    /// Whom to ask what the world sees of domains [default: the system's resolver].
    pub(crate) resolver: Option<SocketAddr>,
    /// An operator's certificate (`ctl cert operator`), under whose name the audit log has what is done here.
    pub(crate) tls: TlsFiles,
}

/// Settings that were looked at.
pub(crate) struct Operators {
    accounts: Vec<Address>,
    options: RouterOptions,
    resolver: Option<SocketAddr>,
    dns_config: Option<PathBuf>,
}

impl OperatorsConfig {
    /// Checks addresses and certificate. Talks to nobody yet.
    pub(crate) fn check(
        &self,
        region: &str,
        cluster: &ClusterConfig,
        dns_config: Option<&Path>,
    ) -> anyhow::Result<Operators> {
        let address = |text: &String| Address::parse(text).with_context(|| format!("operators.accounts: {text:?}"));
        let accounts = self.accounts.iter().map(address).collect::<anyhow::Result<Vec<_>>>()?;
        let identity = self.tls.load().context("operators.tls")?;
        let role = identity.role().with_context(|| format!("operators.tls: {}", self.tls.cert.display()))?;
        ensure!(
            role == Role::Ctl,
            "operators.tls: {} is the certificate of a {role}; an operator's is needed (`ctl cert operator`)",
            self.tls.cert.display()
        );
        let options = RouterOptions::new(
            cluster.nodes.clone(),
            region.to_owned(),
            identity,
            SystemClock::shared(),
            SystemEntropy::shared(),
        );
        Ok(Operators { accounts, options, resolver: self.resolver, dns_config: dns_config.map(Path::to_owned) })
    }
}

impl Operators {
    /// What REST needs, once a storage node has given a shard map; `None` when the process is told to stop before that.
    pub(crate) async fn connect(self, stop: &mut Stop) -> anyhow::Result<Option<OperatorSettings>> {
        let Some(router) = backend::connect(&self.options, stop).await? else { return Ok(None) };
        let nodes = Nodes { router: router.clone(), resolver: self.resolver, dns_config: self.dns_config };
        Ok(Some(OperatorSettings { cluster: Arc::new(router), operating: Arc::new(nodes), accounts: self.accounts }))
    }
}

/// What is asked as `ctl` asks it.
struct Nodes {
    router: Router,
    resolver: Option<SocketAddr>,
    dns_config: Option<PathBuf>,
}

#[async_trait]
impl Operating for Nodes {
    async fn reports(&self) -> Vec<NodeReport> {
        self.router.reports().await
    }

    async fn search_statuses(&self) -> Vec<NodeIndexes> {
        self.router.search_statuses().await
    }

    async fn plan(&self) -> Result<Plan, String> {
        let map = self.router.map();
        let made = plan::make(&self.router, &map, &BTreeSet::new(), &Limits::default()).await;
        let (planned, silent_nodes) = made.map_err(|error| format!("{error:#}"))?;
        let step = |step: &postrider_balance::step::Step| PlanStep {
            shard: step.shard.0,
            priority: step.priority.to_string(),
            change: step.change.to_string(),
            reason: step.reason.to_string(),
        };
        Ok(Plan {
            steps: planned.steps.iter().map(step).collect(),
            blocked: planned.blocked.iter().map(|one| (one.shard.0, one.reason.to_string())).collect(),
            blocked_shards: planned.blocked_shards,
            waiting_shards: planned.waiting_shards,
            has_more: planned.has_more,
            silent_nodes,
        })
    }

    async fn check_domain(&self, domain: &str) -> Result<Vec<CheckedName>, String> {
        self.checked(domain).await.map_err(|error| format!("{error:#}"))
    }
}

impl Nodes {
    async fn checked(&self, domain: &str) -> anyhow::Result<Vec<CheckedName>> {
        let path = self.dns_config.as_deref().context("this frontend has no dns_config, which says what should be")?;
        let config: DnsRoleConfig = super::read(path)?;
        let zone = records::zone_of(&config, &self.router.map(), domain)?;
        let server = self.resolver.map_or_else(records::system_resolver, Ok)?;
        let checked = records::compared(&zone, server).await?;
        let name = |line: records::CheckLine| CheckedName {
            name: line.name,
            rtype: line.r#type,
            state: match line.state {
                State::Ok => "ok",
                State::Missing => "missing",
                State::Differs => "differs",
            },
            expected: line.expected,
            seen: line.seen,
        };
        Ok(checked.into_iter().map(name).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::authority::{Authority, CertificateFiles, Subject};

    use super::*;

    #[test]
    fn a_certificate_of_another_role_is_said_before_anything_listens() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_make(dir.path(), "Of a test").unwrap();
        let config = |role: Role, account: &str| {
            let subject = Subject::of_role(role.name(), role, Vec::new());
            let files = authority.issue(CertificateFiles::of_process(dir.path(), role.name()), &subject).unwrap();
            OperatorsConfig {
                accounts: vec![account.to_owned()],
                resolver: None,
                tls: TlsFiles { ca: files.ca, cert: files.cert, key: files.key },
            }
        };
        let check = |config: OperatorsConfig| {
            let cluster = ClusterConfig { nodes: vec!["127.0.0.1:1".to_owned()], tls: config.tls.clone() };
            config.check("seoul", &cluster, None).map(drop).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(check(config(Role::Ctl, "ada@x.example")), Ok(()));
        assert!(check(config(Role::Frontend, "ada@x.example")).unwrap_err().contains("of a frontend"));
        assert!(check(config(Role::Ctl, "ada")).unwrap_err().contains("operators.accounts: \"ada\""));
    }
}
