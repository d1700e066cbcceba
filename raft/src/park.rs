//! Replicas of groups that have been silent for long are parked: consensus is taken down, and with it all that it holds in memory.
//!
//! Nothing is lost by that. A quiesced replica's log is synced, committed and applied to its end, its vote is on disk, and what it
//! has promised is kept by what runs for all groups together ([`crate::quiesce`]): whether its leader's node is there, and whether
//! it votes for anybody. So consensus starts again from the log when somebody needs it, a leader's as the leader that it was. Not even an
//! election needs it ([`crate::election`]).
//!
//! Invariant: only a replica that leads a quiesced group starts as a leader. One that has let go of its lead follows.
//! Invariant: a promise that an instance made is over when it is taken down: a lease began with its last acknowledgement, and a
//! group is silent for several before its replicas are parked.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use crate::error::GroupError;
use crate::flusher;
use crate::host::{Inner, Start, shut, supervise};
use crate::log::engine::LogOp;
use crate::machine::Machine;
use crate::quiesce::{self, Place, Quiet};
use crate::replica::{Instance, Parked, Replica, Running, Starting};
use crate::types::{self, LogId};

/// Replicas that one look parks: the others' turn comes with the next ones.
const AT_ONCE_MAX: usize = 64;
/// Entries that a leader's log has at most when the leader is parked: as many as openraft asks a member about at once.
pub(crate) const LEADER_ENTRIES_MAX: u64 = 8;

impl Replica {
    /// Consensus, which was parked, runs again: the group is awake. A leader waits for a quorum's word before it serves.
    fn unpark(self: &Arc<Self>, inner: &Arc<Inner>, instance: Instance) {
        let mut quiet = self.quiet.lock();
        match *quiet {
            Quiet::Leads { .. } => {
                *quiet = Quiet::waking();
                inner.quiescence.note_wake(self.group);
                // Also when nobody is about to use it: it falls silent again only after that.
                tokio::spawn(inner.clone().confirm(self.clone(), instance.clone()));
            }
            Quiet::Follows(_) => *quiet = Quiet::awake(),
            // It has let its leader, or its lead, go; since when is known.
            Quiet::Awake { .. } | Quiet::Asking | Quiet::Waking { .. } => {}
        }
        // Nobody here has waited for a leader while it slept.
        self.wait_again();
        self.hold_back(inner);
        self.run(instance);
        drop(quiet);
        self.refresh();
    }

    /// A parked replica is bound to its leader, or to its lead, no more: it stands when its turn comes.
    pub(crate) fn let_go(&self, inner: &Inner) {
        let mut quiet = self.quiet.lock();
        if !quiet.is_quiesced() || self.parked().is_none() {
            return;
        }
        if matches!(*quiet, Quiet::Leads { .. }) {
            inner.quiescence.note_wake(self.group);
        }
        tracing::debug!(group = %self.group, was = ?*quiet, "let go");
        self.forget_early();
        *quiet = Quiet::awake();
        self.wait_again();
        drop(quiet);
        self.refresh();
    }
}

impl Inner {
    /// Consensus of a replica, started if it is parked.
    pub(crate) async fn instance(self: &Arc<Self>, replica: &Arc<Replica>) -> Result<Instance, String> {
        match replica.running()? {
            Running::Here(instance) => Ok(instance),
            Running::Parked(_) => self.starting(replica).await,
        }
    }

    /// Lets consensus of a parked replica start, if that is not under way.
    fn starting(self: &Arc<Self>, replica: &Arc<Replica>) -> Starting {
        let mut starting = replica.starting.lock();
        match &*starting {
            Some(starting) if starting.peek().is_none() => starting.clone(),
            _ => {
                let (inner, replica) = (self.clone(), replica.clone());
                // On its own task: it is not left half done when whoever asks loses patience.
                let task = tokio::spawn(async move {
                    let started = inner.start_parked(&replica).await;
                    // What is kept here keeps the instance.
                    *replica.starting.lock() = None;
                    started
                });
                let task = async move { task.await.unwrap_or_else(|error| Err(error.to_string())) }.boxed().shared();
                starting.insert(task).clone()
            }
        }
    }

    async fn start_parked(self: &Arc<Self>, replica: &Arc<Replica>) -> Result<Instance, String> {
        let _turn = replica.turn().await;
        let machine = match replica.running()? {
            Running::Here(instance) => return Ok(instance),
            Running::Parked(parked) => parked.machine,
        };
        if replica.is_closed() {
            return Err("the replica is being closed".to_owned());
        }
        let began = Instant::now();
        let started = self.start_again(replica, machine).await.map_err(|error| error.to_string());
        match &started {
            Ok(instance) => {
                replica.unpark(self, instance.clone());
                tracing::debug!(group = %replica.group, took_us = began.elapsed().as_micros(), "consensus runs again");
                metrics::counter!("postrider_raft_unparked_total").increment(1);
                metrics::histogram!("postrider_raft_unpark_seconds").record(began.elapsed());
            }
            Err(reason) => {
                tracing::error!(group = %replica.group, %reason, "a parked replica does not start");
                // Who sleeps under it learns that it leads no more.
                replica.let_go(self);
                replica.stop(reason.clone());
            }
        }
        // It is opened anew if it stops, or has not started.
        tokio::spawn(supervise::run(Arc::downgrade(self), self.closing.clone(), replica.clone()));
        started
    }

