//! One group's replica on this node, as long as it is hosted here.
//!
//! openraft's instance dies of any storage error; the replica outlives it: it says why it has stopped, and is opened
//! anew when the error may pass. While a group is quiesced for long the replica needs none at all, and is parked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use futures::future::{BoxFuture, Shared};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{MutexGuard, Semaphore, watch};
use tokio::time::Instant;

use crate::election::rules::Standing;
use crate::ids::{GroupId, GroupIdentity, Incarnation, NodeId};
use crate::lease::Probation;
use crate::log::store::GroupLog;
use crate::machine::Machine;
use crate::quiesce::Quiet;
use crate::state::machine::Applied;
use crate::status::{GroupStatus, Role};
use crate::types::{LogId, Raft, Vote};
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;

/// A running instance of consensus for a group.
#[derive(Clone)]
pub(crate) struct Instance {
    pub(crate) raft: Raft,
    pub(crate) log: Arc<GroupLog>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) probation: Probation,
}

/// What is kept of an instance that was taken down while its group is quiesced; nothing changes meanwhile.
#[derive(Clone)]
pub(crate) struct Parked {
    pub(crate) vote: Vote,
    pub(crate) last_log: LogId,
    pub(crate) machine: Arc<dyn Machine>,
}

impl Parked {
    pub(crate) fn standing(&self) -> Standing {
        Standing { vote: self.vote, last_log: self.last_log }
    }
}

enum Phase {
    Running(Instance),
    Parked(Parked),
    Stopped { reason: String },
}

/// A term in which a replica leads, or led.
struct Led {
    term: u64,
    since: Instant,
}

/// Whether consensus of a replica runs.
pub(crate) enum Running {
    Here(Instance),
    /// It runs when it is asked for.
    Parked(Parked),
}

/// Consensus that is being started.
pub(crate) type Starting = Shared<BoxFuture<'static, Result<Instance, String>>>;

/// A hosted replica.
pub(crate) struct Replica {
    pub(crate) group: GroupId,
    /// Which making of the group this is a replica of.
    pub(crate) incarnation: Incarnation,
    phase: RwLock<Phase>,
    /// Held while consensus is started or taken down.
    turn: tokio::sync::Mutex<()>,
    /// What all wait for who need it to start.
    pub(crate) starting: Mutex<Option<Starting>>,
    /// Bytes of proposals that may still be taken.
    pub(crate) room: Arc<Semaphore>,
    status: watch::Sender<GroupStatus>,
    /// How far the state is in files, as index + 1.
    flushed: AtomicU64,
    /// When a leader was last heard; before the first time, when the replica was started.
    heard: Mutex<Instant>,
    /// Since when this replica waits for a leader: it was heard, a vote was given, or the replica stood for election.
    waits_since: Mutex<Instant>,
    /// How often it has stood before others had noticed that the leader is gone, since it let the leader go.
    early: AtomicU32,
    /// Whether the group sleeps. Locked before anything that is not the replica's own.
    pub(crate) quiet: Mutex<Quiet>,
    /// Until when openraft's own election timer stays off: those first in line stand first.
    held_until: Mutex<Option<Instant>>,
    /// The last term in which it led, and since when.
    led: Mutex<Option<Led>>,
    /// Set while the replica, leading, keeps silent so that another takes over.
    gives_way: AtomicBool,
    /// Set until the first message comes, or the group begins here: consensus has nothing to wait for, and does not tick.
    is_blank: AtomicBool,
    /// Set when the replica leaves this host for good, or the host closes: nothing opens it again.
    closed: AtomicBool,
}

