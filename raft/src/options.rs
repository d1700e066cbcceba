//! What a host is opened with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::clock::{Clock, SystemClock};
use crate::error::OpenError;
use crate::faults::{Faults, NoFaults};
use crate::ids::NodeId;
use crate::transport::Transport;

/// The largest command, in bytes. What is larger goes to blob storage first.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;

/// The most that `snapshot_block_bytes` may be: a block goes over it by less than one row, and goes in one frame.
const SNAPSHOT_BLOCK_BYTES_LIMIT: usize = 4 << 20;

/// A silent peer is asked at least this often whether it is there. One that is not for three times as long is gone, for the peer that
/// listens to it.
pub const KEEPALIVE_MS_MAX: u64 = 5_000;

/// How a host proves itself to its peers, and knows them.
#[derive(Clone)]
pub struct PeerTls {
    /// What it shows and whom it trusts. The protocol ([`crate::transport::ALPN`]) is added to it.
    pub config: Arc<rustls::ClientConfig>,
    /// The name in every peer's certificate.
    pub name: ServerName<'static>,
}

/// Everything that a host needs from its surroundings.
#[derive(Clone)]
pub struct HostOptions {
    /// Who this node is.
    pub node: NodeId,
    /// Where it keeps its log, its state and what it receives. Exclusively its own.
    pub dir: PathBuf,
    /// When it hurries and when it waits.
    pub timings: Timings,
    /// How much it takes on.
    pub limits: Limits,
    /// How it proves itself to its peers and knows them; plain text without.
    pub tls: Option<PeerTls>,
    /// host:port under which its peers reach it; empty: as the memberships of its groups say.
    pub advertise: String,
    /// How it reaches its peers; TCP without.
    pub transport: Option<Arc<dyn Transport>>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Faults to inject; none in production.
    pub faults: Arc<dyn Faults>,
}

impl HostOptions {
    /// The defaults for `node` with its data in `dir`.
    pub fn new(node: NodeId, dir: impl Into<PathBuf>) -> Self {
        Self {
            node,
            dir: dir.into(),
            timings: Timings::default(),
            limits: Limits::default(),
            tls: None,
            advertise: String::new(),
            transport: None,
            clock: Arc::new(SystemClock),
            faults: Arc::new(NoFaults),
        }
    }
}

/// Timings in milliseconds. They come from the round trips between regions, not from the library's defaults, which
/// suit one rack: heartbeat about one round trip, elections at four and more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    /// A leader tells each follower at least every second of these that it is there: openraft looks whether a heartbeat is due as often
    /// as one is, and may come a moment early. An answer that takes longer than this counts for nothing.
    pub heartbeat_ms: u64,
    /// The random part of a follower's patience is at least this. Also the time limit of a vote.
    pub election_min_ms: u64,
    /// The lease, and the most that the random part of a follower's patience is.
    pub election_max_ms: u64,
    /// After the lease of a silent leader has run out, the first-ranked follower stands at once, and each further
    /// rank this much later, so that votes do not split.
    pub campaign_step_ms: u64,
    /// A proposal is answered within this time, if only with `Unknown`.
    pub propose_ms: u64,
    /// A consistent read is answered within this time.
    pub read_ms: u64,
    /// Entries must be acknowledged within this time plus the time that their bytes need at `link_bytes_per_s_min`.
    pub append_ms: u64,
    /// A connection is made within this time.
    pub connect_ms: u64,
    /// A silent connection is probed this often, and given up when a probe stays unanswered as long.
    pub keepalive_ms: u64,
    /// A snapshot that moves nothing for this long is given up.
    pub snapshot_idle_ms: u64,
    /// A group that nobody has written to or read from for this long falls silent: no heartbeats, no timers. 0: never.
    pub quiesce_ms: u64,
    /// A replica whose group has been silent for this long is parked: it costs next to no memory, and its first use a few milliseconds
    /// more. 0: never.
    pub park_ms: u64,
    /// State is flushed after this time even when little was written, so that the log does not grow old.
    pub flush_ms_max: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 150,
            election_min_ms: 600,
            election_max_ms: 900,
            campaign_step_ms: 400,
            propose_ms: 4_000,
            read_ms: 3_000,
            append_ms: 3_000,
            connect_ms: 1_000,
            keepalive_ms: 2_000,
            snapshot_idle_ms: 20_000,
            quiesce_ms: 5_000,
            park_ms: 10_000,
            flush_ms_max: 600_000,
        }
    }
}

/// A reader trusts a quorum's word for this share of the lease, in per cent; the rest is for clocks that run apart.
const READ_LEASE_PERCENT: u32 = 80;

/// What an instance of consensus has promised is over before it is taken down: with its last acknowledgement a lease began, and
/// the last heartbeat before a group fell silent may be two leases late.
const PARK_LEASES_MIN: u64 = 3;