    /// Starts what was parked. A leader that lets its lead go meanwhile, because the disk does not answer, follows.
    async fn start_again(&self, replica: &Replica, machine: Arc<dyn Machine>) -> Result<Instance, GroupError> {
        loop {
            let leads = replica.leads_quiesced();
            let instance = self.start_instance(replica, Start::Again { leads, machine: machine.clone() }).await?;
            // Its first answer comes when it knows, and has told, what it is.
            let knows = instance.raft.with_raft_state(|_| ()).await;
            if leads == replica.leads_quiesced() {
                let Err(error) = knows else { return Ok(instance) };
                shut(instance).await;
                return Err(GroupError::Storage { group: replica.group, reason: error.to_string() });
            }
            shut(instance).await;
        }
    }

    async fn confirm(self: Arc<Self>, replica: Arc<Replica>, instance: Instance) {
        let deadline = Instant::now() + Duration::from_millis(self.options.timings.propose_ms);
        self.confirmed(&replica, &instance, deadline).await;
    }

    async fn park(self: Arc<Self>, replica: Arc<Replica>) {
        let _turn = replica.turn().await;
        let Some(instance) = replica.instance() else { return };
        if replica.leads_quiesced() && entries(&instance) > LEADER_ENTRIES_MAX {
            // The last flush may have come while the group was in use, and left it more than a silent one needs.
            if let Err(reason) = flusher::purge_running(&self, &replica, &instance).await {
                tracing::info!(group = %replica.group, %reason, "the log was not purged");
                return;
            }
            // What an instance has queued and not written when it is taken down is refused.
            if self.log.writer.write(replica.group, None, LogOp::Barrier).await.is_err() {
                return;
            }
        }
        // A process that dies meanwhile carries out again at once what it had.
        if instance.log.mark_committed().await.is_err() {
            return;
        }
        // What is told of it from now on.
        replica.refresh();
        {
            let quiet = replica.quiet.lock();
            let state = match &*quiet {
                quiet if !is_due(&self, quiet) => return,
                Quiet::Leads { .. } => ServerState::Leader,
                _ => ServerState::Follower,
            };
            let Some(Place { vote, last_log }) = quiesce::settled(&instance, state) else { return };
            if state == ServerState::Leader
                && !(all_have(&instance, last_log) && entries(&instance) <= LEADER_ENTRIES_MAX)
            {
                return;
            }
            replica.park(Parked { vote, last_log, machine: instance.machine.clone() });
        }
        tracing::debug!(group = %replica.group, "parked");
        metrics::counter!("postrider_raft_parked_total").increment(1);
        shut(instance).await;
    }
}

/// Whether all members have everything, also those that are not there: what one lacks, a parked leader would not bring it.
pub(crate) fn all_have(instance: &Instance, last_log: LogId) -> bool {
    let metrics = instance.raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.replication.as_ref().is_some_and(|members| members.values().all(|matched| *matched == Some(last_log)))
}

/// Whether a leader may be parked, now or once its log has been shortened to its last entry: one that may not before the next flush, or
/// before a member that is gone comes back, is left alone until then.
fn may_lead_again(replica: &Replica, instance: &Instance) -> bool {
    let Some(last) = instance.log.last() else { return false };
    let is_flushed = || replica.flushed().is_some_and(|flushed| flushed + LEADER_ENTRIES_MAX > last.index);
    all_have(instance, last) && (entries(instance) <= LEADER_ENTRIES_MAX || is_flushed())
}

/// How many entries are in the log. A leader that starts again knows of no member how far its log goes, and asks about a few at a time.
fn entries(instance: &Instance) -> u64 {
    types::next_index(instance.log.last().as_ref()) - types::next_index(instance.log.purged().as_ref())
}

fn is_due(host: &Inner, quiet: &Quiet) -> bool {
    let after = Duration::from_millis(host.options.timings.park_ms);
    !after.is_zero() && quiet.since().is_some_and(|since| since.elapsed() >= after)
}

/// Parks what has been quiesced for long.
pub(crate) fn look(host: &Arc<Inner>, replicas: &[Arc<Replica>]) {
    let is_due = |replica: &Replica| {
        let Some(instance) = replica.instance() else { return false };
        is_due(host, &replica.quiet.lock())
            && !replica.is_taken()
            && (!replica.leads_quiesced() || may_lead_again(replica, &instance))
    };
    for replica in replicas.iter().filter(|replica| is_due(replica)).take(AT_ONCE_MAX) {
        tokio::spawn(host.clone().park(replica.clone()));
    }
}
