//! Consistent reads.

use std::time::Duration;

use futures::future::BoxFuture;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::LinearizerOption;
use tokio::time::Instant;

use crate::error::ReadError;
use crate::host::Host;
use crate::ids::GroupId;

impl Host {
    /// Waits until a read of this node's state of `group` is linearizable, and returns the applied index then.
    ///
    /// A quorum's word that is younger than most of a lease suffices; otherwise, or when the clocks cannot be trusted,
    /// the quorum is asked again.
    ///
    /// # Errors
    /// See [`ReadError`]. Always within the read time limit.
    pub fn read_barrier(&self, group: GroupId) -> BoxFuture<'_, Result<u64, ReadError>> {
        Box::pin(async move {
            let inner = &self.inner;
            let replica = inner.replica(group).ok_or(ReadError::UnknownGroup)?;
            let age = if inner.clock.trusted() { inner.options.timings.read_lease() } else { Duration::ZERO };
            let limit = Duration::from_millis(inner.options.timings.read_ms);
            let deadline = Instant::now() + limit;
            let instance = inner.used(&replica, deadline).await?;
            let option = LinearizerOption::new(Some(age), true).with_wait_timeout(limit);
            let asked = tokio::time::timeout_at(deadline, instance.raft.get_read_linearizer(option)).await;
            let linearizer = match asked {
                Ok(Ok(linearizer)) => linearizer,
                Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                    let leader = forward.leader_id.filter(|leader| *leader != inner.options.node);
                    return Err(ReadError::NotLeader { leader });
                }
                Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                    return Err(ReadError::NoQuorum);
                }
                Ok(Err(RaftError::Fatal(fatal))) => return Err(ReadError::Stopped { reason: fatal.to_string() }),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match linearizer.try_await_ready(&instance.raft, Some(left)).await {
                Ok(Ok(_)) => Ok(instance.applied.get().unwrap_or(0)),
                Ok(Err(_)) => Err(ReadError::NoQuorum),
                Err(fatal) => Err(ReadError::Stopped { reason: fatal.to_string() }),
            }
        })
    }

    /// How long ago the replica of `group` here last heard a leader, milliseconds: how old a read of it may be. Of a quiesced group,
    /// how long ago the leader's node last said that it has not woken the group.
    pub fn heard_age_ms(&self, group: GroupId) -> Option<u64> {
        let heard = self.inner.last_heard(&*self.inner.replica(group)?);
        Some(u64::try_from(heard.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