impl Timings {
    /// How long a follower that has acknowledged its leader votes for nobody else.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.election_max_ms)
    }

    /// How old the quorum's last word may be for a read without asking again.
    pub fn read_lease(&self) -> Duration {
        self.lease() * READ_LEASE_PERCENT / 100
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let fail = |reason: &str| Err(OpenError::Options(reason.to_owned()));
        if self.heartbeat_ms == 0 || self.heartbeat_ms * 2 > self.election_min_ms {
            return fail("heartbeat_ms must be at most half of election_min_ms");
        }
        if self.election_min_ms >= self.election_max_ms {
            return fail("election_min_ms must be less than election_max_ms");
        }
        if self.quiesce_ms != 0 && self.quiesce_ms < self.election_max_ms {
            return fail("quiesce_ms must be at least election_max_ms, or 0");
        }
        if self.park_ms != 0 && self.park_ms < self.election_max_ms * PARK_LEASES_MIN {
            return fail("park_ms must be at least three times election_max_ms, or 0");
        }
        if self.propose_ms == 0 || self.read_ms == 0 || self.append_ms == 0 || self.connect_ms == 0 {
            return fail("time limits must not be zero");
        }
        if self.keepalive_ms == 0 || self.keepalive_ms > KEEPALIVE_MS_MAX {
            return fail("keepalive_ms must be between 1 and 5000");
        }
        Ok(())
    }
}

/// Limits in bytes unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Replicas that a node hosts.
    pub groups_max: usize,
    /// One command.
    pub command_bytes_max: usize,
    /// Proposals of one group that wait for their reply.
    pub group_inflight_bytes_max: usize,
    /// Proposals of all groups that wait for their reply.
    pub node_inflight_bytes_max: usize,
    /// Entries in one message to a follower; one entry always fits.
    pub append_bytes_max: usize,
    /// Entries of one group on their way to one follower.
    pub stream_inflight_bytes_max: usize,
    /// Entries of all groups on their way to one peer. What this takes on the slowest link that must not lose its
    /// leader, plus a round trip, has to be less than the lease: entries' acknowledgements renew it while they queue.
    pub peer_inflight_bytes_max: usize,
    /// The slowest link that still counts as working, in bytes per second.
    pub link_bytes_per_s_min: u64,
    /// Recent entries kept in memory, all groups together.
    pub tail_bytes_max: usize,
    /// Committed entries applied in one write.
    pub apply_bytes_max: usize,
    /// One file of the log.
    pub log_segment_bytes: u64,
    /// All files of the log. It is exceeded while followers or broken replicas need more; then entries that nobody but
    /// they need are purged without slack, and what they keep is moved together.
    pub log_bytes_max: u64,
    /// Memory of the state database before it is flushed.
    pub state_buffer_bytes: usize,
    /// Log written since the last flush of the state that brings the next one on.
    pub flush_log_bytes: u64,
    /// Entries kept behind the flushed index although nobody here needs them, for followers a little behind.
    pub keep_entries: u64,
    /// A leader keeps entries for a follower that lags by at most this much; one that lags further gets a snapshot.
    pub lag_bytes_max: u64,
    /// One block of a snapshot.
    pub snapshot_block_bytes: usize,
    /// One file of a received snapshot.
    pub snapshot_file_bytes: u64,
    /// Snapshots sent or received at once.
    pub snapshots_max: usize,
    /// What a snapshot may take of the link, in bytes per second.
    pub snapshot_bytes_per_s: u64,
    /// Block cache of the state database.
    pub cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            groups_max: 8_192,
            command_bytes_max: COMMAND_BYTES_MAX,
            group_inflight_bytes_max: 16 << 20,
            node_inflight_bytes_max: 64 << 20,
            append_bytes_max: 1 << 20,
            stream_inflight_bytes_max: 4 << 20,
            peer_inflight_bytes_max: 8 << 20,
            link_bytes_per_s_min: 256 << 10,
            tail_bytes_max: 64 << 20,
            apply_bytes_max: 4 << 20,
            log_segment_bytes: 32 << 20,
            log_bytes_max: 512 << 20,
            state_buffer_bytes: 64 << 20,
            flush_log_bytes: 32 << 20,
            keep_entries: 64,
            lag_bytes_max: 256 << 20,
            snapshot_block_bytes: 256 << 10,
            snapshot_file_bytes: 64 << 20,
            snapshots_max: 2,
            snapshot_bytes_per_s: 64 << 20,
            cache_bytes: 64 << 20,
        }
    }
}

/// Places in a segment are kept as 32-bit numbers.
const LOG_SEGMENT_BYTES_LIMIT: u64 = 1 << 30;

impl Limits {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let fail = |reason: &str| Err(OpenError::Options(reason.to_owned()));
        if self.command_bytes_max > COMMAND_BYTES_MAX {
            return fail("command_bytes_max is larger than a peer accepts");
        }
        if self.command_bytes_max > self.group_inflight_bytes_max
            || self.command_bytes_max > self.node_inflight_bytes_max
        {
            return fail("one command must fit into what may be in flight");
        }
        if self.node_inflight_bytes_max > u32::MAX as usize {
            return fail("node_inflight_bytes_max must be below 4 GiB");
        }
        if self.log_segment_bytes < 64 << 10 || self.log_segment_bytes > LOG_SEGMENT_BYTES_LIMIT {
            return fail("log_segment_bytes must be from 64 KiB to 1 GiB");
        }
        if self.append_bytes_max > crate::wire::APPEND_BYTES_LIMIT {
            return fail("append_bytes_max is larger than a peer accepts");
        }
        if !(1..=SNAPSHOT_BLOCK_BYTES_LIMIT).contains(&self.snapshot_block_bytes) {
            return fail("snapshot_block_bytes must be from 1 byte to 4 MiB");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_a_snapshot_is_one_that_a_peer_accepts() {
        let check = |snapshot_block_bytes| Limits { snapshot_block_bytes, ..Limits::default() }.check().is_ok();
        assert!(check(1) && check(SNAPSHOT_BLOCK_BYTES_LIMIT));
        assert!(!check(0) && !check(SNAPSHOT_BLOCK_BYTES_LIMIT + 1));
    }
}
