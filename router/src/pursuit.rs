//! One call followed through redirects, refusals and lost connections until it has an answer or the time is up.
//!
//! Invariant: "certainly not carried out" is only said where every attempt ended so; one attempt that ended without telling
//! makes the whole call ambiguous ([`RouteError::TimedOut`] with `may_have_happened`).

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, fault::Fault};
use postrider_api::trace::{self, Kind};
use tonic::{Code, Status};

use crate::backoff::Backoff;
use crate::error::RouteError;
use crate::peer::Peer;
use crate::router::Core;

/// Redirects that are followed at once; then a pause, because two replicas may each believe in the other.
const HOPS_MAX: u32 = 2;
/// How long a call waits for the map to learn of a shard.
const MAP_WAIT: Duration = Duration::from_secs(1);
/// The least time that an attempt is given while a shard has no leader.
const ATTEMPT_MIN: Duration = Duration::from_millis(300);
/// An attempt's time doubles with each one that ran out, this often.
const ATTEMPT_DOUBLINGS_MAX: u32 = 3;
/// Round trips that a node which failed is given to show that it is back: three for a connection, one for the call.
const ROUND_TRIPS: u32 = 4;

/// What an attempt that got a reply brought back.
pub(crate) enum Reply<T> {
    Done(T),
    Fault(pb::Fault),
}

/// Whether a call that ended without telling may have changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Read,
    Write,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Errand {
    pub(crate) shard: ShardId,
    pub(crate) intent: Intent,
    /// The whole may take this long.
    pub(crate) limit: Duration,
    /// The epoch that the caller took for granted: under another one it is not carried out.
    pub(crate) epoch: Option<u64>,
    /// A node waits this long by itself before it answers: no sign of trouble, and no round trip.
    pub(crate) waits: Duration,
}

impl Errand {
    pub(crate) fn new(shard: ShardId, intent: Intent, limit: Duration) -> Self {
        Self { shard, intent, limit, epoch: None, waits: Duration::ZERO }
    }

    /// Reads that are answered at once measure how far a node is.
    fn measures(&self) -> bool {
        self.intent == Intent::Read && self.waits.is_zero()
    }

    /// The node may work for all of the time: that it has not answered when the time is up says nothing about it.
    fn is_long(&self) -> bool {
        self.waits >= self.limit
    }
}

/// What comes after an attempt.
#[derive(Debug)]
pub(crate) enum Step {
    /// Another one, after a pause.
    Again(Duration),
    /// The end.
    Give(RouteError),
}

/// Calls the shard's leader, wherever it is, until the errand's limit has passed. `call` gets the node to ask and the shard's
/// epoch.
pub(crate) async fn pursue<T, F, Fut>(core: &Core, errand: Errand, call: F) -> Result<T, RouteError>
where
    F: Fn(Arc<Peer>, u64) -> Fut,
    Fut: Future<Output = Result<Reply<T>, Status>>,
{
    let name = match errand.intent {
        Intent::Read => "route query",
        Intent::Write => "route command",
    };
    let mut span = trace::child(name, Kind::Internal);
    if !errand.waits.is_zero() {
        span = span.patient();
    }
    span.set("postrider.shard", errand.shard.0);
    let answered = span.scope(follow(core, errand, call)).await;
    if let Err(error) = &answered
        && error.is_ours()
    {
        span.fail(error.name());
    }
    answered
}

async fn follow<T, F, Fut>(core: &Core, errand: Errand, call: F) -> Result<T, RouteError>
where
    F: Fn(Arc<Peer>, u64) -> Fut,
    Fut: Future<Output = Result<Reply<T>, Status>>,
{
    let shard = errand.shard;
    let mut pursuit = Pursuit::new(core, errand);
    loop {
        let peer = pursuit.target().await?;
        let began = core.now();
        let epoch = errand.epoch.unwrap_or_else(|| core.epoch(shard));
        let attempt = tokio::time::timeout(pursuit.attempt(&peer), call(peer.clone(), epoch)).await;
        let step = match attempt {
            Ok(Ok(Reply::Done(answer))) => {
                peer.suspicion.answered();
                if errand.measures() {
                    peer.latency.record(core.now().saturating_sub(began));
                }
                core.leads(shard, &peer.address);
                return Ok(answer);
            }
            Ok(Ok(Reply::Fault(fault))) => {
                peer.suspicion.answered();
                pursuit.refused(&peer, fault)
            }
            Ok(Err(status)) => pursuit.failed(&peer, &status),
            Err(_) => pursuit.ran_out(&peer),
        };
        match step {
            Step::Give(error) => return Err(error),
            Step::Again(pause) => pursuit.pause(pause).await?,
        }
    }
}

/// What one call has learned so far.
pub(crate) struct Pursuit<'a> {
    core: &'a Core,
    errand: Errand,
    deadline: Duration,
    backoff: Backoff,
    hint: Option<Arc<str>>,
    turn: usize,
    hops: u32,
    timeouts: u32,
    leaderless_since: Option<Duration>,
    busy_since: Option<Duration>,
    ambiguous: bool,
}

