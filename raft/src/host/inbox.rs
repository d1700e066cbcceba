//! Messages from peers, delivered to the replicas here.

use std::sync::{Arc, Weak};

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::election::voter;
use crate::host::{Inner, receive};
use crate::ids::{GroupId, GroupIdentity, NodeId};
use crate::replica::{Instance, Parked, Replica, Running};
use crate::snapshot::reception::{Progress, TransferId};
use crate::transport::{Inbox, InstallError};
use crate::types::{LogId, Types, Vote};
use crate::wire::{
    self, Append, AppendAnswer, Ballot, BallotAnswer, InstallAnswer, ProgressAnswer, Refusal, SnapshotPart, Transfer,
    TransferAnswer, answer, append_answer, message, progress_answer, transfer_answer,
};
use openraft::async_runtime::WatchReceiver;

/// A host's inbox. Does not keep the host alive.
pub(crate) struct HostInbox {
    inner: Weak<Inner>,
    node: NodeId,
}

fn refuse(refusal: Refusal) -> answer::Body {
    answer::Body::Refused(refusal.into())
}

impl HostInbox {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        Self { inner: Arc::downgrade(inner), node: inner.options.node }
    }
}

impl Inbox for HostInbox {
    fn deliver(&self, from: NodeId, group: GroupIdentity, body: message::Body) -> BoxFuture<'static, answer::Body> {
        let Some(inner) = self.inner.upgrade() else {
            return std::future::ready(refuse(Refusal::UnknownGroup)).boxed();
        };
        if let message::Body::Beat(beat) = &body {
            return std::future::ready(answer::Body::Beat(inner.quiescence.answer(from, beat))).boxed();
        }
        let body = match body {
            message::Body::Ballots(ballots) => {
                let inbox = Self { inner: self.inner.clone(), node: self.node };
                let deliver: voter::Deliver = Arc::new(move |group, body| inbox.deliver(from, group, body));
                return voter::answer(inner, from, ballots, deliver).boxed();
            }
            body => body,
        };
        let Some(replica) = inner.replica(group.id) else {
            return std::future::ready(refuse(Refusal::UnknownGroup)).boxed();
        };
        if replica.incarnation != group.incarnation {
            let GroupIdentity { id, incarnation } = group;
            tracing::debug!(group = %id, %from, %incarnation, own = %replica.incarnation, "a message for another incarnation");
            metrics::counter!("postrider_raft_other_incarnation_total").increment(1);
            return std::future::ready(refuse(Refusal::OtherIncarnation)).boxed();
        }
        match replica.running() {
            Ok(Running::Here(instance)) => deliver(inner, replica, instance, from, body),
            Ok(Running::Parked(parked)) => deliver_parked(inner, replica, parked, from, body).boxed(),
            Err(_) => std::future::ready(refuse(Refusal::Stopped)).boxed(),
        }
    }

    fn install(&self, parts: mpsc::Receiver<SnapshotPart>) -> BoxFuture<'static, Result<InstallAnswer, InstallError>> {
        let inner = self.inner.clone();
        async move {
            let inner = inner.upgrade().ok_or(InstallError::UnknownGroup)?;
            // On its own task: whoever serves the stream drops this when the connection breaks, and what has come is to be kept.
            let installing = tokio::spawn(receive::install(inner, parts));
            installing.await.map_err(|error| InstallError::Failed(error.to_string()))?
        }
        .boxed()
    }

    fn node(&self) -> NodeId {
        self.node
    }

    fn reached(&self, peer: NodeId, address: String) {
        if let Some(inner) = self.inner.upgrade() {
            inner.network.addresses.hear(peer, address);
        }
    }

    fn told_by_others(&self, peer: NodeId) -> Vec<(NodeId, String)> {
        self.inner.upgrade().map(|inner| inner.network.addresses.told_by_others(peer)).unwrap_or_default()
    }

    fn closed(&self) -> bool {
        self.inner.upgrade().is_none_or(|inner| inner.closing.is_closed())
    }
}

