//! Idle groups quiesce: a thousand of them on a node cost no messages and no timers.
//!
//! A leader that has nothing to say asks its members to quiesce. A member agrees when it has all of the leader's log, committed and
//! applied. Once all have agreed the leader falls silent: consensus of the group does not tick on any node. Whatever happens to
//! the group then (a proposal, a read, a vote, an entry, a leader that steps down) wakes it, without an election.
//!
//! What the heartbeats of a quiesced group did, its members' nodes do for all such groups of a leader's node together: they ask
//! that node, by [`Beat`], whether it is there, and learn in the same answer which groups it has woken. When a node does not answer
//! for a lease, or answers in another life of its process, its groups' members wake, and stand for election as after any silence.
//!
//! Invariant: while a replica is quiesced under a leader whose node has answered within a lease, it votes for nobody else unless the
//! leader itself asked for it. That is the promise that acknowledging a heartbeat makes.
//! Invariant: no lease comes of this. The first read or write of a woken group waits for a quorum's word; so a beat can be
//! wrong about a group without a stale read or a lost write.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::linearizable_read::LinearizerOption;
use openraft::{Instant as _, ServerState};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::host::{Closing, Inner};
use crate::ids::{GroupId, Member, NodeId};
use crate::park;
use crate::replica::{Instance, Replica, Running};
use crate::transport::{Class, Link};
use crate::types::{LogId, Vote};
use crate::wire::{self, Beat, BeatAnswer, Quiesce, QuiesceAnswer, Woken, answer, message};

/// How often it is looked for groups that may quiesce.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Answers come within this time, or count for nothing. A link that is full of mail keeps them waiting for a second.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Groups that one look sends to sleep: the others' turn comes with the next ones.
const AT_ONCE_MAX: usize = 256;
/// Heartbeats that were sent before a group fell silent arrive within so many leases, also over a link that is full of mail.
const HEARTBEATS_LATE_LEASES: u32 = 2;
/// Voters that stand one after the other before openraft's own timers may.
const LINE_MAX: u32 = 4;
/// A member that has not answered for so many leases has gone.
const GONE_LEASES: u32 = 10;
/// A beat is for a node.
const NO_GROUP: GroupId = GroupId(0);
/// Wakes that are remembered. Whoever is further behind wakes all.
const WAKES_MAX: usize = 8_192;

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
    leader: NodeId,
    address: Arc<str>,
    /// What it agreed to sleep with.
    vote: Vote,
    /// When it agreed.
    since: Instant,
    life: u64,
    /// Wakes of the group up to this one were before it was quiesced.
    wake: u64,
}

