//! Votes of many groups, given here.

use std::sync::Arc;

use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;

use crate::election::BALLOTS_MAX;
use crate::election::rules::Standing;
use crate::host::Inner;
use crate::ids::{GroupIdentity, NodeId};
use crate::log::engine::LogOp;
use crate::quiesce::Quiet;
use crate::replica::Replica;
use crate::types::Vote;
use crate::wire::{Asked, read_vote};
use crate::wire::{
    Ballot, BallotAnswer, Ballots, BallotsAnswer, GroupBallot, GroupBallotAnswer, Quiesce, QuiesceAnswer, Refusal,
    answer, ballots, message,
};

/// Delivers what is for a replica whose consensus runs.
pub(crate) type Deliver = Arc<dyn Fn(GroupIdentity, message::Body) -> BoxFuture<'static, answer::Body> + Send + Sync>;

/// What all ballots of a frame have in common.
#[derive(Clone, Copy)]
struct Frame {
    kind: ballots::Kind,
    from: NodeId,
    life: u64,
    wake: u64,
}

/// Answers all ballots of a frame. What is written for them shares a sync, as whatever waits for the log does.
pub(crate) async fn answer(inner: Arc<Inner>, from: NodeId, asked: Ballots, deliver: Deliver) -> answer::Body {
    let Ballots { kind, ballots, life, wake } = asked;
    let kind = ballots::Kind::try_from(kind).unwrap_or(ballots::Kind::Unspecified);
    if kind == ballots::Kind::Unspecified || ballots.len() > BALLOTS_MAX {
        return answer::Body::Refused(Refusal::Malformed.into());
    }
    let frame = Frame { kind, from, life, wake };
    // On its own task: what is half written when the peer's connection breaks is written, and known here.
    let answering = tokio::spawn(async move {
        let answers = ballots.iter().map(|ballot| answer_one(&inner, frame, ballot, &deliver));
        BallotsAnswer { answers: join_all(answers).await }
    });
    match answering.await {
        Ok(answers) => answer::Body::Ballots(answers),
        Err(error) => {
            tracing::error!(%from, %error, "votes were not given");
            answer::Body::Refused(Refusal::Stopped.into())
        }
    }
}

/// No, with the vote that stands in the way if it is known.
fn no(vote: Option<&Vote>) -> GroupBallotAnswer {
    GroupBallotAnswer { granted: false, vote: vote.map(Into::into) }
}

fn yes(vote: &Vote) -> GroupBallotAnswer {
    GroupBallotAnswer { granted: true, vote: Some(vote.into()) }
}

async fn answer_one(inner: &Arc<Inner>, frame: Frame, ballot: &GroupBallot, deliver: &Deliver) -> GroupBallotAnswer {
    let Ok(asked) = Asked::try_from(ballot) else { return no(None) };
    let Some(replica) = inner.replica(asked.group.id).filter(|replica| replica.incarnation == asked.group.incarnation)
    else {
        return no(None);
    };
    if replica.parked().is_none() {
        return ask_instance(frame, &asked, deliver).await;
    }
    match frame.kind {
        ballots::Kind::PreVote => would_vote(inner, &replica, &asked),
        ballots::Kind::Vote => vote(inner, &replica, &asked).await,
        ballots::Kind::Lead => follow(inner, &replica, frame, &asked).await,
        ballots::Kind::Unspecified => no(None),
    }
}

/// The replica's consensus runs, or the replica has stopped: the question as openraft, or a leader that falls silent, would have asked it.
async fn ask_instance(frame: Frame, asked: &Asked, deliver: &Deliver) -> GroupBallotAnswer {
    let (vote, last_log) = (Some((&asked.vote).into()), asked.last_log.as_ref().map(Into::into));
    let ballot = Ballot { vote, last_log, transfer: false };
    let body = match frame.kind {
        ballots::Kind::PreVote => message::Body::PreVote(ballot),
        ballots::Kind::Vote => message::Body::Vote(ballot),
        ballots::Kind::Lead => message::Body::Quiesce(Quiesce { vote, last_log, life: frame.life, wake: frame.wake }),
        ballots::Kind::Unspecified => return no(None),
    };
    match deliver(asked.group, body).await {
        answer::Body::Ballot(BallotAnswer { vote, granted, .. }) => GroupBallotAnswer { granted, vote },
        answer::Body::Quiesce(QuiesceAnswer { quiesced }) => GroupBallotAnswer { granted: quiesced, vote: None },
        _ => no(None),
    }
}