/// What comes for a replica whose consensus runs.
fn deliver(
    inner: Arc<Inner>,
    replica: Arc<Replica>,
    instance: Instance,
    from: NodeId,
    body: message::Body,
) -> BoxFuture<'static, answer::Body> {
    replica.begin(&instance);
    match body {
        message::Body::Append(append) => deliver_append(inner, replica, instance, append).boxed(),
        message::Body::Vote(ballot) => deliver_vote(inner, replica, instance, ballot, Kind::Vote).boxed(),
        message::Body::PreVote(ballot) => deliver_vote(inner, replica, instance, ballot, Kind::PreVote).boxed(),
        message::Body::Transfer(transfer) => {
            if !replica.wake(&inner, &instance) {
                return std::future::ready(refuse(Refusal::Stopped)).boxed();
            }
            deliver_transfer(instance, transfer).boxed()
        }
        message::Body::Quiesce(asked) => {
            let answer = inner.quiesce(&replica, &instance, &asked);
            std::future::ready(answer::Body::Quiesce(answer)).boxed()
        }
        message::Body::Progress(asked) => {
            let id = TransferId { from, serial: asked.transfer };
            async move { progress(&inner, replica.group, id).await }.boxed()
        }
        message::Body::Beat(_) | message::Body::Ballots(_) => std::future::ready(refuse(Refusal::Malformed)).boxed(),
    }
}

/// Whatever comes for a parked replica starts its consensus first, but for a vote that it would not give.
async fn deliver_parked(
    inner: Arc<Inner>,
    replica: Arc<Replica>,
    parked: Parked,
    from: NodeId,
    body: message::Body,
) -> answer::Body {
    if let message::Body::Vote(ballot) | message::Body::PreVote(ballot) = &body
        && !ballot.transfer
        && (replica.leads_quiesced() || inner.is_bound(&replica))
    {
        if replica.leads_quiesced() {
            // It speaks again: whoever stands has not heard of it.
            tokio::spawn(async move { inner.instance(&replica).await });
        }
        return answer::Body::Ballot(not_granted(parked.vote, Some(parked.last_log)));
    }
    match inner.instance(&replica).await {
        Ok(instance) => deliver(inner, replica, instance, from, body).await,
        Err(_) => refuse(Refusal::Stopped),
    }
}

async fn deliver_append(inner: Arc<Inner>, replica: Arc<Replica>, instance: Instance, append: Append) -> answer::Body {
    let Ok(request) = AppendEntriesRequest::<Types>::try_from(append) else {
        return refuse(Refusal::Malformed);
    };
    let (vote, with_entries) = (request.vote, !request.entries.is_empty());
    if !replica.wake_by(&inner, &instance, &vote, with_entries) {
        return refuse(Refusal::Stopped);
    }
    let appended = instance.raft.append_entries(request).await;
    // It may have agreed to quiesce before it took this in.
    if !replica.wake_by(&inner, &instance, &vote, with_entries) {
        return refuse(Refusal::Stopped);
    }
    match appended {
        Ok(response) => {
            if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                replica.hear();
            }
            answer::Body::Append(append_answer(response))
        }
        Err(_) => refuse(Refusal::Stopped),
    }
}

