//! Idle groups quiesce: a thousand of them on a node cost no messages and no timers.
//!
//! A leader that has nothing to say asks its members to quiesce. A member agrees when it has all of the leader's log, committed and
//! applied. Once all have agreed the leader falls silent: consensus of the group does not tick on any node. Whatever happens to
//! the group then (a proposal, a read, a vote, an entry, a leader that steps down) wakes it, without an election.
//!
//! What the heartbeats of a quiesced group did, its members' nodes do for all such groups of a leader's node together
//! ([`crate::beat`]).
//!
//! Invariant: while a replica is quiesced under a leader whose node has answered within a lease, it votes for nobody else unless the
//! leader itself asked for it. That is the promise that acknowledging a heartbeat makes.
//! Invariant: no lease comes of this. The first read or write of a woken group waits for a quorum's word; so a beat can be
//! wrong about a group without a stale read or a lost write.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::linearizable_read::LinearizerOption;
use openraft::{Instant as _, ServerState};
use parking_lot::MutexGuard;
use tokio::time::Instant;

use crate::beat;
use crate::host::{Closing, Inner};
use crate::ids::{Member, NodeId};
use crate::park;
use crate::replica::{Instance, Replica, Running};
use crate::types::{LogId, Vote};
use crate::wire::{self, Quiesce, QuiesceAnswer, answer, message};

/// How often it is looked for groups that may quiesce.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Answers come within this time, or count for nothing. A link that is full of mail keeps them waiting for a second.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Groups that one look sends to sleep: the others' turn comes with the next ones.
const AT_ONCE_MAX: usize = 256;
/// Heartbeats that were sent before a group fell silent arrive within so many leases, also over a link that is full of mail.
const HEARTBEATS_LATE_LEASES: u32 = 2;
/// Voters that stand one after the other before openraft's own timers may.
const LINE_MAX: u32 = 4;
/// A member that has not answered for so many leases has gone.
const GONE_LEASES: u32 = 10;
/// Whether a replica is quiesced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// It is not, and was last used at this time.
    Awake { used: Instant },
    /// It leads, and asks its members whether they agree.
    Asking,
    /// It leads, was woken, and a quorum has not yet answered.
    Waking { since: Instant },
    /// It leads.
    Leads { since: Instant },
    /// It follows a leader on this node.
    Follows(Followed),
}

/// Under whom a replica is quiesced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Followed {
    pub(crate) leader: NodeId,
    pub(crate) address: Arc<str>,
    /// What it agreed to sleep with.
    vote: Vote,
    /// When it agreed.
    since: Instant,
    pub(crate) life: u64,
    /// Wakes of the group up to this one were before it was quiesced.
    pub(crate) wake: u64,
}

impl Quiet {
    pub(crate) fn awake() -> Self {
        Self::Awake { used: Instant::now() }
    }

    /// From now on, under this vote of its leader's.
    pub(crate) fn follows(leader: NodeId, address: Arc<str>, vote: Vote, life: u64, wake: u64) -> Self {
        Self::Follows(Followed { leader, address, vote, since: Instant::now(), life, wake })
    }

    pub(crate) fn waking() -> Self {
        Self::Waking { since: Instant::now() }
    }

    /// Since when nobody has used it. Whoever woke a leader may have lost patience before a quorum answered.
    fn unused(&self) -> Option<Duration> {
        match self {
            Self::Awake { used: since } | Self::Waking { since } => Some(since.elapsed()),
            Self::Asking | Self::Leads { .. } | Self::Follows(_) => None,
        }
    }

    pub(crate) fn is_quiesced(&self) -> bool {
        self.since().is_some()
    }

    /// Since when it is quiesced.
    pub(crate) fn since(&self) -> Option<Instant> {
        match self {
            Self::Awake { .. } | Self::Asking | Self::Waking { .. } => None,
            Self::Leads { since } => Some(*since),
            Self::Follows(followed) => Some(followed.since),
        }
    }
}

/// How somebody who uses a group finds it.
enum Found {
    /// It stays awake.
    Awake(Instance),
    /// It was quiesced, or woken and without a quorum's word since.
    Waking(Instance),
    /// Consensus has to be started first.
    Parked,
    /// Somebody else leads it, and consensus need not be started to know that.
    Elsewhere(Option<NodeId>),
}