impl Quiet {
    pub(crate) fn awake() -> Self {
        Self::Awake { used: Instant::now() }
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

/// What a host knows of quiesced groups beyond each of them.
pub(crate) struct Quiescence {
    /// Of this life of the process.
    life: u64,
    wakes: Mutex<Wakes>,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
    /// When a node last asked whether this one is there.
    askers: Mutex<BTreeMap<NodeId, Instant>>,
}

/// Groups that were led from here and woken, the newest last.
#[derive(Default)]
struct Wakes {
    last: u64,
    groups: VecDeque<(u64, GroupId)>,
}

/// A node that leads groups which are quiesced here.
#[derive(Clone, Copy)]
struct Peer {
    life: u64,
    wake: u64,
    /// When the newest beat that it has answered was sent: what it said then may have changed since.
    answered: Instant,
    /// When its last answer came: that it is there is as good as a heartbeat's word, however long the answer was on its way.
    heard: Instant,
}

impl Quiescence {
    pub(crate) fn new() -> Self {
        Self {
            // No two lives of a process have the same, also where the clock is a simulation's. 0 is nobody's.
            life: RandomState::new().hash_one(std::process::id()).max(1),
            wakes: Mutex::default(),
            peers: Mutex::default(),
            askers: Mutex::default(),
        }
    }

    pub(crate) fn note_wake(&self, group: GroupId) {
        let mut wakes = self.wakes.lock();
        wakes.last += 1;
        let last = wakes.last;
        wakes.groups.push_back((last, group));
        if wakes.groups.len() > WAKES_MAX {
            wakes.groups.pop_front();
        }
    }

    fn wake(&self) -> u64 {
        self.wakes.lock().last
    }

    /// Answers a node that asks.
    pub(crate) fn answer(&self, from: NodeId, beat: &Beat) -> BeatAnswer {
        self.askers.lock().insert(from, Instant::now());
        let wakes = self.wakes.lock();
        let oldest = wakes.groups.front().map_or(wakes.last + 1, |(wake, _)| *wake);
        let all = beat.life != self.life || beat.wake + 1 < oldest;
        let behind = wakes.groups.iter().rev().take_while(|(wake, _)| !all && *wake > beat.wake);
        let woken = behind.map(|(wake, group)| Woken { wake: *wake, group: group.0 }).collect();
        BeatAnswer { life: self.life, wake: wakes.last, woken, all }
    }

    /// A leader's node, if it lives the life that a replica was quiesced under.
    fn peer(&self, followed: &Followed) -> Option<Peer> {
        self.peers.lock().get(&followed.leader).filter(|peer| peer.life == followed.life).copied()
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
                _ => Found::Parked,
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
    fn wake_to_wait(&self, inner: &Inner, since: Instant) {
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

    fn followed(&self) -> Option<Followed> {
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

    /// How long ago a quorum of a quiesced leader's voters last asked for its node, milliseconds.
    pub(crate) fn quorum_asked_ms(&self, voters: &BTreeMap<NodeId, Member>) -> Option<u64> {
        let node = self.options.node;
        let askers = self.quiescence.askers.lock();
        let others = voters.keys().filter(|voter| **voter != node);
        let mut ages: Vec<Option<Duration>> = others.map(|voter| askers.get(voter).map(Instant::elapsed)).collect();
        // Those who never asked come last.
        ages.sort_unstable_by_key(|age| age.unwrap_or(Duration::MAX));
        // Half of them and itself are a quorum.
        match voters.len() / 2 {
            0 => Some(0),
            others => {
                ages.get(others - 1).copied().flatten().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
            }
        }
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
        {
            let mut peers = self.quiescence.peers.lock();
            let now = Instant::now();
            let peer =
                peers.entry(leader).or_insert(Peer { life: asked.life, wake: asked.wake, answered: now, heard: now });
            if peer.life != asked.life {
                *peer = Peer { life: asked.life, wake: asked.wake, answered: now, heard: now };
            }
            // It speaks, so it is there.
            peer.heard = now;
        }
        tracing::debug!(group = %replica.group, %leader, "quiesced");
        *quiet = Quiet::Follows(Followed {
            leader,
            address,
            vote,
            since: Instant::now(),
            life: asked.life,
            wake: asked.wake,
        });
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
        beat(&host, &replicas, is_late);
        if !idle.is_zero() && looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            look(&host, &replicas, idle);
            park::look(&host, &replicas);
        }
    }
}

/// Asks whether leaders' nodes are there, and wakes what slept under one that is not.
fn beat(host: &Arc<Inner>, replicas: &[Arc<Replica>], is_late: bool) {
    let lease = host.options.timings.lease();
    let mut leaders = BTreeMap::new();
    for replica in replicas {
        let Some(followed) = replica.followed() else { continue };
        match host.quiescence.peer(&followed) {
            Some(peer) if is_late || peer.heard.elapsed() < lease => {
                leaders.entry(followed.leader).or_insert(followed.address);
            }
            Some(peer) => {
                tracing::debug!(group = %replica.group, leader = %followed.leader, "the leader's node is silent");
                replica.wake_to_wait(host, peer.heard);
            }
            // It lives another life, in which it leads nothing yet.
            None => {
                tracing::debug!(group = %replica.group, leader = %followed.leader, "the leader's node was started anew");
                replica.wake_to_wait(host, Instant::now() - lease);
            }
        }
    }
    for (leader, address) in leaders {
        let Some(peer) = host.quiescence.peers.lock().get(&leader).copied() else { continue };
        let link = host.network.transport.link(leader, &address);
        let host = Arc::downgrade(host);
        // Not awaited: a node that does not answer must not keep the others from being asked.
        tokio::spawn(async move {
            let sent = Instant::now();
            let body = message::Body::Beat(Beat { life: peer.life, wake: peer.wake });
            let answer = tokio::time::timeout(ANSWER_MAX, ask(&*link, NO_GROUP, body)).await;
            if let (Ok(Some(answer::Body::Beat(beat))), Some(host)) = (answer, host.upgrade()) {
                take_in(&host, leader, sent, &beat);
            }
        });
    }
}

async fn ask(link: &dyn Link, group: GroupId, body: message::Body) -> Option<answer::Body> {
    link.send(Class::Control, group, body).await.ok()?.await.ok()?.ok()
}

/// A leader's node has answered a beat.
fn take_in(host: &Inner, leader: NodeId, sent: Instant, beat: &BeatAnswer) {
    {
        let mut peers = host.quiescence.peers.lock();
        let Some(peer) = peers.get_mut(&leader) else { return };
        if peer.life != beat.life {
            // What sleeps under its life before is woken by the next look.
            *peer = Peer { life: beat.life, wake: beat.wake, answered: sent, heard: Instant::now() };
            return;
        }
        peer.heard = Instant::now();
        peer.answered = peer.answered.max(sent);
        peer.wake = peer.wake.max(beat.wake);
    }
    let wake = |replica: &Replica, wake: u64| {
        let is_later =
            |followed: &Followed| followed.leader == leader && followed.life == beat.life && followed.wake < wake;
        if replica.followed().as_ref().is_some_and(is_later) {
            tracing::debug!(group = %replica.group, %leader, "the leader has woken the group");
            replica.wake_to_wait(host, Instant::now());
        }
    };
    if beat.all {
        let replicas: Vec<Arc<Replica>> = host.replicas.read().values().cloned().collect();
        replicas.iter().for_each(|replica| wake(replica, beat.wake));
        return;
    }
    for woken in &beat.woken {
        if let Some(replica) = host.replica(GroupId(woken.group)) {
            wake(&replica, woken.wake);
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
        life: host.quiescence.life,
        wake: host.quiescence.wake(),
    };
    let group = replica.group;
    let answers = join_all(members.iter().map(|(id, member)| {
        let link = host.network.transport.link(*id, &member.address);
        let body = message::Body::Quiesce(asked);
        async move { tokio::time::timeout(ANSWER_MAX, ask(&*link, group, body)).await }
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
        let (mut askers, now) = (host.quiescence.askers.lock(), Instant::now());
        askers.extend(members.iter().map(|(id, _)| (*id, now)));
        return;
    }
    if *quiet == Quiet::Asking {
        *quiet = Quiet::awake();
    }
    drop(quiet);
    // Those who have agreed hear of it with the next heartbeat, or with the next beat.
    host.quiescence.note_wake(replica.group);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: NodeId = NodeId(2);

    fn ask(quiescence: &Quiescence, wake: u64) -> BeatAnswer {
        quiescence.answer(ASKER, &Beat { life: quiescence.life, wake })
    }

    #[test]
    fn an_answer_names_what_was_woken_since() {
        let quiescence = Quiescence::new();
        assert_eq!(ask(&quiescence, 0), BeatAnswer { life: quiescence.life, wake: 0, woken: vec![], all: false });
        for group in [7, 8, 7] {
            quiescence.note_wake(GroupId(group));
        }
        let woken = |answer: BeatAnswer| answer.woken.iter().map(|woken| (woken.wake, woken.group)).collect::<Vec<_>>();
        assert_eq!(woken(ask(&quiescence, 0)), [(3, 7), (2, 8), (1, 7)]);
        assert_eq!(woken(ask(&quiescence, 2)), [(3, 7)]);
        assert_eq!(ask(&quiescence, 3), BeatAnswer { life: quiescence.life, wake: 3, woken: vec![], all: false });
    }

    #[test]
    fn whoever_knows_too_little_is_told_that_all_may_be_awake() {
        let quiescence = Quiescence::new();
        for group in 0..WAKES_MAX + 2 {
            quiescence.note_wake(GroupId(group as u32));
        }
        // Wakes 1 and 2 are forgotten.
        assert!(ask(&quiescence, 0).all && ask(&quiescence, 1).all);
        let answer = ask(&quiescence, 2);
        assert_eq!((answer.all, answer.woken.len()), (false, WAKES_MAX));
        let other = quiescence.answer(ASKER, &Beat { life: quiescence.life ^ 1, wake: WAKES_MAX as u64 + 2 });
        assert!(other.all && other.woken.is_empty());
    }

    #[test]
    fn every_life_has_its_own_number() {
        assert_ne!(Quiescence::new().life, Quiescence::new().life);
    }
}