fn append_answer(response: AppendEntriesResponse<Types>) -> AppendAnswer {
    let (outcome, matched, vote) = match response {
        AppendEntriesResponse::Success => (append_answer::Outcome::Success, None, None),
        AppendEntriesResponse::PartialSuccess(matched) => (append_answer::Outcome::Partial, matched, None),
        AppendEntriesResponse::Conflict => (append_answer::Outcome::Conflict, None, None),
        AppendEntriesResponse::HigherVote(vote) => (append_answer::Outcome::HigherVote, None, Some(vote)),
    };
    AppendAnswer {
        outcome: outcome.into(),
        matched: matched.as_ref().map(Into::into),
        vote: vote.as_ref().map(Into::into),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vote,
    PreVote,
}

async fn deliver_vote(
    inner: Arc<Inner>,
    replica: Arc<Replica>,
    instance: Instance,
    ballot: Ballot,
    kind: Kind,
) -> answer::Body {
    let Ok(request) = VoteRequest::<Types>::try_from(&ballot) else {
        return refuse(Refusal::Malformed);
    };
    if !request.leadership_transfer && !instance.probation.over(Instant::now()) {
        tracing::info!(group = %replica.group, "no vote: the promise of the life before is still good");
        return answer::Body::Ballot(refused_by(&instance));
    }
    if !request.leadership_transfer && (replica.leads_quiesced() || inner.is_bound(&replica)) {
        // A leader that slept speaks again: whoever stands has not heard of it.
        if replica.leads_quiesced() && !replica.wake(&inner, &instance) {
            return refuse(Refusal::Stopped);
        }
        return answer::Body::Ballot(refused_by(&instance));
    }
    if !replica.wake(&inner, &instance) {
        return refuse(Refusal::Stopped);
    }
    let answered = match kind {
        Kind::Vote => instance.raft.vote(request).await,
        Kind::PreVote => instance.raft.pre_vote(request).await,
    };
    if !replica.wake(&inner, &instance) {
        return refuse(Refusal::Stopped);
    }
    let Ok(response) = answered else {
        return refuse(Refusal::Stopped);
    };
    if response.vote_granted && kind == Kind::Vote {
        replica.wait_again();
    }
    answer::Body::Ballot(BallotAnswer {
        vote: Some((&response.vote).into()),
        granted: response.vote_granted,
        last_log: response.last_log_id.as_ref().map(Into::into),
    })
}

fn refused_by(instance: &Instance) -> BallotAnswer {
    let vote = instance.raft.metrics().borrow_watched().vote;
    not_granted(vote, instance.log.last())
}

fn not_granted(vote: Vote, last_log: Option<LogId>) -> BallotAnswer {
    BallotAnswer { vote: Some((&vote).into()), granted: false, last_log: last_log.as_ref().map(Into::into) }
}

async fn deliver_transfer(instance: Instance, transfer: Transfer) -> answer::Body {
    let Ok(from) = wire::read_vote(transfer.from.as_ref()) else {
        return refuse(Refusal::Malformed);
    };
    let last_log = wire::read_log_id(transfer.last_log.as_ref());
    let request = TransferLeaderRequest::<Types>::new(from, NodeId(transfer.to), last_log);
    let (outcome, vote, flushed) = match instance.raft.handle_transfer_leader(request).await {
        Ok(Ok(())) => (transfer_answer::Outcome::Accepted, None, None),
        Ok(Err(TransferLeaderError::VoteChanged { actual, .. })) => {
            (transfer_answer::Outcome::VoteChanged, Some(actual), None)
        }
        Ok(Err(TransferLeaderError::LogNotFlushed { actual, .. })) => {
            (transfer_answer::Outcome::LogNotFlushed, None, actual)
        }
        Err(_) => return refuse(Refusal::Stopped),
    };
    answer::Body::Transfer(TransferAnswer {
        outcome: outcome.into(),
        vote: vote.as_ref().map(Into::into),
        flushed: flushed.as_ref().map(Into::into),
    })
}

async fn progress(inner: &Inner, group: GroupId, id: TransferId) -> answer::Body {
    let progress = match inner.receptions.progress(group, id).await {
        Progress::Blocks(blocks) => progress_answer::Progress::Blocks(blocks),
        Progress::Installing => progress_answer::Progress::Installing(true),
        Progress::Installed(answer) => progress_answer::Progress::Installed(answer),
        Progress::Forgotten => progress_answer::Progress::Forgotten(true),
    };
    answer::Body::Progress(ProgressAnswer { progress: Some(progress) })
}