impl Replica {
    /// Somebody uses the group.
    fn use_it(&self, inner: &Inner) -> Result<Found, String> {
        // The replica is parked under this lock only, so what is found here goes on.
        let mut quiet = self.quiet.lock();
        let Running::Here(instance) = self.running()? else {
            return Ok(match &*quiet {
                Quiet::Follows(followed) => Found::Elsewhere(Some(followed.leader)),
                Quiet::Leads { .. } => Found::Parked,
                // It has let its leader go. A follower's consensus would be of no use; whose turn it is stands, asleep or not.
                Quiet::Awake { .. } | Quiet::Asking | Quiet::Waking { .. } => Found::Elsewhere(None),
            });
        };
        if self.gives_way() && instance.raft.metrics().borrow_watched().state == ServerState::Leader {
            // Its disk does not answer: nothing would come of it before its user has lost patience.
            return Ok(Found::Elsewhere(None));
        }
        Ok(match *quiet {
            Quiet::Awake { .. } | Quiet::Asking => {
                *quiet = Quiet::awake();
                Found::Awake(instance)
            }
            Quiet::Waking { .. } => Found::Waking(instance),
            Quiet::Leads { .. } => {
                tracing::debug!(group = %self.group, "woken by use");
                *quiet = Quiet::waking();
                instance.raft.runtime_config().tick(true);
                inner.quiescence.note_wake(self.group);
                metrics::counter!("postrider_raft_wakes_total").increment(1);
                Found::Waking(instance)
            }
            Quiet::Follows(_) => Found::Awake(instance),
        })
    }

    /// openraft has heard nobody for as long as the group slept, and its timer would have all members stand at once. Whoever is
    /// first in line stands first, if anybody has to.
    pub(crate) fn hold_back(&self, inner: &Inner) {
        let timings = &inner.options.timings;
        let line = Duration::from_millis(timings.campaign_step_ms) * LINE_MAX;
        self.hold(Instant::now() + timings.lease() + line);
    }

    /// Something came for the group that only an awake one gets. False when the instance is being taken down: what came is not for it,
    /// and nothing that it says may count.
    #[must_use]
    pub(crate) fn wake(&self, inner: &Inner, instance: &Instance) -> bool {
        let quiet = self.quiet.lock();
        let runs = self.runs(instance);
        if runs {
            self.rouse(quiet, inner, instance);
        }
        runs
    }

    /// The instance has ended, or is about to.
    pub(crate) fn wake_up(&self, inner: &Inner, instance: &Instance) {
        self.rouse(self.quiet.lock(), inner, instance);
    }

    fn rouse(&self, mut quiet: MutexGuard<'_, Quiet>, inner: &Inner, instance: &Instance) {
        if !quiet.is_quiesced() {
            return;
        }
        if matches!(*quiet, Quiet::Leads { .. }) {
            inner.quiescence.note_wake(self.group);
        }
        metrics::counter!("postrider_raft_wakes_total").increment(1);
        tracing::debug!(group = %self.group, was = ?*quiet, "woken");
        *quiet = Quiet::awake();
        // What woke it is being dealt with: nobody here has waited for a leader while it slept.
        self.wait_again();
        self.hold_back(inner);
        let config = instance.raft.runtime_config();
        config.elect(false);
        config.tick(true);
    }

    /// A message of a leader wakes the group if it is news: entries, or another vote. A heartbeat of the very leader under whom the
    /// replica has just agreed to quiesce is none: it was sent before all had agreed. A leader that is awake all the same goes on
    /// sending them.
    ///
    /// False when the instance is being taken down, as with [`Self::wake`].
    #[must_use]
    pub(crate) fn wake_by(&self, inner: &Inner, instance: &Instance, vote: &Vote, with_entries: bool) -> bool {
        let grace = inner.options.timings.lease() * HEARTBEATS_LATE_LEASES;
        let is_late = |followed: &Followed| followed.vote == *vote && followed.since.elapsed() < grace;
        let is_news = with_entries || !self.followed().as_ref().is_some_and(is_late);
        if is_news { self.wake(inner, instance) } else { self.runs(instance) }
    }

    /// The leader fell silent at `since`, or has something to say now: the replica waits for it like any other.
    pub(crate) fn wake_to_wait(&self, inner: &Inner, since: Instant) {
        let is_awake = match self.running() {
            Ok(Running::Here(instance)) => self.wake(inner, &instance),
            Ok(Running::Parked(_)) => false,
            Err(_) => return,
        };
        if !is_awake {
            // Consensus starts when the leader speaks, or when it is this replica's turn to stand.
            self.let_go(inner);
        }
        self.wait_since(since);
    }

    pub(crate) fn is_quiesced(&self) -> bool {
        self.quiet.lock().is_quiesced()
    }

    pub(crate) fn leads_quiesced(&self) -> bool {
        matches!(*self.quiet.lock(), Quiet::Leads { .. })
    }

    pub(crate) fn followed(&self) -> Option<Followed> {
        match &*self.quiet.lock() {
            Quiet::Follows(followed) => Some(followed.clone()),
            Quiet::Awake { .. } | Quiet::Asking | Quiet::Waking { .. } | Quiet::Leads { .. } => None,
        }
    }
}

/// Where a replica stands; quiesced replicas of a group stand at the same place.
#[derive(PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) vote: Vote,
    pub(crate) last_log: LogId,
}

