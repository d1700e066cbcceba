//! Flushing the state, then purging from the log what the log no longer has to keep.
//!
//! Invariant: nothing is purged that is not in files of the state database.
//!
//! The log's files are used again once nothing in them counts, so what is purged late costs room and no writes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use crate::error::GroupError;
use crate::faults::FaultPoint;
use crate::host::{Closing, Inner};
use crate::ids::GroupId;
use crate::log::engine::LogOp;
use crate::park;
use crate::replica::{Instance, Replica, Running};
use openraft::async_runtime::WatchReceiver;

/// How often it is looked at whether to flush.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// So long nobody asks for a flush when one has failed. RocksDB recovers by itself once a full disk has room: it looks every five seconds,
/// and needs a moment in which nothing is asked of it.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Groups purged at the same time.
const PURGES_AT_ONCE: usize = 16;
/// openraft takes note of the flush within this time, or the purge waits for the next one.
const NOTE_LIMIT: Duration = Duration::from_secs(5);
/// So long the flusher waits for a purge before it goes on.
const PURGE_LIMIT: Duration = Duration::from_millis(500);
/// A group's purge is worth its write from this many entries on.
const PURGE_ENTRIES_MIN: u64 = 16;

pub(crate) async fn run(inner: Weak<Inner>, closing: Arc<Closing>) {
    let mut last = Instant::now();
    let mut last_bytes = 0;
    while closing.pause(LOOK_EVERY).await {
        let Some(host) = inner.upgrade() else { return };
        if due(&host, last, last_bytes) {
            last_bytes = host.counters.read().log_bytes;
            last = Instant::now();
            if let Err(error) = flush(&host).await {
                tracing::error!(%error, "the state was not flushed");
                metrics::counter!("postrider_raft_flushes_failed_total").increment(1);
                if !closing.pause(RETRY_AFTER).await {
                    return;
                }
            }
        }
    }
}

fn due(inner: &Inner, last: Instant, last_bytes: u64) -> bool {
    let limits = &inner.options.limits;
    let written = inner.counters.read().log_bytes.saturating_sub(last_bytes);
    if written == 0 {
        return false;
    }
    // A database that cannot say how much it holds is flushed: the flush will say what is wrong with it.
    let held = inner.store.buffered_bytes().unwrap_or(u64::MAX);
    written >= limits.flush_log_bytes
        || held >= limits.state_buffer_bytes as u64 * 3 / 4
        || last.elapsed() >= Duration::from_millis(inner.options.timings.flush_ms_max)
}

/// Flushes the state, purges the logs, and gives back what they no longer need.
pub(crate) async fn flush(inner: &Arc<Inner>) -> Result<(), GroupError> {
    flush_and_purge(inner, Kept::InUse).await?;
    let engine = inner.log.engine.clone();
    blocking(move || engine.reclaim().map_err(|error| error.to_string())).await?;
    let size = inner.log.engine.size();
    metrics::gauge!("postrider_raft_log_bytes").set(size.bytes as f64);
    metrics::gauge!("postrider_raft_log_segments").set(size.segments as f64);
    Ok(())
}

/// Removes from the disk what was deleted: all that the log no longer needs, and dead rows and bodies of the state. It costs a
/// rewrite of both.
///
/// What a follower that is behind still needs stays in the log until the next time.
pub(crate) async fn vacuum(inner: &Arc<Inner>) -> Result<(), GroupError> {
    flush_and_purge(inner, Kept::Nothing).await?;
    let (engine, store) = (inner.log.engine.clone(), inner.store.clone());
    blocking(move || {
        engine.vacuum().map_err(|error| error.to_string())?;
        store.vacuum().map_err(|error| error.to_string())
    })
    .await
}

async fn flush_and_purge(inner: &Arc<Inner>, kept: Kept) -> Result<(), GroupError> {
    let host = inner.clone();
    blocking(move || {
        host.options.faults.reach(FaultPoint::FlushBefore).map_err(|error| error.to_string())?;
        host.store.flush().map_err(|error| error.to_string())?;
        host.store.tend_blobs().map_err(|error| error.to_string())?;
        host.counters.flushed();
        host.options.faults.reach(FaultPoint::FlushAfter).map_err(|error| error.to_string())
    })
    .await?;
    let replicas: Vec<Arc<Replica>> = inner.replicas.read().values().cloned().collect();
    futures::stream::iter(replicas)
        .for_each_concurrent(PURGES_AT_ONCE, |replica| async move {
            if let Err(reason) = purge(inner, &replica, kept).await {
                tracing::info!(group = %replica.group, %reason, "the log was not purged");
            }
        })
        .await;
    // The purges are in the queue of the writer: what they let go is known when they have been written.
    inner
        .log
        .writer
        .write(GroupId(0), None, LogOp::Barrier)
        .await
        .map_err(|error| GroupError::Storage { group: GroupId(0), reason: error.to_string() })
        .map(drop)
}

async fn blocking(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), GroupError> {
    let storage = |reason: String| GroupError::Storage { group: GroupId(0), reason };
    tokio::task::spawn_blocking(work).await.map_err(|error| storage(error.to_string()))?.map_err(storage)
}

async fn purge(inner: &Arc<Inner>, replica: &Replica, kept: Kept) -> Result<(), String> {
    match replica.running() {
        Ok(Running::Here(instance)) => purge_as(inner, replica, &instance, kept).await,
        Ok(Running::Parked(_)) => purge_parked(inner, replica, kept).await,
        Err(_) => Ok(()),
    }
}

