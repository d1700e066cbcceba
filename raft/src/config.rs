//! openraft's settings, from ours.

use openraft::{Config, SnapshotPolicy, StepDownPolicy};

use crate::error::OpenError;
use crate::options::{HostOptions, Timings};

/// Entries that fit into one message; their bytes are limited when they are read (`append_bytes_max`).
const APPEND_ENTRIES_MAX: u64 = 1_024;
/// Entries in one write to the log.
const WRITE_ENTRIES_MAX: u64 = 1_024;
/// Queues of one group. Proposals are bounded in bytes before they get there.
const QUEUE_MAX: u64 = 4_096;
const APPLY_QUEUE_MAX: u64 = 256;
/// A follower this far behind would be sent a snapshot although the log still has its entries. Never: whether entries
/// or a snapshot are cheaper is decided where entries are purged.
const LAG_ENTRIES_MAX: u64 = u64::MAX / 2;

pub(crate) fn check(options: &HostOptions) -> Result<(), OpenError> {
    options.timings.check()?;
    options.limits.check()?;
    openraft(&options.timings, false).map(|_| ())
}

/// With `leads`, of an instance that starts as the leader that its vote says it is.
pub(crate) fn openraft(timings: &Timings, leads: bool) -> Result<Config, OpenError> {
    let config = Config {
        cluster_name: "postrider".to_owned(),
        heartbeat_interval: timings.heartbeat_ms,
        election_timeout_min: timings.election_min_ms,
        election_timeout_max: timings.election_max_ms,
        install_snapshot_timeout: timings.snapshot_idle_ms,
        max_payload_entries: APPEND_ENTRIES_MAX,
        max_append_entries: Some(WRITE_ENTRIES_MAX),
        replication_lag_threshold: LAG_ENTRIES_MAX,
        // "Snapshots" are built, and entries purged, when the state was flushed and never by policy.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        api_channel_size: Some(QUEUE_MAX),
        notification_channel_size: Some(QUEUE_MAX),
        state_machine_channel_size: Some(APPLY_QUEUE_MAX),
        // For histograms that we do not build: a hundred kilobytes a replica otherwise.
        log_stage_capacity: Some(1),
        // Entries go to the followers while the local log syncs them.
        broadcast_submitted_on_append: Some(true),
        // Switched on once the replica may stand for election: a lease after the process started.
        enable_elect: false,
        enable_pre_vote: Some(true),
        // A leader whose process was restarted must win an election: its state may be behind what it had acknowledged.
        enable_leader_restore: Some(leads),
        allow_log_reversion: Some(false),
        removed_leader_step_down: StepDownPolicy::After(timings.heartbeat_ms),
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        ..Config::default()
    };
    config.validate().map_err(|error| OpenError::Options(error.to_string()))
}
