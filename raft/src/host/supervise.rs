//! Watching over one replica: telling what changes, and opening it anew when a storage error has stopped it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::errors::Fatal;

use crate::host::{Closing, Inner, Start, shut};
use crate::replica::{Instance, Replica, Running};
use openraft::async_runtime::WatchReceiver;

/// Pauses between attempts to open a replica that has stopped.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// A replica that ran this long begins with the shortest pause again.
const SETTLED: Duration = Duration::from_secs(60);
/// How far the log has come changes several times with each command; it is told no more often than this.
const TOLD_EVERY: Duration = Duration::from_millis(20);

pub(crate) async fn run(inner: Weak<Inner>, closing: Arc<Closing>, replica: Arc<Replica>) {
    let mut pause = RETRY_MIN;
    loop {
        match replica.running() {
            Ok(Running::Here(instance)) => {
                let started = tokio::time::Instant::now();
                let Some(fatal) = ended(&replica, &instance).await else {
                    return;
                };
                if started.elapsed() > SETTLED {
                    pause = RETRY_MIN;
                }
                if !stopped(&inner, &replica, instance, fatal).await {
                    return;
                }
            }
            // Whoever starts it lets somebody watch over it.
            Ok(Running::Parked(_)) => return,
            Err(_) => {}
        }
        if !reopen(&inner, &closing, &replica, &mut pause).await {
            return;
        }
    }
}

/// Takes down what is left of an instance that has died. False when there is nothing to open anew: it was parked and something went
/// wrong with its end, or opening the replica again would not mend it.
async fn stopped(inner: &Weak<Inner>, replica: &Replica, instance: Instance, fatal: String) -> bool {
    let lasting = instance.applied.broken();
    let is_lasting = lasting.is_some();
    let reason = lasting.unwrap_or(fatal);
    if !replica.fail(&instance, reason.clone()) {
        return false;
    }
    tracing::error!(group = %replica.group, %reason, "a replica has stopped");
    metrics::counter!("postrider_raft_replicas_stopped_total").increment(1);
    if let Some(inner) = inner.upgrade() {
        replica.wake_up(&inner, &instance);
    }
    shut(instance).await;
    // A broken invariant or damaged rows otherwise.
    !is_lasting
}

/// Waits until the instance has died, and says of what; `None` when it was stopped on purpose.
async fn ended(replica: &Replica, instance: &Instance) -> Option<String> {
    let mut metrics = instance.raft.metrics();
    let mut server = instance.raft.server_metrics();
    loop {
        server.borrow_and_update();
        let state = metrics.borrow_and_update().running_state.clone();
        replica.refresh();
        match state {
            Ok(()) => {}
            Err(Fatal::Stopped) => return None,
            Err(fatal) => return (!replica.is_closed()).then(|| fatal.to_string()),
        }
        let changed = tokio::select! {
            // Who leads, and who the members are, is told at once.
            changed = server.changed() => changed,
            changed = async {
                // Nobody who sleeps has to be woken for each command.
                tokio::time::sleep(TOLD_EVERY).await;
                metrics.changed().await
            } => changed,
        };
        if changed.is_err() {
            let state = metrics.borrow_and_update().running_state.clone();
            if let Err(fatal) = state {
                return (!matches!(fatal, Fatal::Stopped) && !replica.is_closed()).then(|| fatal.to_string());
            }
            return (!replica.is_closed()).then(|| "consensus ended without a word".to_owned());
        }
    }
}

async fn reopen(inner: &Weak<Inner>, closing: &Closing, replica: &Arc<Replica>, pause: &mut Duration) -> bool {
    loop {
        if !closing.pause(*pause).await || replica.is_closed() {
            return false;
        }
        let Some(inner) = inner.upgrade() else {
            return false;
        };
        *pause = (*pause * 2).min(RETRY_MAX);
        // A replica is opened or removed, one at a time.
        let _one_at_a_time = inner.changing.lock().await;
        if replica.is_closed() {
            return false;
        }
        match inner.start_instance(replica, Start::Anew).await {
            Ok(instance) => {
                tracing::info!(group = %replica.group, "a stopped replica runs again");
                replica.start(instance);
                return true;
            }
            Err(error) => {
                tracing::error!(group = %replica.group, %error, "a stopped replica does not open");
                replica.stop(error.to_string());
            }
        }
    }
}