/// How far the state of a replica is in files, which it takes note of.
async fn flushed(inner: &Inner, replica: &Replica) -> Result<Option<u64>, String> {
    let (group, store) = (replica.group, inner.store.clone());
    let meta = tokio::task::spawn_blocking(move || store.flushed_meta(group))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let flushed = meta.and_then(|meta| meta.last_log_id).map(|id| id.index);
    if flushed.is_some() {
        replica.set_flushed(flushed);
        replica.refresh();
    }
    Ok(flushed)
}

pub(crate) async fn purge_running(inner: &Inner, replica: &Replica, instance: &Instance) -> Result<(), String> {
    purge_as(inner, replica, instance, Kept::InUse).await
}

async fn purge_as(inner: &Inner, replica: &Replica, instance: &Instance, kept: Kept) -> Result<(), String> {
    let Some(flushed) = flushed(inner, replica).await? else { return Ok(()) };
    let Some(last) = instance.log.last() else { return Ok(()) };
    let log = Extent { purged: instance.log.purged().map(|id| id.index), last: last.index };
    let is_idle = replica.leads_quiesced() && park::all_have(instance, last);
    let kept = if is_idle && kept == Kept::InUse { Kept::Idle } else { kept };
    let Some(target) = target(inner, flushed, log, kept, lagging(inner, instance)) else {
        return Ok(());
    };
    inner.options.faults.reach(FaultPoint::PurgeBefore).map_err(|error| error.to_string())?;
    let trigger = instance.raft.trigger();
    trigger.snapshot().await.map_err(|error| error.to_string())?;
    instance
        .raft
        .wait(Some(NOTE_LIMIT))
        .metrics(|metrics| metrics.snapshot.is_some_and(|id| id.index >= target), "the flush is noted")
        .await
        .map_err(|error| error.to_string())?;
    trigger.purge_log(target).await.map_err(|error| error.to_string())?;
    purged(instance, target).await?;
    inner.options.faults.reach(FaultPoint::PurgeAfter).map_err(|error| error.to_string())
}

/// Waits until the purge has been asked of the log. A leader puts it off while it sends the entries concerned; then the
/// next flush finds it done.
async fn purged(instance: &Instance, target: u64) -> Result<(), String> {
    instance
        .raft
        .wait(Some(PURGE_LIMIT))
        .metrics(|metrics| metrics.purged.is_some_and(|id| id.index >= target), "the purge is done")
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Of a parked replica the log alone knows what is in it, and nobody else writes to it.
async fn purge_parked(inner: &Inner, replica: &Replica, kept: Kept) -> Result<(), String> {
    let _turn = replica.turn().await;
    // It may have been started meanwhile: then the next flush purges.
    let Some(parked) = replica.parked() else { return Ok(()) };
    let Some(flushed) = flushed(inner, replica).await? else { return Ok(()) };
    let log = Extent { purged: replica.status().purged, last: parked.last_log.index };
    // A leader's is short already.
    let Some(target) = target(inner, flushed, log, kept, None) else { return Ok(()) };
    let (group, engine) = (replica.group, inner.log.engine.clone());
    let entries = tokio::task::spawn_blocking(move || engine.entries(group, target..target + 1, 0));
    let entries = entries.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let upto = entries.first().ok_or_else(|| format!("entry {target} is missing"))?.log_id;
    inner.options.faults.reach(FaultPoint::PurgeBefore).map_err(|error| error.to_string())?;
    inner.log.writer.write(group, None, LogOp::Purge { upto }).await.map_err(|error| error.to_string())?;
    replica.set_purged(target);
    inner.options.faults.reach(FaultPoint::PurgeAfter).map_err(|error| error.to_string())
}

/// What the follower furthest behind has, of those that the leader still means to serve from the log.
fn lagging(inner: &Inner, instance: &Instance) -> Option<u64> {
    let metrics = instance.raft.metrics();
    let metrics = metrics.borrow_watched();
    let matched = metrics.replication.as_ref()?.values().map(|matched| matched.as_ref().map_or(0, |id| id.index));
    matched.filter(|matched| instance.log.bytes_after(*matched) <= inner.options.limits.lag_bytes_max).min()
}

/// What a log holds.
#[derive(Clone, Copy)]
struct Extent {
    purged: Option<u64>,
    last: u64,
}

/// What is kept although nobody here needs it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// Entries for followers a little behind.
    InUse,
    /// All members of a silent group have everything, as its leader knows.
    Idle,
    /// What was deleted is to go from the disk.
    Nothing,
}

/// The last entry that may go, if purging is worth it: flushed here, behind the slack, and not needed by a follower. The last one of the
/// log stays: a leader that starts again asks its followers about it, and sends them a snapshot if there is none.
fn target(inner: &Inner, flushed: u64, log: Extent, kept: Kept, lagging: Option<u64>) -> Option<u64> {
    let size = inner.log.engine.size();
    let (slack, least) = match kept {
        _ if size.bytes > size.bytes_max => (0, 1),
        Kept::InUse => (inner.options.limits.keep_entries, PURGE_ENTRIES_MIN),
        Kept::Idle | Kept::Nothing => (0, 1),
    };
    let target = flushed.checked_sub(slack)?.min(lagging.unwrap_or(u64::MAX)).min(log.last.checked_sub(1)?);
    let begins = log.purged.map_or(0, |purged| purged + 1);
    (target + 1 >= begins + least).then_some(target)
}
