//! A connection to a cluster with an operator's certificate, and the questions that several callers ask.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use postrider_api::env::{SystemClock, SystemEntropy, random};
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb;
use postrider_api::tls::TlsIdentity;
use postrider_router::operate::{NodeReport, primary_of};
use postrider_router::{AdminClient, ReadMode, Router, RouterOptions};
use thiserror::Error;

use crate::audit::Operator;

/// How long a read may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// What placement or a shard understood and would not do.
#[derive(Debug, Clone, Error)]
#[error("{detail}")]
pub struct Refused {
    /// What a program can act on.
    pub refusal: pb::Refusal,
    /// A sentence for people.
    pub detail: String,
}

impl From<pb::Refused> for Refused {
    fn from(refused: pb::Refused) -> Self {
        Self { refusal: refused.refusal(), detail: refused.detail }
    }
}

/// An open cluster.
pub struct Session {
    /// The way to its shards.
    pub router: Router,
    /// Who asks, and why.
    pub operator: Operator,
    identity: TlsIdentity,
}

impl Session {
    /// Connects to the cluster that has a storage node at one of these addresses (HOST:PORT).
    ///
    /// # Errors
    /// When none of them answers, or the certificate is none for an operator.
    pub async fn connect(nodes: Vec<String>, identity: TlsIdentity, operator: Operator) -> anyhow::Result<Self> {
        let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
        let options = RouterOptions::new(nodes, String::new(), identity.clone(), clock, entropy);
        let router = Router::connect(options).await.context("connect to the cluster")?;
        Ok(Self { router, operator, identity })
    }

    /// The shard map that is known here; the newest may be on its way.
    #[must_use]
    pub fn map(&self) -> Arc<pb::ShardMap> {
        self.router.map()
    }

    /// The shard map as placement's leader has it now: whoever has just changed it finds the change.
    ///
    /// # Errors
    /// When placement does not answer.
    pub async fn newest_map(&self) -> anyhow::Result<pb::ShardMap> {
        let ask = pb::query::Query::GetShardMap(pb::GetShardMap { known_version: 0 });
        match self.ask(ShardId::PLACEMENT.0, ask).await? {
            pb::answer::Answer::ShardMap(pb::MapUpdate { update: Some(pb::map_update::Update::Whole(map)) }) => Ok(map),
            _ => bail!("placement answered something else than the shard map"),
        }
    }

    /// The shard's map entry.
    ///
    /// # Errors
    /// When there is none.
    pub fn shard(&self, id: u32) -> anyhow::Result<pb::Shard> {
        let map = self.map();
        map.shards.iter().find(|shard| shard.id == id).cloned().with_context(|| format!("there is no shard {id}"))
    }

    /// The operator's interface of one node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn admin(&self, node: u64) -> anyhow::Result<AdminClient> {
        let map = self.map();
        let node =
            map.nodes.iter().find(|known| known.id == node).with_context(|| format!("there is no node {node}"))?;
        Ok(AdminClient::connect(&node.address, &self.identity)?)
    }

    /// What every node says, asked all at once; those that do not answer are listed with the reason.
    pub async fn reports(&self) -> Vec<NodeReport> {
        self.router.reports().await
    }

    /// One answer from the leader of `shard`.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn ask(&self, shard: u32, query: pb::query::Query) -> anyhow::Result<pb::answer::Answer> {
        let answered = self
            .router
            .query(ShardId(shard), None, query, ReadMode::Consistent, 0, DEADLINE)
            .await
            .with_context(|| format!("ask shard {shard}"))?;
        answered.answer.answer.with_context(|| format!("shard {shard} gave an empty answer"))
    }

    /// Has placement carry out a command, which the audit log tells as `action` on `targets`.
    ///
    /// # Errors
    /// When there is no outcome, or it is [`Refused`], in placement's words.
    pub async fn place(
        &self,
        action: &str,
        targets: impl IntoIterator<Item = String>,
        op: pb::command::Op,
    ) -> anyhow::Result<pb::outcome::Result> {
        let placed = async {
            match self.propose(ShardId::PLACEMENT, op).await? {
                pb::outcome::Result::Refused(refused) => Err(Refused::from(refused).into()),
                result => Ok(result),
            }
        };
        self.audited(action, targets, placed).await
    }

    /// The outcome of one command, carried out at most once. A refusal is an outcome.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn propose(&self, shard: ShardId, op: pb::command::Op) -> anyhow::Result<pb::outcome::Result> {
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
    ///
    /// # Errors
    /// When nobody does.
    pub async fn primary(&self, shard: u32) -> anyhow::Result<NodeId> {
        match primary_of(shard, &self.reports().await) {
            Some(node) => Ok(NodeId(node)),
            None => bail!("shard {shard} has no primary now"),
        }
    }
}
