//! Replicas of groups that have been silent for long are parked: consensus is taken down, and with it all that it holds in memory.
//!
//! Nothing is lost by that. A quiesced replica's log is synced, committed and applied to its end, its vote is on disk, and what it
//! has promised is kept by what runs for all groups together ([`crate::quiesce`]): whether its leader's node is there, and whether
//! it votes for anybody. So consensus starts again from the log when somebody needs it, a leader's as the leader that it was.
//!
//! Invariant: only a replica that leads a quiesced group starts as a leader. One that has let go of its lead follows.
//! Invariant: a promise that an instance made is over when it is taken down: a lease began with its last acknowledgement, and a
//! group is silent for several before its replicas are parked.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use tokio::time::Instant;

use crate::flusher;
use crate::host::{Inner, Start, shut, supervise};
use crate::quiesce::{self, Place, Quiet};
use crate::replica::{Instance, Parked, Replica, Running};

/// Replicas that one look parks: the others' turn comes with the next ones.
const AT_ONCE_MAX: usize = 64;

impl Replica {
    /// Consensus, which was parked, runs again: the group is awake. A leader waits for a quorum's word before it serves.
    fn unpark(&self, inner: &Inner, instance: Instance) {
        let mut quiet = self.quiet.lock();
        match *quiet {
            Quiet::Leads { .. } => {
                *quiet = Quiet::Waking;
                inner.quiescence.note_wake(self.group);
            }
            Quiet::Follows(_) => *quiet = Quiet::awake(),
            // It has let its leader, or its lead, go; since when is known.
            Quiet::Awake { .. } | Quiet::Asking | Quiet::Waking => {}
        }
        drop(quiet);
        self.hold_back(inner);
        self.run(instance);
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
        *quiet = Quiet::awake();
        self.wait_again();
    }
}

impl Inner {
    /// Consensus of a replica, started if it is parked.
    pub(crate) async fn instance(self: &Arc<Self>, replica: &Arc<Replica>) -> Result<Instance, String> {
        match replica.running()? {
            Running::Here(instance) => Ok(instance),
            Running::Parked(_) => {
                let (inner, replica) = (self.clone(), replica.clone());
                // On its own task: it is not left half done when whoever asks loses patience.
                let starting = tokio::spawn(async move { inner.start_parked(&replica).await });
                starting.await.map_err(|error| error.to_string())?
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
        let leads = replica.leads_quiesced();
        let started = self.start_instance(replica, Start::Again { leads, machine }).await;
        if let Ok(instance) = &started {
            replica.unpark(self, instance.clone());
            if leads {
                // Also when nobody is about to use it: it falls silent again only after that.
                let (inner, replica, instance) = (self.clone(), replica.clone(), instance.clone());
                let deadline = Instant::now() + Duration::from_millis(self.options.timings.propose_ms);
                tokio::spawn(async move { inner.confirmed(&replica, &instance, deadline).await });
            }
            tracing::debug!(group = %replica.group, took_us = began.elapsed().as_micros(), "consensus runs again");
            metrics::counter!("postrider_raft_unparked_total").increment(1);
            metrics::histogram!("postrider_raft_unpark_seconds").record(began.elapsed());
        }
        let started = started.map_err(|error| {
            tracing::error!(group = %replica.group, %error, "a parked replica does not start");
            replica.stop(error.to_string());
            error.to_string()
        });
        // It is opened anew if it stops, or has not started.
        tokio::spawn(supervise::run(Arc::downgrade(self), self.closing.clone(), replica.clone()));
        started
    }

    async fn park(self: Arc<Self>, replica: Arc<Replica>) {
        let _turn = replica.turn().await;
        let Some(instance) = replica.instance() else { return };
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
            let lagging = flusher::lagging(&self, &instance);
            replica.park(Parked { vote, last_log, lagging, machine: instance.machine.clone() });
        }
        tracing::debug!(group = %replica.group, "parked");
        metrics::counter!("postrider_raft_parked_total").increment(1);
        shut(instance).await;
    }
}

fn is_due(host: &Inner, quiet: &Quiet) -> bool {
    let after = Duration::from_millis(host.options.timings.park_ms);
    !after.is_zero() && quiet.since().is_some_and(|since| since.elapsed() >= after)
}

/// Parks what has been quiesced for long.
pub(crate) fn look(host: &Arc<Inner>, replicas: &[Arc<Replica>]) {
    let is_due = |replica: &Replica| replica.instance().is_some() && is_due(host, &replica.quiet.lock());
    for replica in replicas.iter().filter(|replica| is_due(replica)).take(AT_ONCE_MAX) {
        tokio::spawn(host.clone().park(replica.clone()));
    }
}