/// The place of a replica that has nothing left to do.
pub(crate) fn settled(instance: &Instance, state: ServerState) -> Option<Place> {
    let metrics = instance.raft.metrics();
    let metrics = metrics.borrow_watched();
    let last_log = instance.log.last()?;
    let is_settled = (metrics.state == state
        || (state == ServerState::Follower && metrics.state == ServerState::Learner))
        && metrics.vote.committed
        && metrics.last_log_index == Some(last_log.index)
        && metrics.local_committed == Some(last_log)
        && instance.applied.get() == Some(last_log.index)
        && metrics.membership_config.membership().get_joint_config().len() == 1;
    is_settled.then_some(Place { vote: metrics.vote, last_log })
}

/// Why a group cannot be used now.
pub(crate) enum Unused {
    Stopped(String),
    NoQuorum,
    NotLeader(Option<NodeId>),
}

impl Inner {
    /// Consensus of a group that is to be proposed to, read from, or changed: it wakes, and a quorum's word is waited for where there
    /// is none of this time.
    pub(crate) async fn used(self: &Arc<Self>, replica: &Arc<Replica>, deadline: Instant) -> Result<Instance, Unused> {
        loop {
            match replica.use_it(self).map_err(Unused::Stopped)? {
                Found::Awake(instance) => return Ok(instance),
                Found::Waking(instance) => {
                    return if self.confirmed(replica, &instance, deadline).await {
                        Ok(instance)
                    } else {
                        Err(Unused::NoQuorum)
                    };
                }
                Found::Elsewhere(leader) => return Err(Unused::NotLeader(leader)),
                Found::Parked => {
                    let started = tokio::time::timeout_at(deadline, self.instance(replica)).await;
                    started.map_err(|_| Unused::NoQuorum)?.map_err(Unused::Stopped)?;
                }
            }
        }
    }

    /// Whether a quorum has answered the leader of a woken group before `deadline`.
    pub(crate) async fn confirmed(&self, replica: &Replica, instance: &Instance, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(left);
        let asked = tokio::time::timeout_at(deadline, instance.raft.get_read_linearizer(option)).await;
        // One who has lost the lead, or has stopped, is as awake as can be, and says so to whoever asks.
        let leads = || instance.raft.metrics().borrow_watched().state == ServerState::Leader;
        let is_answered = matches!(asked, Ok(Ok(_))) || !leads();
        if is_answered {
            let mut quiet = replica.quiet.lock();
            if matches!(*quiet, Quiet::Waking { .. }) {
                *quiet = Quiet::awake();
            }
        }
        is_answered
    }

    /// Whether a replica is bound by its leader's silence: it votes for nobody.
    pub(crate) fn is_bound(&self, replica: &Replica) -> bool {
        let Some(followed) = replica.followed() else { return false };
        let lease = self.options.timings.lease();
        self.quiescence.peer(&followed).is_some_and(|peer| peer.heard.elapsed() < lease)
    }

    /// When the leader of a replica was last known to be there.
    pub(crate) fn last_heard(&self, replica: &Replica) -> Instant {
        let peer = replica.followed().and_then(|followed| self.quiescence.peer(&followed));
        peer.map_or_else(|| replica.last_heard(), |peer| peer.answered.max(replica.last_heard()))
    }

    /// A leader asks a replica here to quiesce.
    pub(crate) fn quiesce(&self, replica: &Replica, instance: &Instance, asked: &Quiesce) -> QuiesceAnswer {
        let no = QuiesceAnswer { quiesced: false };
        let (Ok(vote), Some(last_log)) =
            (wire::read_vote(asked.vote.as_ref()), wire::read_log_id(asked.last_log.as_ref()))
        else {
            return no;
        };
        let leader = vote.leader_id.voted_for;
        let address = {
            let metrics = instance.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics
                .membership_config
                .membership()
                .get_node(&leader)
                .map(|member| Arc::<str>::from(member.address.as_str()))
        };
        let Some(address) = address else { return no };
        let mut quiet = replica.quiet.lock();
        if settled(instance, ServerState::Follower) != Some(Place { vote, last_log }) {
            return no;
        }
        self.quiescence.hear(leader, asked.life, asked.wake);
        tracing::debug!(group = %replica.group, %leader, "quiesced");
        *quiet = Quiet::follows(leader, address, vote, asked.life, asked.wake);
        instance.raft.runtime_config().tick(false);
        QuiesceAnswer { quiesced: true }
    }
}

