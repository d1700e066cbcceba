//! Proposals.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader, RaftError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::error::ProposeError;
use crate::host::Host;
use crate::ids::GroupId;
use crate::types::{Command, Types};

/// A proposal that was committed and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its place in the log.
    pub index: u64,
    /// What the machine replied.
    pub reply: Bytes,
}

/// What a proposal counts for beside its bytes, so that empty ones are bounded, too.
const PROPOSAL_OVERHEAD_BYTES: usize = 256;

impl Host {
    /// Proposes `payload` and waits until it was applied here.
    ///
    /// # Errors
    /// See [`ProposeError`]. Always within the propose time limit.
    pub fn propose(&self, group: GroupId, payload: Bytes) -> BoxFuture<'_, Result<Proposed, ProposeError>> {
        Box::pin(async move {
            let inner = &self.inner;
            let max = inner.options.limits.command_bytes_max;
            if payload.len() > max {
                return Err(ProposeError::TooLarge { max });
            }
            let replica = inner.replica(group).ok_or(ProposeError::UnknownGroup)?;
            let bytes = payload.len() + PROPOSAL_OVERHEAD_BYTES;
            let limit = Duration::from_millis(inner.options.timings.propose_ms);
            let deadline = Instant::now() + limit;
            let instance = inner.used(&replica, deadline).await?;
            let node_room = take(&inner.room, bytes, inner.options.limits.node_inflight_bytes_max)?;
            let group_room = take(&replica.room, bytes, inner.options.limits.group_inflight_bytes_max)?;

            // On its own task: the room is given back when the proposal is done with, not when its proposer loses patience.
            let raft = instance.raft.clone();
            let write = tokio::spawn(async move {
                let result = raft.client_write(Command(payload)).await;
                drop((node_room, group_room));
                result
            });
            match tokio::time::timeout_at(deadline, write).await {
                Ok(Ok(Ok(response))) => Ok(Proposed { index: response.log_id.index, reply: response.data.0 }),
                Ok(Ok(Err(error))) => Err(self.refusal(error)),
                // The write's task panicked, or time ran out: it may be in the log.
                Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
            }
        })
    }

    fn refusal(&self, error: RaftError<Types, ClientWriteError<Types>>) -> ProposeError {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => self.not_leader(forward),
            // Cut off the log here by a new leader; it may be in the log of another.
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::Unknown,
            RaftError::APIError(
                ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_),
            ) => {
                // Only asked for with changes of members, and with preconditions.
                ProposeError::Unknown
            }
            // It may have been written before the replica stopped.
            RaftError::Fatal(_) => ProposeError::Unknown,
        }
    }

    fn not_leader(&self, forward: ForwardToLeader<Types>) -> ProposeError {
        match forward.reason {
            ForwardReason::LeaseExpired => ProposeError::NoQuorum,
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => ProposeError::NotLeader {
                leader: forward.leader_id.filter(|leader| *leader != self.inner.options.node),
            },
        }
    }
}

fn take(room: &Arc<Semaphore>, bytes: usize, max: usize) -> Result<OwnedSemaphorePermit, ProposeError> {
    let bytes = u32::try_from(bytes.min(max)).map_err(|_| ProposeError::Busy)?;
    room.clone().try_acquire_many_owned(bytes).map_err(|_| {
        metrics::counter!("postrider_raft_proposals_refused_total").increment(1);
        ProposeError::Busy
    })
}
