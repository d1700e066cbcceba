//! Changes of members and of the leader. Every one of them may be asked for again: of the same leader, or of the next.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardReason, ForwardToLeader, RaftError};
use tokio::time::Instant;

use crate::error::MemberError;
use crate::host::Host;
use crate::ids::{GroupId, Member, NodeId};
use crate::replica::Instance;
use crate::types::Types;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;

/// A leader hands over only to a member that lacks at most this many entries: the group takes no writes until it has them.
const TRANSFER_LAG_MAX: u64 = 1_024;
/// The pause between two looks whether a member is fit to lead.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A change of voters takes two entries, each of which may wait for a slow member.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);

impl Host {
    /// Hands the leadership of `group` to `to`, and waits until it leads.
    ///
    /// # Errors
    /// See [`MemberError`]. With `Unknown` the transfer may have failed: then an election follows by itself.
    pub fn transfer(&self, group: GroupId, to: NodeId) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move {
            let instance = self.leading(group).await?;
            let status = self.status(group).ok_or(MemberError::UnknownGroup)?;
            let node = self.inner.options.node;
            if !status.leads() {
                return Err(MemberError::NotLeader { leader: status.leader.filter(|leader| *leader != node) });
            }
            if to == node {
                return Ok(());
            }
            if !status.voters.contains_key(&to) {
                return Err(MemberError::UnknownMember { node: to });
            }
            self.until_fit_to_lead(&instance, to).await?;
            instance.raft.trigger().transfer_leader(to).await.map_err(stopped)?;
            let limit = Duration::from_millis(self.inner.options.timings.propose_ms);
            let changed = instance
                .raft
                .wait(Some(limit))
                .metrics(|metrics| metrics.current_leader.is_some_and(|leader| leader != node), "another leader")
                .await
                .map_err(|_| MemberError::Unknown)?;
            match changed.current_leader {
                Some(leader) if leader == to => Ok(()),
                leader => Err(MemberError::NotLeader { leader }),
            }
        })
    }

    /// A group that has just been woken has not heard of all of its members yet.
    async fn until_fit_to_lead(&self, instance: &Instance, to: NodeId) -> Result<(), MemberError> {
        let deadline = Instant::now() + self.inner.options.timings.lease();
        loop {
            match self.fit_to_lead(instance, to) {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
                fit => return fit,
            }
        }
    }

    /// A leader that hands over stops taking writes at once, so the next one must be there and nearly up to date.
    fn fit_to_lead(&self, instance: &Instance, to: NodeId) -> Result<(), MemberError> {
        let metrics = instance.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&to)).copied().flatten();
        if matched.is_none_or(|matched| matched.index + TRANSFER_LAG_MAX < last) {
            return Err(MemberError::Impossible { reason: format!("{to} lacks too many entries") });
        }
        let lease = self.inner.options.timings.lease();
        let heard = metrics.heartbeat.as_ref().and_then(|heartbeat| heartbeat.get(&to)).cloned().flatten();
        if heard.is_none_or(|heard| heard.elapsed() > lease) {
            return Err(MemberError::Impossible { reason: format!("{to} does not answer") });
        }
        Ok(())
    }

    /// Makes `node` follow `group` without a vote. It must host a replica. Its progress is in [`Self::status`].
    ///
    /// # Errors
    /// See [`MemberError`].
    pub fn add_learner(&self, group: GroupId, node: NodeId, member: Member) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move {
            let instance = self.leading(group).await?;
            let raft = instance.raft.clone();
            self.change(async move { raft.add_learner(node, member, false).await }).await
        })
    }

    /// Makes exactly `voters` vote in `group`. Those that are new must be learners that have caught up; those that are
    /// gone are no longer members when this returns, and may remove their replicas.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub fn change_members(&self, group: GroupId, voters: BTreeSet<NodeId>) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move {
            let instance = self.leading(group).await?;
            let raft = instance.raft.clone();
            let members = ChangeMembers::<NodeId, Member>::ReplaceAllVoters(voters);
            self.change(async move { raft.change_membership(members, false).await }).await
        })
    }

    /// Removes a learner from `group`.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub fn remove_learner(&self, group: GroupId, node: NodeId) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move {
            let instance = self.leading(group).await?;
            let raft = instance.raft.clone();
            let members = ChangeMembers::<NodeId, Member>::RemoveNodes(BTreeSet::from([node]));
            self.change(async move { raft.change_membership(members, false).await }).await
        })
    }

    /// Gives a member of `group` another address. Its vote and its log stay what they are: it must be the same node.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub fn set_member(&self, group: GroupId, node: NodeId, member: Member) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move {
            let instance = self.leading(group).await?;
            let raft = instance.raft.clone();
            let members = ChangeMembers::<NodeId, Member>::SetNodes(BTreeMap::from([(node, member)]));
            // Learners stay.
            self.change(async move { raft.change_membership(members, true).await }).await
        })
    }

    /// The replica here, awake; whether it leads shows in what it answers.
    async fn leading(&self, group: GroupId) -> Result<Instance, MemberError> {
        let replica = self.inner.replica(group).ok_or(MemberError::UnknownGroup)?;
        let deadline = Instant::now() + Duration::from_millis(self.inner.options.timings.propose_ms);
        Ok(self.inner.used(&replica, deadline).await?)
    }

    async fn change<T, F>(&self, change: F) -> Result<(), MemberError>
    where
        F: Future<Output = Result<T, RaftError<Types, ClientWriteError<Types>>>> + Send + 'static,
        T: Send + 'static,
    {
        let deadline = Instant::now() + CHANGE_LIMIT;
        // On its own task, so that the second half of a change follows the first even if nobody waits any more.
        match tokio::time::timeout_at(deadline, tokio::spawn(change)).await {
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(Ok(Err(error))) => Err(self.member_error(error)),
            Ok(Err(_)) | Err(_) => Err(MemberError::Unknown),
        }
    }

    fn member_error(&self, error: RaftError<Types, ClientWriteError<Types>>) -> MemberError {
        let error = match error {
            RaftError::APIError(error) => error,
            RaftError::Fatal(fatal) => return stopped(fatal),
        };
        match error {
            ClientWriteError::ForwardToLeader(forward) => self.member_not_leader(forward),
            ClientWriteError::LogEntryDiscarded(_) | ClientWriteError::PreconditionFailed(_) => MemberError::Unknown,
            ClientWriteError::ChangeMembershipError(error) => match error {
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
                    MemberError::InProgress
                }
                ChangeMembershipError::LearnerNotFound(missing) => MemberError::UnknownMember { node: missing.node_id },
                error => MemberError::Impossible { reason: error.to_string() },
            },
        }
    }

    fn member_not_leader(&self, forward: ForwardToLeader<Types>) -> MemberError {
        match forward.reason {
            ForwardReason::LeaseExpired => MemberError::NoQuorum,
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
                MemberError::NotLeader { leader: forward.leader_id.filter(|leader| *leader != self.inner.options.node) }
            }
        }
    }
}

fn stopped(fatal: impl ToString) -> MemberError {
    MemberError::Stopped { reason: fatal.to_string() }
}