/// Whether nothing that the replica has promised forbids it to vote now. One that leads never does: it speaks again, since whoever
/// stands has not heard of it.
pub(super) fn is_free(inner: &Arc<Inner>, replica: &Arc<Replica>) -> bool {
    if replica.leads_quiesced() {
        let (inner, replica) = (inner.clone(), replica.clone());
        tokio::spawn(async move { inner.instance(&replica).await });
        return false;
    }
    let lease = inner.options.timings.lease();
    !inner.is_bound(replica) && inner.last_heard(replica).elapsed() >= lease
}

fn would_vote(inner: &Arc<Inner>, replica: &Arc<Replica>, asked: &Asked) -> GroupBallotAnswer {
    let Some(parked) = replica.parked() else { return no(None) };
    if is_free(inner, replica) && parked.standing().grants(&asked.vote, asked.last_log) {
        return yes(&asked.vote);
    }
    no(Some(&parked.vote))
}

async fn vote(inner: &Arc<Inner>, replica: &Arc<Replica>, asked: &Asked) -> GroupBallotAnswer {
    let granted = |standing: &Standing| is_free(inner, replica) && standing.grants(&asked.vote, asked.last_log);
    let written = write(inner, replica, asked.vote, granted).await;
    if let Err(standing) = written {
        return no(standing.map(|standing| standing.vote).as_ref());
    }
    // Somebody stands already.
    replica.wait_again();
    yes(&asked.vote)
}

/// A leader that a quorum has elected lets the group sleep on.
async fn follow(inner: &Arc<Inner>, replica: &Arc<Replica>, frame: Frame, asked: &Asked) -> GroupBallotAnswer {
    let leader = asked.vote.leader_id.voted_for;
    let status = replica.status();
    let Some(member) = status.voters.get(&leader).or_else(|| status.learners.get(&leader)) else { return no(None) };
    if leader != frame.from {
        return no(None);
    }
    let Some(_turn) = replica.try_turn() else { return no(None) };
    // One that leads, in a term before, has to hear of it from a leader that speaks.
    if replica.leads_quiesced() {
        return no(None);
    }
    let Some(parked) = replica.parked().filter(|_| !replica.is_closed()) else { return no(None) };
    if !parked.standing().follows(&asked.vote, asked.last_log) {
        return no(Some(&parked.vote));
    }
    if persist(inner, replica, parked.standing(), asked.vote).await.is_err() {
        return no(Some(&parked.vote));
    }
    inner.quiescence.hear(leader, frame.life, frame.wake);
    replica.hear();
    let quiet = Quiet::follows(leader, member.address.as_str().into(), asked.vote, frame.life, frame.wake);
    *replica.quiet.lock() = quiet;
    replica.note_leader(asked.vote.leader_id.term, leader, false);
    tracing::debug!(group = %replica.group, %leader, "sleeps on under another leader");
    yes(&asked.vote)
}

/// Writes down a vote of a parked replica if `may` says so, with nobody starting its consensus meanwhile; otherwise where it stands, if
/// it is parked still and nobody is about to start it.
pub(super) async fn write(
    inner: &Inner,
    replica: &Replica,
    vote: Vote,
    may: impl FnOnce(&Standing) -> bool,
) -> Result<(), Option<Standing>> {
    // Whoever waits for it here could wait for one who waits for him.
    let _turn = replica.try_turn().ok_or(None)?;
    let parked = replica.parked().filter(|_| !replica.is_closed()).ok_or(None)?;
    let standing = parked.standing();
    if !may(&standing) {
        return Err(Some(standing));
    }
    // It is nobody's follower any more.
    replica.let_go(inner);
    persist(inner, replica, standing, vote).await.map_err(|()| Some(standing))
}

/// With the replica's turn held.
pub(super) async fn persist(inner: &Inner, replica: &Replica, standing: Standing, vote: Vote) -> Result<(), ()> {
    if standing.vote == vote {
        return Ok(());
    }
    let began = Instant::now();
    // In no log's name: there is none open. A vote that failed may be on disk all the same; nobody was told of it.
    if let Err(error) = inner.log.writer.write(replica.group, None, LogOp::Vote(vote)).await {
        tracing::warn!(group = %replica.group, %error, "a vote was not written");
        return Err(());
    }
    tracing::trace!(group = %replica.group, ?vote, took_us = began.elapsed().as_micros(), "voted");
    replica.set_vote(vote);
    Ok(())
}

/// The vote that an answer names.
pub(super) fn answered_vote(answer: &GroupBallotAnswer) -> Option<Vote> {
    read_vote(answer.vote.as_ref()).ok()
}
