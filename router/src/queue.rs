//! The worker's side of the queue.

use std::time::Duration;

use postrider_api::id::ShardId;
use postrider_api::pb::{self, lease_reply};
use tonic::Status;

use crate::error::RouteError;
use crate::pursuit::{Errand, Intent, Reply, pursue};
use crate::router::{Router, outcome};

/// The longest that one call waits at the node; a longer wait is several calls, so that a node which is cut off is noticed.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// What a lease call may take beyond its waiting time.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

impl Router {
    /// Leases up to `max` queue entries that are due, for `lease_ms`; waits up to `wait_ms` for the first. An empty list:
    /// nothing was due. A reply that is lost on its way costs the lease time, nothing else.
    ///
    /// # Errors
    /// When the shard's leader cannot be asked.
    pub async fn lease_queue(
        &self,
        shard: ShardId,
        max: u32,
        lease_ms: u32,
        wait_ms: u32,
    ) -> Result<Vec<pb::LeasedEntry>, RouteError> {
        let until = self.core.now().saturating_add(Duration::from_millis(wait_ms.into()));
        loop {
            let waits = until.saturating_sub(self.core.now()).min(WAIT_MAX);
            let request = pb::LeaseRequest {
                shard: shard.0,
                max,
                lease_ms,
                // WAIT_MAX is far below 2^32 ms.
                wait_ms: u32::try_from(waits.as_millis()).unwrap_or(u32::MAX),
                ..pb::LeaseRequest::default()
            };
            // Taking a lease changes nothing that does not mend itself: a lost one lapses.
            let errand = Errand { waits, ..Errand::new(shard, Intent::Read, waits + LEASE_MARGIN) };
            let leased = pursue(&self.core, errand, |peer, _epoch| async move {
                let reply = peer.shard_service().lease_queue(request).await?.into_inner();
                match reply.result {
                    Some(lease_reply::Result::Entries(leased)) => Ok(Reply::Done(leased.entries)),
                    Some(lease_reply::Result::Fault(fault)) => Ok(Reply::Fault(fault)),
                    None => Err(Status::unknown("the node sent an empty reply")),
                }
            })
            .await?;
            if !leased.is_empty() || self.core.now() >= until {
                return Ok(leased);
            }
        }
    }

    /// Has the lease of an entry last for `lease_ms` from now.
    ///
    /// # Errors
    /// [`RouteError::LeaseLost`] when it is not the current one any more.
    pub async fn prolong_lease(
        &self,
        shard: ShardId,
        entry: u64,
        fence: pb::Fence,
        lease_ms: u32,
        deadline: Duration,
    ) -> Result<(), RouteError> {
        let request = pb::LeaseRequest {
            shard: shard.0,
            lease_ms,
            prolonged_entry: entry,
            fence: Some(fence),
            ..pb::LeaseRequest::default()
        };
        pursue(&self.core, Errand::new(shard, Intent::Read, deadline), |peer, _epoch| async move {
            let reply = peer.shard_service().lease_queue(request).await?.into_inner();
            match reply.result {
                Some(lease_reply::Result::Entries(_)) => Ok(Reply::Done(())),
                Some(lease_reply::Result::Fault(fault)) => Ok(Reply::Fault(fault)),
                None => Err(Status::unknown("the node sent an empty reply")),
            }
        })
        .await
    }

    /// Tells what became of a leased entry.
    ///
    /// # Errors
    /// [`RouteError::LeaseLost`] when the lease is not the current one any more: whoever holds it settles the entry. After
    /// an attempt that ended without telling it is [`RouteError::TimedOut`], because this very settlement may have been
    /// carried out.
    pub async fn settle_queue(
        &self,
        shard: ShardId,
        fence: pb::Fence,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        let command = self.core.complete(command)?;
        let command = &command;
        pursue(&self.core, Errand::new(shard, Intent::Write, deadline), |peer, _epoch| async move {
            let request = pb::SettleRequest { shard: shard.0, fence: Some(fence), command: command.clone() };
            outcome(peer.shard_service().settle_queue(request).await?.into_inner())
        })
        .await
    }
}
