//! A node's own commands and questions to the placement group, wherever its leader is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::env::{Entropy, random};
use postrider_api::id::ShardId;
use postrider_api::pb::{self, answer, command::Op, fault::Fault, outcome, propose_reply, query, query_reply};
use thiserror::Error;

use crate::map::{Map, MapView};
use crate::peers::Peers;
use crate::propose::Proposer;
use crate::query::Querier;
use crate::received::Received;
use crate::replicas::Replicas;

/// Attempts before the caller is told to come back later. They go out under one request id.
const ATTEMPTS_MAX: u32 = 20;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// Why placement did not take a command.
#[derive(Debug, Error)]
pub(crate) enum PlacementError {
    /// It says no; asking again does not help.
    #[error("placement refused: {detail}")]
    Refused {
        /// What kind of refusal it is.
        refusal: pb::Refusal,
        /// Its sentence.
        detail: String,
    },
    /// Its leader cannot be found; asking again may help.
    #[error("the placement group cannot be reached")]
    Unreachable,
}

/// The way to the placement group.
#[derive(Clone)]
pub(crate) struct Placement {
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) peers: Peers,
    pub(crate) proposer: Proposer,
    pub(crate) querier: Querier,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// What the placement leader is asked for.
enum Ask {
    Command(Box<Received>),
    /// The map, unless its version is this one still.
    Map {
        known_version: u64,
    },
}

/// What it gives.
enum Given {
    Outcome(pb::Outcome),
    Map(Box<pb::MapUpdate>),
}

impl Placement {
    pub(crate) async fn propose(&self, op: Op) -> Result<(), PlacementError> {
        self.carry_out(op).await.map(|_| ())
    }

    /// The same, and what came of it.
    pub(crate) async fn carry_out(&self, op: Op) -> Result<outcome::Result, PlacementError> {
        let entropy = &*self.entropy;
        let command = pb::Command {
            request: Bytes::copy_from_slice(&random::<16>(entropy)),
            entropy: Bytes::copy_from_slice(&random::<16>(entropy)),
            op: Some(op),
            ..Default::default()
        };
        match self.pursue(&Ask::Command(Box::new(Received::of(command)))).await? {
            Given::Outcome(outcome) => judge(outcome),
            Given::Map(_) => Err(PlacementError::Unreachable), // it was not asked for
        }
    }

    /// The map as placement has agreed on it now; this node takes it in.
    pub(crate) async fn newest(&self) -> Result<Arc<MapView>, PlacementError> {
        let mut known_version = self.map.version();
        while let Given::Map(update) = self.pursue(&Ask::Map { known_version }).await? {
            if self.map.offer(*update) {
                break;
            }
            // Another map was taken in meanwhile.
            known_version = 0;
        }
        self.map.get().ok_or(PlacementError::Unreachable)
    }

    async fn pursue(&self, ask: &Ask) -> Result<Given, PlacementError> {
        let mut hint = String::new();
        for attempt in 0..ATTEMPTS_MAX {
            let given = self.ask(ask, &hint, attempt).await;
            hint.clear();
            match given {
                Some(Ok(given)) => return Ok(given),
                Some(Err(pb::Fault { fault: Some(Fault::NotLeader(elsewhere)) })) => {
                    hint = elsewhere.leader_address;
                }
                Some(Err(_)) | None => {}
            }
            if hint.is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Err(PlacementError::Unreachable)
    }

    async fn ask(&self, ask: &Ask, hint: &str, attempt: u32) -> Option<Result<Given, pb::Fault>> {
        if self.replicas.leading(ShardId::PLACEMENT).is_ok() {
            return match ask {
                Ask::Command(command) => {
                    given_outcome(self.proposer.handle(proposal(command), Received::clone(command)).await)
                }
                Ask::Map { known_version } => given_map(self.querier.handle(map_query(*known_version)).await),
            };
        }
        let holders = self.map.placement();
        let in_turn = usize::try_from(attempt).ok()?.checked_rem(holders.len()).map(|at| holders[at].as_str());
        let address = Some(hint).filter(|hint| !hint.is_empty()).or(in_turn)?;
        let given = match ask {
            Ask::Command(command) => self.peers.propose(address, proposal(command)).await.map(given_outcome),
            Ask::Map { known_version } => self.peers.query(address, map_query(*known_version)).await.map(given_map),
        };
        given.inspect_err(|status| tracing::debug!(%address, %status, "placement was not reached here")).ok().flatten()
    }
}

fn proposal(command: &Received) -> pb::ProposeRequest {
    pb::ProposeRequest { shard: ShardId::PLACEMENT.0, command: command.bytes(), ..Default::default() }
}

fn map_query(known_version: u64) -> pb::QueryRequest {
    let query = query::Query::GetShardMap(pb::GetShardMap { known_version });
    pb::QueryRequest {
        shard: ShardId::PLACEMENT.0,
        mode: pb::ReadMode::Consistent.into(),
        query: Some(pb::Query { query: Some(query) }),
        ..Default::default()
    }
}

fn given_outcome(reply: pb::ProposeReply) -> Option<Result<Given, pb::Fault>> {
    Some(match reply.result? {
        propose_reply::Result::Outcome(outcome) => Ok(Given::Outcome(outcome)),
        propose_reply::Result::Fault(fault) => Err(fault),
    })
}

fn given_map(reply: pb::QueryReply) -> Option<Result<Given, pb::Fault>> {
    match reply.result? {
        query_reply::Result::Answer(pb::Answer { answer: Some(answer::Answer::ShardMap(map)) }) => {
            Some(Ok(Given::Map(Box::new(map))))
        }
        query_reply::Result::Answer(_) => None,
        query_reply::Result::Fault(fault) => Some(Err(fault)),
    }
}

fn judge(outcome: pb::Outcome) -> Result<outcome::Result, PlacementError> {
    match outcome.result {
        Some(outcome::Result::Refused(refused)) => {
            Err(PlacementError::Refused { refusal: refused.refusal(), detail: refused.detail })
        }
        Some(made) => Ok(made),
        None => Ok(outcome::Result::Done(pb::Done {})),
    }
}