/// Sends idle groups to sleep, and asks for the nodes that lead those which sleep here.
pub(crate) async fn run(inner: Weak<Inner>, closing: Arc<Closing>) {
    let timings = match inner.upgrade() {
        Some(host) => host.options.timings.clone(),
        None => return,
    };
    let idle = Duration::from_millis(timings.quiesce_ms);
    let beat_every = Duration::from_millis(timings.heartbeat_ms);
    let (mut looked, mut last) = (Instant::now(), Instant::now());
    while closing.pause(beat_every).await {
        let Some(host) = inner.upgrade() else { return };
        let replicas: Vec<Arc<Replica>> = host.replicas.read().values().cloned().collect();
        // Of whom nothing was heard while this process stood still, nothing is known: he is asked once more.
        let is_late = last.elapsed() > beat_every * 2;
        last = Instant::now();
        beat::ask_leaders(&host, &replicas, is_late);
        if !idle.is_zero() && looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            look(&host, &replicas, idle);
            park::look(&host, &replicas);
        }
    }
}

/// Lets the groups that are led from here and idle fall silent.
fn look(host: &Arc<Inner>, replicas: &[Arc<Replica>], idle: Duration) {
    let is_idle =
        |replica: &Replica| !replica.gives_way() && replica.quiet.lock().unused().is_some_and(|unused| unused >= idle);
    let candidates = replicas.iter().filter(|replica| is_idle(replica)).filter_map(|replica| {
        let instance = replica.instance()?;
        let (place, members) = present(host, &instance)?;
        Some((replica, instance, place, members))
    });
    for (replica, instance, place, members) in candidates.take(AT_ONCE_MAX) {
        let mut quiet = replica.quiet.lock();
        if quiet.unused().is_some_and(|unused| unused >= idle) {
            *quiet = Quiet::Asking;
            tokio::spawn(fall_silent(host.clone(), replica.clone(), instance, place, members));
        }
    }
}

/// The place of a leader that may quiesce, and the members who have to agree: all that are there, and they stand at that place.
/// Voters who have been gone for long find the group awake or wake it when they come back; but a quorum has to be there.
fn present(host: &Inner, instance: &Instance) -> Option<(Place, Vec<(NodeId, Member)>)> {
    let place = settled(instance, ServerState::Leader)?;
    let metrics = instance.raft.metrics();
    let metrics = metrics.borrow_watched();
    let (replication, heard) = (metrics.replication.as_ref()?, metrics.heartbeat.as_ref()?);
    let gone = host.options.timings.lease() * GONE_LEASES;
    let is_there = |id: &NodeId| {
        *id == host.options.node || heard.get(id).and_then(Option::as_ref).is_some_and(|heard| heard.elapsed() < gone)
    };
    let voters: Vec<NodeId> = metrics.membership_config.voter_ids().collect();
    if voters.iter().filter(|voter| is_there(voter)).count() * 2 <= voters.len() {
        return None;
    }
    // A learner that comes back stands for no election, by which its leader would hear of it.
    let is_awaited = |id: &NodeId| is_there(id) || !voters.contains(id);
    let others = metrics.membership_config.nodes().filter(|(id, _)| **id != host.options.node && is_awaited(id));
    let members: Vec<(NodeId, Member)> = others.map(|(id, member)| (*id, member.clone())).collect();
    let stands = |id: &NodeId| replication.get(id).is_some_and(|matched| *matched == Some(place.last_log));
    members.iter().all(|(id, _)| stands(id)).then_some((place, members))
}

async fn fall_silent(
    host: Arc<Inner>,
    replica: Arc<Replica>,
    instance: Instance,
    place: Place,
    members: Vec<(NodeId, Member)>,
) {
    let asked = Quiesce {
        vote: Some((&place.vote).into()),
        last_log: Some((&place.last_log).into()),
        life: host.quiescence.life(),
        wake: host.quiescence.wake(),
    };
    let group = replica.identity();
    let answers = join_all(members.iter().map(|(id, member)| {
        let link = host.network.transport.link(*id, &member.address);
        let body = message::Body::Quiesce(asked);
        async move { tokio::time::timeout(ANSWER_MAX, beat::ask(&*link, group, body)).await }
    }));
    let agree = |answer| matches!(answer, Ok(Some(answer::Body::Quiesce(QuiesceAnswer { quiesced: true }))));
    let all_agree = answers.await.into_iter().all(agree);
    let mut quiet = replica.quiet.lock();
    let is_settled = !replica.gives_way() && settled(&instance, ServerState::Leader) == Some(place);
    if *quiet == Quiet::Asking && all_agree && is_settled {
        tracing::debug!(group = %replica.group, "quiesced, and leads");
        *quiet = Quiet::Leads { since: Instant::now() };
        instance.raft.runtime_config().tick(false);
        drop(quiet);
        // They have just spoken.
        host.quiescence.note_askers(members.iter().map(|(id, _)| *id));
        return;
    }
    if *quiet == Quiet::Asking {
        *quiet = Quiet::awake();
    }
    drop(quiet);
    // Those who have agreed hear of it with the next heartbeat, or with the next beat.
    host.quiescence.note_wake(replica.group);
}
