//! A connection to a cluster with an operator's certificate, and the questions that several commands ask.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::future::join_all;
use postrider_api::env::{SystemClock, SystemEntropy, random};
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb;
use postrider_api::tls::TlsIdentity;
use postrider_router::{AdminClient, AdminError, ReadMode, Router, RouterOptions};
use serde::Serialize;

use super::audit::Operator;
use crate::local;

/// How long a read may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// An open cluster.
pub(crate) struct Session {
    pub(crate) router: Router,
    pub(crate) json: bool,
    pub(super) operator: Operator,
    identity: TlsIdentity,
    /// Where the operator's certificate is.
    pub(super) identity_dir: PathBuf,
}

/// What a node said of itself.
pub(crate) struct NodeReport {
    pub(crate) node: pb::Node,
    pub(crate) status: Result<pb::StatusReply, AdminError>,
}

impl Session {
    /// Connects with the certificate in `identity`, or the one that is known for these addresses.
    pub(crate) async fn open(cluster: Vec<String>, identity: Option<PathBuf>, json: bool) -> anyhow::Result<Self> {
        ensure!(!cluster.is_empty(), "--cluster ADDR[,ADDR…]: the gRPC address of at least one storage node is needed");
        let dir = identity_dir(&cluster, identity)?;
        let identity = TlsIdentity::load(&dir.join("ca.pem"), &dir.join("cert.pem"), &dir.join("key.pem"))
            .with_context(|| format!("use the certificate in {}", dir.display()))?;
        let options = RouterOptions::new(
            cluster,
            String::new(),
            identity.clone(),
            SystemClock::shared(),
            SystemEntropy::shared(),
        );
        let router = Router::connect(options).await.context("connect to the cluster")?;
        Ok(Self { router, json, operator: Operator::default(), identity, identity_dir: dir })
    }

    /// The same for somebody of whom the audit log shall tell.
    pub(crate) fn for_operator(self, operator: Operator) -> Self {
        Self { operator, ..self }
    }

    pub(crate) fn map(&self) -> Arc<pb::ShardMap> {
        self.router.map()
    }

    /// Prints `value` for programs.
    pub(crate) fn print_json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string_pretty(value)?);
        Ok(())
    }

    /// The shard's map entry.
    pub(crate) fn shard(&self, id: u32) -> anyhow::Result<pb::Shard> {
        let map = self.map();
        map.shards.iter().find(|shard| shard.id == id).cloned().with_context(|| format!("there is no shard {id}"))
    }

    pub(crate) fn admin(&self, node: u64) -> anyhow::Result<AdminClient> {
        let map = self.map();
        let node =
            map.nodes.iter().find(|known| known.id == node).with_context(|| format!("there is no node {node}"))?;
        Ok(AdminClient::connect(&node.address, &self.identity)?)
    }

    /// What every node says, asked all at once; those that do not answer are listed with the reason.
    pub(crate) async fn reports(&self) -> Vec<NodeReport> {
        let map = self.map();
        let mut reports = join_all(map.nodes.iter().map(|node| async {
            let status = match AdminClient::connect(&node.address, &self.identity) {
                Ok(client) => client.status().await,
                Err(error) => Err(error),
            };
            NodeReport { node: node.clone(), status }
        }))
        .await;
        reports.sort_by_key(|report| report.node.id);
        reports
    }

    /// What every node bears and can bear, asked all at once, and the nodes that do not answer.
    pub(super) async fn loads(&self) -> (Vec<pb::LoadReply>, Vec<u64>) {
        let map = self.map();
        let answers = join_all(map.nodes.iter().map(|node| async {
            match AdminClient::connect(&node.address, &self.identity) {
                Ok(client) => client.load().await.map_err(|_| node.id),
                Err(_) => Err(node.id),
            }
        }));
        let (mut loads, mut silent) = (Vec::new(), Vec::new());
        for answer in answers.await {
            match answer {
                Ok(load) => loads.push(load),
                Err(node) => silent.push(node),
            }
        }
        (loads, silent)
    }

    /// One answer from the leader of `shard`.
    pub(crate) async fn ask(&self, shard: u32, query: pb::query::Query) -> anyhow::Result<pb::answer::Answer> {
        let answered = self
            .router
            .query(ShardId(shard), None, query, ReadMode::Consistent, 0, DEADLINE)
            .await
            .with_context(|| format!("ask shard {shard}"))?;
        answered.answer.answer.with_context(|| format!("shard {shard} gave an empty answer"))
    }

    /// Has placement carry out a command, which the audit log tells as `action` on `targets`. A refusal is an error, in placement's words.
    pub(crate) async fn place(
        &self,
        action: &str,
        targets: impl IntoIterator<Item = String>,
        op: pb::command::Op,
    ) -> anyhow::Result<pb::outcome::Result> {
        let placed = async {
            match self.propose(ShardId::PLACEMENT, op).await? {
                pb::outcome::Result::Refused(refused) => bail!("{}", refused.detail),
                result => Ok(result),
            }
        };
        self.audited(action, targets, placed).await
    }

    /// The outcome of one command, carried out at most once. A refusal is an outcome.
    pub(crate) async fn propose(&self, shard: ShardId, op: pb::command::Op) -> anyhow::Result<pb::outcome::Result> {
        let command = pb::Command {
            request: random::<16>(&SystemEntropy).to_vec().into(),
            entropy: random::<16>(&SystemEntropy).to_vec().into(),
            op: Some(op),
            ..Default::default()
        };
        let outcome = self.router.propose(shard, None, command, DEADLINE).await;
        let outcome = outcome.with_context(|| format!("ask shard {shard}"))?;
        outcome.result.with_context(|| format!("shard {shard} gave an empty outcome"))
    }

    /// The node that leads `shard` now.
    pub(crate) async fn primary(&self, shard: u32) -> anyhow::Result<NodeId> {
        match primary_of(shard, &self.reports().await) {
            Some(node) => Ok(NodeId(node)),
            None => bail!("shard {shard} has no primary now"),
        }
    }
}

/// The leader with the newest term: an older one has not yet heard that it leads no more.
pub(crate) fn primary_of(shard: u32, reports: &[NodeReport]) -> Option<u64> {
    replicas_of(shard, reports)
        .filter(|(_, replica)| replica.role() == pb::ReplicaRole::Leader)
        .max_by_key(|(_, replica)| replica.term)
        .map(|(node, _)| node)
}

/// What the nodes that answered say of their replicas of `shard`.
pub(crate) fn replicas_of(shard: u32, reports: &[NodeReport]) -> impl Iterator<Item = (u64, &pb::ReplicaStatus)> {
    reports.iter().filter_map(move |report| {
        let status = report.status.as_ref().ok()?;
        let replica = status.replicas.iter().find(|replica| replica.shard == shard)?;
        Some((report.node.id, replica))
    })
}

fn identity_dir(cluster: &[String], identity: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(dir) = identity {
        return Ok(dir);
    }
    for address in cluster {
        if let Some(dir) = local::identity_of(address)?.filter(|dir| Path::is_dir(dir)) {
            return Ok(dir);
        }
    }
    bail!("no certificate is known for {}: give --identity DIR or POSTRIDER_IDENTITY", cluster.join(", "))
}
