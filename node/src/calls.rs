//! A node's own commands and questions to any shard, wherever its leader is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::env::{Entropy, random};
use postrider_api::id::ShardId;
use postrider_api::pb::{self, answer, command::Op, fault::Fault, outcome, propose_reply, query, query_reply};
use thiserror::Error;

use crate::map::Map;
use crate::peers::Peers;
use crate::propose::Proposer;
use crate::query::Querier;
use crate::received::Received;
use crate::replicas::Replicas;

/// Attempts before the caller is told to come back later.
const ATTEMPTS_MAX: u32 = 12;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// Why a shard gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CallError {
    /// It says no; asking again does not help. Its sentence names no address (P-9).
    #[error("shard {shard} refuses: {detail}")]
    Refused {
        /// Which.
        shard: ShardId,
        /// What kind of refusal it is.
        refusal: pb::Refusal,
        /// Its sentence.
        detail: String,
    },
    /// Its leader cannot be found, or says nothing that makes sense; asking again may help.
    #[error("shard {shard} cannot be reached")]
    Unreachable {
        /// Which.
        shard: ShardId,
    },
}

/// The way to every shard's leader. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) peers: Peers,
    pub(crate) proposer: Proposer,
    pub(crate) querier: Querier,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// What a shard is asked.
enum Ask {
    Command(Box<(pb::ProposeRequest, Received)>),
    Question(Box<pb::QueryRequest>),
}

/// What one attempt gave.
enum Given {
    Outcome(outcome::Result),
    Answer(Box<answer::Answer>),
    /// The leader is at this address.
    Elsewhere(String),
    Nothing,
}

impl Calls {
    /// Carries out a command that may come twice: it is proposed without a request id.
    pub(crate) async fn propose(&self, shard: ShardId, op: Op) -> Result<outcome::Result, CallError> {
        let command = pb::Command {
            entropy: Bytes::copy_from_slice(&random::<16>(&*self.entropy)),
            op: Some(op),
            ..Default::default()
        };
        let command = Received::of(command);
        let request = pb::ProposeRequest { shard: shard.0, command: command.bytes(), ..Default::default() };
        match self.pursue(shard, &Ask::Command(Box::new((request, command)))).await? {
            Given::Outcome(outcome::Result::Refused(refused)) => {
                Err(CallError::Refused { shard, refusal: refused.refusal(), detail: refused.detail })
            }
            Given::Outcome(result) => Ok(result),
            _ => Err(CallError::Unreachable { shard }), // it was not asked for
        }
    }

    /// A consistent answer.
    pub(crate) async fn query(&self, shard: ShardId, query: query::Query) -> Result<answer::Answer, CallError> {
        let request = pb::QueryRequest {
            shard: shard.0,
            mode: pb::ReadMode::Consistent.into(),
            query: Some(pb::Query { query: Some(query) }),
            ..Default::default()
        };
        match self.pursue(shard, &Ask::Question(Box::new(request))).await? {
            Given::Answer(answer) => Ok(*answer),
            _ => Err(CallError::Unreachable { shard }), // it was not asked for
        }
    }

    /// Asks the leader where one is known, and the replicas in turn where none is.
    async fn pursue(&self, shard: ShardId, ask: &Ask) -> Result<Given, CallError> {
        let mut hint = String::new();
        for turn in 0..ATTEMPTS_MAX {
            let given = if self.replicas.leading(shard).is_ok() {
                self.attempt(ask, None).await
            } else {
                match self.address(shard, &hint, turn) {
                    Some(address) => self.attempt(ask, Some(&address)).await,
                    None => Given::Nothing,
                }
            };
            hint.clear();
            match given {
                Given::Elsewhere(address) => hint = address,
                Given::Nothing => {}
                given => return Ok(given),
            }
            if hint.is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Err(CallError::Unreachable { shard })
    }

    /// Asks one node; this one where there is no address.
    async fn attempt(&self, ask: &Ask, address: Option<&str>) -> Given {
        match ask {
            Ask::Command(asked) => {
                let (request, command) = &**asked;
                let reply = match address {
                    None => Some(self.proposer.handle(request.clone(), command.clone()).await),
                    Some(address) => self.peers.propose(address, request.clone()).await.ok(),
                };
                match reply.and_then(|reply| reply.result) {
                    Some(propose_reply::Result::Outcome(outcome)) => {
                        outcome.result.map_or(Given::Nothing, Given::Outcome)
                    }
                    Some(propose_reply::Result::Fault(fault)) => elsewhere(fault),
                    None => Given::Nothing,
                }
            }
            Ask::Question(request) => {
                let reply = match address {
                    None => Some(self.querier.handle((**request).clone()).await),
                    Some(address) => self.peers.query(address, (**request).clone()).await.ok(),
                };
                match reply.and_then(|reply| reply.result) {
                    Some(query_reply::Result::Answer(answer)) => {
                        answer.answer.map_or(Given::Nothing, |answer| Given::Answer(Box::new(answer)))
                    }
                    Some(query_reply::Result::Fault(fault)) => elsewhere(fault),
                    None => Given::Nothing,
                }
            }
        }
    }

    fn address(&self, shard: ShardId, hint: &str, turn: u32) -> Option<String> {
        if !hint.is_empty() {
            return Some(hint.to_owned());
        }
        let map = self.map.get()?;
        let holders: Vec<&pb::Node> = map.replicas(shard).collect();
        let at = usize::try_from(turn).ok()?.checked_rem(holders.len())?;
        Some(holders[at].address.clone())
    }
}

fn elsewhere(fault: pb::Fault) -> Given {
    match fault.fault {
        Some(Fault::NotLeader(elsewhere)) if !elsewhere.leader_address.is_empty() => {
            Given::Elsewhere(elsewhere.leader_address)
        }
        _ => Given::Nothing,
    }
}