impl<'a> Pursuit<'a> {
    pub(crate) fn new(core: &'a Core, errand: Errand) -> Self {
        let timings = &core.options.timings;
        Self {
            core,
            errand,
            deadline: core.now().saturating_add(errand.limit),
            backoff: Backoff::new(timings.backoff_min, timings.backoff_max),
            hint: None,
            turn: 0,
            hops: 0,
            timeouts: 0,
            leaderless_since: None,
            busy_since: None,
            ambiguous: false,
        }
    }

    /// The node to ask next: whom the last refusal named, else the leader as remembered, else the replicas in turn.
    pub(crate) async fn target(&mut self) -> Result<Arc<Peer>, RouteError> {
        if let Some(peer) = self.hint.take().and_then(|address| self.core.peer(&address)) {
            return Ok(peer);
        }
        if let Some(peer) = self.core.leader(self.errand.shard)
            && !self.core.is_suspect(&peer)
        {
            return Ok(peer);
        }
        let mut replicas = self.core.replicas(self.errand.shard);
        if replicas.is_empty() {
            self.core.await_map(MAP_WAIT.min(self.left()), |view| view.shard(self.errand.shard).is_some()).await;
            replicas = self.core.replicas(self.errand.shard);
        }
        let count = replicas.len();
        let first = self.turn.checked_rem(count).ok_or(RouteError::UnknownShard)?;
        let in_turn = (0..count).map(|step| (first + step) % count);
        let chosen = in_turn.clone().find(|&at| !self.core.is_suspect(&replicas[at])).unwrap_or(first);
        self.turn = chosen + 1;
        Ok(replicas.swap_remove(chosen))
    }

