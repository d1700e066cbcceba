//! A node's own commands to the placement group, wherever its leader is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::env::{Entropy, random};
use postrider_api::id::ShardId;
use postrider_api::pb::{self, command::Op, fault::Fault, outcome, propose_reply};
use thiserror::Error;

use crate::map::Map;
use crate::peers::Peers;
use crate::propose::Proposer;

/// Attempts before the caller is told to come back later. They go out under one request id.
const ATTEMPTS_MAX: u32 = 20;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// Why placement did not take a command.
#[derive(Debug, Error)]
pub(crate) enum PlacementError {
    /// It says no; asking again does not help.
    #[error("placement refused: {0}")]
    Refused(String),
    /// Its leader cannot be found; asking again may help.
    #[error("the placement group cannot be reached")]
    Unreachable,
}

/// The way to the placement group.
#[derive(Clone)]
pub(crate) struct Placement {
    pub(crate) map: Map,
    pub(crate) peers: Peers,
    pub(crate) proposer: Proposer,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl Placement {
    pub(crate) async fn propose(&self, op: Op) -> Result<(), PlacementError> {
        let entropy = &*self.entropy;
        let command = pb::Command {
            request: Bytes::copy_from_slice(&random::<16>(entropy)),
            entropy: Bytes::copy_from_slice(&random::<16>(entropy)),
            op: Some(op),
            ..Default::default()
        };
        let mut hint = String::new();
        for attempt in 0..ATTEMPTS_MAX {
            let reply = self.ask(&command, &hint, attempt).await;
            hint.clear();
            match reply.and_then(|reply| reply.result) {
                Some(propose_reply::Result::Outcome(outcome)) => return judge(outcome),
                Some(propose_reply::Result::Fault(pb::Fault { fault: Some(Fault::NotLeader(elsewhere)) })) => {
                    hint = elsewhere.leader_address;
                }
                Some(propose_reply::Result::Fault(_)) | None => {}
            }
            if hint.is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Err(PlacementError::Unreachable)
    }

    async fn ask(&self, command: &pb::Command, hint: &str, attempt: u32) -> Option<pb::ProposeReply> {
        let request =
            pb::ProposeRequest { shard: ShardId::PLACEMENT.0, command: Some(command.clone()), ..Default::default() };
        if self.proposer.replicas.leading(ShardId::PLACEMENT).is_ok() {
            return Some(self.proposer.handle(request).await);
        }
        let holders = self.map.placement();
        let in_turn = usize::try_from(attempt).ok()?.checked_rem(holders.len()).map(|at| holders[at].as_str());
        let address = Some(hint).filter(|hint| !hint.is_empty()).or(in_turn)?;
        self.peers
            .propose(address, request)
            .await
            .inspect_err(|status| tracing::debug!(%address, %status, "placement was not reached here"))
            .ok()
    }
}

fn judge(outcome: pb::Outcome) -> Result<(), PlacementError> {
    match outcome.result {
        Some(outcome::Result::Refused(refused)) => Err(PlacementError::Refused(refused.detail)),
        _ => Ok(()),
    }
}