impl Replica {
    pub(crate) fn new(GroupIdentity { id: group, incarnation }: GroupIdentity, room_bytes: usize) -> Self {
        Self {
            group,
            incarnation,
            phase: RwLock::new(Phase::Stopped { reason: "not opened yet".to_owned() }),
            turn: tokio::sync::Mutex::new(()),
            starting: Mutex::new(None),
            room: Arc::new(Semaphore::new(room_bytes)),
            status: watch::Sender::new(GroupStatus { incarnation, ..GroupStatus::new(group) }),
            flushed: AtomicU64::new(0),
            heard: Mutex::new(Instant::now()),
            waits_since: Mutex::new(Instant::now()),
            early: AtomicU32::new(0),
            quiet: Mutex::new(Quiet::awake()),
            held_until: Mutex::new(None),
            led: Mutex::new(None),
            gives_way: AtomicBool::new(false),
            is_blank: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn identity(&self) -> GroupIdentity {
        GroupIdentity { id: self.group, incarnation: self.incarnation }
    }

    /// The running instance or what is kept of it, or why there is none.
    pub(crate) fn running(&self) -> Result<Running, String> {
        match &*self.phase.read() {
            Phase::Running(instance) => Ok(Running::Here(instance.clone())),
            Phase::Parked(parked) => Ok(Running::Parked(parked.clone())),
            Phase::Stopped { reason } => Err(reason.clone()),
        }
    }

    /// The instance, if one runs.
    pub(crate) fn instance(&self) -> Option<Instance> {
        match &*self.phase.read() {
            Phase::Running(instance) => Some(instance.clone()),
            Phase::Parked(_) | Phase::Stopped { .. } => None,
        }
    }

    pub(crate) fn parked(&self) -> Option<Parked> {
        match &*self.phase.read() {
            Phase::Parked(parked) => Some(parked.clone()),
            Phase::Running(_) | Phase::Stopped { .. } => None,
        }
    }

    /// Until this is dropped nobody else starts consensus, or takes it down.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The same, if nobody has it.
    pub(crate) fn try_turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.turn.try_lock().ok()
    }

    /// Whether somebody starts consensus, or takes it down.
    pub(crate) fn is_taken(&self) -> bool {
        self.turn.try_lock().is_err()
    }

    pub(crate) fn start(&self, instance: Instance) {
        self.hear();
        *self.quiet.lock() = Quiet::awake();
        let is_blank = instance.log.is_pristine() && instance.applied.get().is_none();
        self.is_blank.store(is_blank, Ordering::Release);
        instance.raft.runtime_config().tick(!is_blank);
        self.run(instance);
        self.refresh();
    }

    /// There is something for consensus to do: it ticks from now on.
    pub(crate) fn begin(&self, instance: &Instance) {
        if self.is_blank.load(Ordering::Acquire) && self.is_blank.swap(false, Ordering::AcqRel) {
            instance.raft.runtime_config().tick(true);
        }
    }

    /// Whether nothing has ever been written here, and nothing has been asked of it.
    pub(crate) fn is_blank(&self) -> bool {
        self.is_blank.load(Ordering::Acquire) && matches!(&*self.phase.read(), Phase::Running(_))
    }

    /// Consensus runs, whatever of the group's sleep is left. Watchers are to be told.
    pub(crate) fn run(&self, instance: Instance) {
        self.gives_way.store(false, Ordering::Release);
        *self.phase.write() = Phase::Running(instance);
    }

    /// From now on consensus does not run; the instance that did is to be ended. To be called with the lock on `quiet` held: whoever
    /// has woken the group, or used it, has an instance that goes on.
    pub(crate) fn park(&self, parked: Parked) {
        *self.phase.write() = Phase::Parked(parked);
    }

    /// A parked replica has given this vote, and written it down. With the turn held.
    pub(crate) fn set_vote(&self, vote: Vote) {
        if let Phase::Parked(parked) = &mut *self.phase.write() {
            parked.vote = vote;
        }
    }

    /// A quorum has elected the parked replica of `node`: it leads the group, which sleeps on. With the turn held.
    pub(crate) fn lead_parked(&self, node: NodeId, term: u64) {
        self.forget_early();
        *self.quiet.lock() = Quiet::Leads { since: Instant::now() };
        self.note_leader(term, node, true);
    }

    /// What is told of a parked replica whose group has another leader.
    pub(crate) fn note_leader(&self, term: u64, leader: NodeId, leads: bool) {
        self.status.send_modify(|status| {
            (status.term, status.leader) = (term, Some(leader));
            match (leads, &status.role) {
                (true, _) => status.role = Role::Leader,
                (false, Role::Learner) => {}
                (false, _) => status.role = Role::Follower,
            }
        });
    }

    /// These members of a group that a parked replica leads have all of its log.
    pub(crate) fn note_matched(&self, members: impl IntoIterator<Item = NodeId>, index: u64) {
        let matched = members.into_iter().map(|member| (member, Some(index))).collect();
        self.status.send_modify(|status| status.matched = matched);
    }

    /// The log of a parked replica ends where it did, and begins later.
    pub(crate) fn set_purged(&self, index: u64) {
        self.status.send_modify(|status| status.purged = Some(index));
    }

    /// Whether this is the instance that runs.
    pub(crate) fn runs(&self, instance: &Instance) -> bool {
        matches!(&*self.phase.read(), Phase::Running(running) if Arc::ptr_eq(&running.log, &instance.log))
    }

    /// The instance has died of this. False when it was taken down before, and something else is there.
    pub(crate) fn fail(&self, instance: &Instance, reason: String) -> bool {
        {
            let mut phase = self.phase.write();
            if !matches!(&*phase, Phase::Running(running) if Arc::ptr_eq(&running.log, &instance.log)) {
                return false;
            }
            *phase = Phase::Stopped { reason };
        }
        self.refresh();
        true
    }

    pub(crate) fn stop(&self, reason: String) -> Option<Instance> {
        let old = std::mem::replace(&mut *self.phase.write(), Phase::Stopped { reason });
        self.refresh();
        match old {
            Phase::Running(instance) => Some(instance),
            Phase::Parked(_) | Phase::Stopped { .. } => None,
        }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn gives_way(&self) -> bool {
        self.gives_way.load(Ordering::Acquire)
    }

    /// Says whether the leadership is being given up, and returns whether it was before.
    pub(crate) fn give_way(&self, now: bool) -> bool {
        self.gives_way.swap(now, Ordering::AcqRel)
    }

    /// A leader spoke: nobody here stands for a while.
    pub(crate) fn hear(&self) {
        *self.heard.lock() = Instant::now();
        self.wait_again();
    }

    /// Nobody here stands for a while, though no leader spoke: somebody stands already.
    pub(crate) fn wait_again(&self) {
        *self.waits_since.lock() = Instant::now();
    }

    /// Others had not noticed that the leader is gone. How often that was so before.
    pub(crate) fn note_early(&self) -> u32 {
        self.early.fetch_add(1, Ordering::Relaxed)
    }

    /// The leader is let go, or there is another.
    pub(crate) fn forget_early(&self) {
        self.early.store(0, Ordering::Relaxed);
    }

    /// Nobody has spoken since then.
    pub(crate) fn wait_since(&self, since: Instant) {
        *self.waits_since.lock() = since;
    }

    /// Keeps openraft's own election timer off.
    pub(crate) fn hold(&self, until: Instant) {
        *self.held_until.lock() = Some(until);
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held_until.lock().is_some_and(|until| Instant::now() < until)
    }

    pub(crate) fn waits_since(&self) -> Instant {
        *self.waits_since.lock()
    }

    pub(crate) fn last_heard(&self) -> Instant {
        *self.heard.lock()
    }

    pub(crate) fn flushed(&self) -> Option<u64> {
        self.flushed.load(Ordering::Acquire).checked_sub(1)
    }

    pub(crate) fn set_flushed(&self, index: Option<u64>) {
        self.flushed.store(index.map_or(0, |index| index + 1), Ordering::Release);
    }

    /// The replica as it is now.
    pub(crate) fn status(&self) -> GroupStatus {
        let mut status = GroupStatus { incarnation: self.incarnation, ..GroupStatus::new(self.group) };
        match &*self.phase.read() {
            Phase::Stopped { reason } => {
                let last = self.status.borrow();
                status.voters = last.voters.clone();
                status.learners = last.learners.clone();
                status.term = last.term;
                status.role = Role::Stopped { reason: reason.clone() };
            }
            Phase::Parked(_) => {
                status = self.status.borrow().clone();
                status.parked = true;
            }
            Phase::Running(instance) => self.describe(instance, &mut status),
        }
        status.flushed = self.flushed();
        status.quiesced = self.is_quiesced();
        if status.parked && status.leads() && !status.quiesced {
            // It has let the lead go, and consensus will start as a follower's.
            status.role = Role::Follower;
            status.leader = None;
        }
        status.leads_for_ms = status.leads().then(|| self.leads_for_ms(status.term));
        status
    }

    /// For how long it has led in `term`, in which it leads now. A lead counts from when it was first seen: whatever an earlier leader promised
    /// was promised before.
    fn leads_for_ms(&self, term: u64) -> u64 {
        let mut led = self.led.lock();
        let now = Led { term, since: Instant::now() };
        let led = match led.take() {
            Some(known) if known.term == term => led.insert(known),
            _ => led.insert(now),
        };
        u64::try_from(led.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn describe(&self, instance: &Instance, status: &mut GroupStatus) {
        let metrics = instance.raft.metrics();
        let metrics = metrics.borrow_watched();
        status.role = match metrics.state {
            openraft::ServerState::Leader => Role::Leader,
            openraft::ServerState::Follower => Role::Follower,
            openraft::ServerState::Candidate => Role::Candidate,
            openraft::ServerState::Learner => Role::Learner,
            openraft::ServerState::Shutdown => Role::Stopped { reason: "stopping".to_owned() },
        };
        status.term = metrics.current_term;
        status.leader = metrics.current_leader;
        if status.leads() && self.gives_way() {
            // It cannot write down that another leads, but it leads nobody.
            status.role = Role::Follower;
            status.leader = None;
        }
        status.last_log = metrics.last_log_index;
        status.committed = metrics.local_committed.map(|id| id.index);
        status.applied = instance.applied.get();
        status.purged = instance.log.purged().map(|id| id.index);
        let membership = &metrics.membership_config;
        let voters: std::collections::BTreeSet<NodeId> = membership.voter_ids().collect();
        for (id, member) in membership.nodes() {
            let members = if voters.contains(id) { &mut status.voters } else { &mut status.learners };
            members.insert(*id, member.clone());
        }
        if let Some(replication) = &metrics.replication {
            status.matched =
                replication.iter().map(|(node, matched)| (*node, matched.as_ref().map(|id| id.index))).collect();
        }
        status.quorum_ack_age_ms = metrics
            .last_quorum_acked
            .as_ref()
            .map(|acked| u64::try_from(acked.elapsed().as_millis()).unwrap_or(u64::MAX));
    }

    pub(crate) fn watch(&self) -> watch::Receiver<GroupStatus> {
        self.status.subscribe()
    }

    /// Tells watchers what has changed, if anything but the passing of time has.
    pub(crate) fn refresh(&self) {
        let mut new = self.status();
        new.quorum_ack_age_ms = None;
        new.leads_for_ms = None;
        new.quiesced = false;
        new.parked = false;
        self.status.send_if_modified(|old| {
            let changed = *old != new;
            if changed {
                *old = new;
            }
            changed
        });
    }
}