    /// How long the next attempt, at `peer`, may take. A node that failed and has not answered since may still be dead, and a
    /// new leader must not be missed meanwhile: it gets little at first, and more each time, because it may only be slow.
    pub(crate) fn attempt(&self, peer: &Peer) -> Duration {
        let timings = &self.core.options.timings;
        let mut attempt = timings.attempt * (1 << self.timeouts.min(ATTEMPT_DOUBLINGS_MAX));
        if let Some(again) = peer.suspicion.failures().checked_sub(1) {
            let least = ATTEMPT_MIN.max(peer.latency.get().unwrap_or_default() * ROUND_TRIPS);
            attempt = attempt.min(least * (1 << again.min(ATTEMPT_DOUBLINGS_MAX)));
        }
        if let Some(since) = self.leaderless_since {
            let patience = timings.leaderless.saturating_sub(self.core.now().saturating_sub(since));
            attempt = attempt.min(patience.max(ATTEMPT_MIN));
        }
        attempt.saturating_add(self.errand.waits).min(self.left())
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.core.now())
    }

    /// A replica refused, and said why.
    pub(crate) fn refused(&mut self, peer: &Peer, fault: pb::Fault) -> Step {
        match fault.fault {
            Some(Fault::NotLeader(not_leader)) => {
                // A membership learns of a node's new address later than the map does.
                let view = self.core.view();
                let known = not_leader.leader.and_then(|leader| view.node(NodeId(leader)));
                let address = known.map_or(not_leader.leader_address, |node| node.address.clone());
                self.redirected(peer, &address)
            }
            Some(Fault::NoQuorum(_)) | Some(Fault::Stopped(_)) => self.leaderless(peer),
            Some(Fault::UnknownGroup(_)) => {
                // The replica was moved away: the map is older than that.
                self.core.refresh_map();
                self.leaderless(peer)
            }
            Some(Fault::StaleEpoch(stale)) => {
                match stale.current {
                    Some(current) => self.core.mend(&current),
                    None => self.core.refresh_map(),
                }
                if self.errand.epoch.is_some() {
                    return self.give(RouteError::Moved);
                }
                self.hint = Some(peer.address.clone());
                self.hop()
            }
            Some(Fault::Busy(_)) => {
                // Only a leader is ever busy.
                self.core.leads(self.errand.shard, &peer.address);
                self.busy()
            }
            Some(Fault::Unknown(_)) => {
                self.ambiguous |= self.errand.intent == Intent::Write;
                self.hint = Some(peer.address.clone());
                Step::Again(self.backoff.next(&*self.core.options.entropy))
            }
            Some(Fault::TooLarge(large)) => self.give(RouteError::TooLarge { max: large.max }),
            Some(Fault::Unauthenticated(_)) => self.give(RouteError::Unauthenticated),
            Some(Fault::Suspended(_)) => self.give(RouteError::Suspended),
            Some(Fault::Behind(_)) => self.give(RouteError::Behind),
            Some(Fault::LeaseLost(_)) => self.give(RouteError::LeaseLost),
            Some(Fault::Malformed(malformed)) => self.give(RouteError::Malformed { detail: malformed.detail }),
            Some(Fault::TooCostly(costly)) => self.give(RouteError::TooCostly { detail: costly.detail }),
            Some(Fault::Unready(unready)) => self.give(RouteError::Unready { detail: unready.detail }),
            Some(Fault::Corrupt(corrupt)) => self.give(RouteError::Corrupt { detail: corrupt.detail }),
            // A newer node's refusal that this build does not know: asking others cures it where anything does.
            None => self.leaderless(peer),
        }
    }

    /// The call ended in an error of the transport or of gRPC.
    pub(crate) fn failed(&mut self, peer: &Peer, status: &Status) -> Step {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                return self.give(RouteError::Forbidden { detail: status.message().to_owned() });
            }
            // tonic's word for a message above the limit of either side.
            Code::OutOfRange => {
                return self.give(RouteError::TooLarge { max: postrider_api::limit::REQUEST_BYTES_MAX as u64 });
            }
            Code::InvalidArgument | Code::Unimplemented => {
                return self.give(RouteError::Malformed { detail: status.message().to_owned() });
            }
            _ => {}
        }
        tracing::debug!(shard = self.errand.shard.0, node = %peer.address, %status, "attempt failed");
        self.ambiguous |= self.errand.intent == Intent::Write && !never_left(status);
        self.core.failed(peer);
        self.leaderless(peer)
    }

    /// The attempt's time ran out.
    pub(crate) fn ran_out(&mut self, peer: &Peer) -> Step {
        tracing::debug!(shard = self.errand.shard.0, node = %peer.address, "attempt ran out of time");
        self.ambiguous |= self.errand.intent == Intent::Write;
        self.timeouts += 1;
        if !self.errand.is_long() {
            self.core.failed(peer);
            self.core.forget_leader(self.errand.shard, &peer.address);
        }
        Step::Again(Duration::ZERO)
    }

    fn redirected(&mut self, peer: &Peer, leader: &str) -> Step {
        self.core.forget_leader(self.errand.shard, &peer.address);
        if leader.is_empty() || leader == &*peer.address {
            return self.leaderless(peer);
        }
        // A replica names a leader that just died until it notices: asking it again would only run out of time again.
        if self.core.peer(leader).is_none_or(|peer| self.core.is_suspect(&peer)) {
            return self.leaderless(peer);
        }
        self.hint = Some(leader.into());
        self.hop()
    }

    fn hop(&mut self) -> Step {
        self.hops += 1;
        if self.hops <= HOPS_MAX {
            return Step::Again(Duration::ZERO);
        }
        self.hops = 0;
        Step::Again(self.backoff.next(&*self.core.options.entropy))
    }

    fn leaderless(&mut self, peer: &Peer) -> Step {
        self.core.forget_leader(self.errand.shard, &peer.address);
        let now = self.core.now();
        let since = *self.leaderless_since.get_or_insert(now);
        if now.saturating_sub(since) >= self.core.options.timings.leaderless {
            return Step::Give(self.verdict());
        }
        Step::Again(self.backoff.next(&*self.core.options.entropy))
    }

    fn busy(&mut self) -> Step {
        let now = self.core.now();
        self.leaderless_since = None;
        let since = *self.busy_since.get_or_insert(now);
        if now.saturating_sub(since) >= self.core.options.timings.busy {
            return self.give(RouteError::Busy);
        }
        Step::Again(self.backoff.next(&*self.core.options.entropy))
    }

    /// A refusal that asking again does not cure. It is said of this attempt: an earlier one that ended without telling may
    /// have been carried out, and may be the very reason for it (a session that is gone because the log-out succeeded).
    fn give(&self, refusal: RouteError) -> Step {
        if !self.ambiguous {
            return Step::Give(refusal);
        }
        tracing::info!(shard = self.errand.shard.0, %refusal, "refused after an attempt that ended without telling");
        Step::Give(RouteError::TimedOut { may_have_happened: true })
    }

    /// What is true when the call is given up.
    fn verdict(&self) -> RouteError {
        if self.leaderless_since.is_some() {
            self.core.trouble(self.errand.shard);
        }
        match (self.ambiguous, self.leaderless_since) {
            (true, _) => RouteError::TimedOut { may_have_happened: true },
            (false, Some(_)) => RouteError::NoQuorum,
            (false, None) if self.busy_since.is_some() => RouteError::Busy,
            (false, None) => RouteError::TimedOut { may_have_happened: false },
        }
    }

    /// Waits before the next attempt.
    pub(crate) async fn pause(&mut self, pause: Duration) -> Result<(), RouteError> {
        metrics::counter!("postrider_router_retries_total").increment(1);
        if self.left() <= pause {
            return Err(self.verdict());
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}

/// Whether the connection was never made, so that the request certainly did not reach anybody.
fn never_left(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}
