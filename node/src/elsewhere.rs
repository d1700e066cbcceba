//! A node's own commands and questions to any shard, wherever its leader is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::env::{Entropy, random};
use postrider_api::id::ShardId;
use postrider_api::pb::{self, answer::Answer, command::Op, fault::Fault, outcome, propose_reply, query, query_reply};
use thiserror::Error;

use crate::map::Map;
use crate::peers::Peers;
use crate::propose::Proposer;
use crate::query::Querier;
use crate::received::Received;
use crate::replicas::Replicas;

/// Attempts before the caller is told to come back later. They go out under one request id.
const ATTEMPTS_MAX: usize = 12;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// Why a shard did not take a command or a question.
#[derive(Debug, Error)]
pub(crate) enum ElsewhereError {
    /// Its leader cannot be found, or has no quorum; asking again may help.
    #[error("shard {0} cannot be reached")]
    Unreachable(ShardId),
    /// Another one will not change that.
    #[error("shard {shard} said something else than was asked: {detail}")]
    Unexpected {
        /// Which shard.
        shard: ShardId,
        /// What it said; holds no personal data.
        detail: String,
    },
}

/// The way to the other shards. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Elsewhere {
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) peers: Peers,
    pub(crate) proposer: Proposer,
    pub(crate) querier: Querier,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl Elsewhere {
    /// The outcome of one command, at most once carried out. A refusal is an outcome.
    pub(crate) async fn propose(&self, shard: ShardId, op: Op) -> Result<outcome::Result, ElsewhereError> {
        let command = pb::Command {
            request: Bytes::copy_from_slice(&random::<16>(&*self.entropy)),
            entropy: Bytes::copy_from_slice(&random::<16>(&*self.entropy)),
            op: Some(op),
            ..Default::default()
        };
        let command = Received::of(command);
        let request = pb::ProposeRequest { shard: shard.0, command: command.bytes(), ..Default::default() };
        let mut hint = String::new();
        for attempt in 0..ATTEMPTS_MAX {
            let reply = match self.replicas.leading(shard) {
                Ok(_) => Some(self.proposer.handle(request.clone(), command.clone()).await),
                Err(_) => match self.address(shard, &hint, attempt) {
                    Some(address) => self.peers.propose(&address, request.clone()).await.ok(),
                    None => None,
                },
            };
            match reply.and_then(|reply| reply.result) {
                Some(propose_reply::Result::Outcome(outcome)) => {
                    return outcome.result.ok_or_else(|| unexpected(shard, "nothing"));
                }
                Some(propose_reply::Result::Fault(fault)) => hint = elsewhere(fault),
                None => hint.clear(),
            }
            pause(&hint).await;
        }
        Err(ElsewhereError::Unreachable(shard))
    }

    /// A consistent answer.
    pub(crate) async fn query(&self, shard: ShardId, query: query::Query) -> Result<Answer, ElsewhereError> {
        let request = pb::QueryRequest {
            shard: shard.0,
            mode: pb::ReadMode::Consistent.into(),
            query: Some(pb::Query { query: Some(query) }),
            ..Default::default()
        };
        let mut hint = String::new();
        for attempt in 0..ATTEMPTS_MAX {
            let reply = match self.replicas.leading(shard) {
                Ok(_) => Some(self.querier.handle(request.clone()).await),
                Err(_) => match self.address(shard, &hint, attempt) {
                    Some(address) => self.peers.query(&address, request.clone()).await.ok(),
                    None => None,
                },
            };
            match reply.and_then(|reply| reply.result) {
                Some(query_reply::Result::Answer(answer)) => {
                    return answer.answer.ok_or_else(|| unexpected(shard, "nothing"));
                }
                Some(query_reply::Result::Fault(fault)) => hint = elsewhere(fault),
                None => hint.clear(),
            }
            pause(&hint).await;
        }
        Err(ElsewhereError::Unreachable(shard))
    }

    /// Whom to ask: where the last one has sent us, or the shard's nodes in turn.
    fn address(&self, shard: ShardId, hint: &str, attempt: usize) -> Option<String> {
        if !hint.is_empty() {
            return Some(hint.to_owned());
        }
        let map = self.map.get()?;
        let holders: Vec<&pb::Node> = map.replicas(shard).collect();
        let at = attempt.checked_rem(holders.len())?;
        Some(holders[at].address.clone())
    }
}

async fn pause(hint: &str) {
    if hint.is_empty() {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Where the leader is, where a fault tells.
fn elsewhere(fault: pb::Fault) -> String {
    match fault.fault {
        Some(Fault::NotLeader(elsewhere)) => elsewhere.leader_address,
        _ => String::new(),
    }
}

pub(crate) fn unexpected(shard: ShardId, detail: &str) -> ElsewhereError {
    ElsewhereError::Unexpected { shard, detail: detail.to_owned() }
}
