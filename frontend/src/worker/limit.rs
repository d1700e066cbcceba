//! Every limit of the queue worker (P-13).

use std::time::Duration;

/// Entries that one call leases when a shard has many: their texts are in memory together.
pub const LEASE_ENTRIES_MAX: u32 = 8;
/// Entries under way at once, of all shards.
pub const DELIVERIES_MAX: usize = 64;
/// Target shards of one entry that are written to at once.
pub const TARGETS_AT_ONCE_MAX: usize = 8;
/// Directory questions of one entry at once.
pub const QUESTIONS_AT_ONCE_MAX: usize = 16;
/// Transfers that wait to be forgotten; of more, the oldest rows stay.
pub const FORGETS_MAX: usize = 100_000;
/// Transfers in one `Forget`.
pub const FORGET_REQUESTS_MAX: usize = 500;
/// An entry older than this is given up, milliseconds. RFC 5321 section 4.5.4.1: at least 4 to 5 days.
pub const ENTRY_AGE_MS_MAX: i64 = 5 * 24 * 60 * 60 * 1000;

/// How long things may take.
#[derive(Debug, Clone)]
pub struct WorkerTimings {
    /// A lease. Longer than everything that is done under it: finding the users, twice, delivering and settling.
    pub lease: Duration,
    /// How long a lease call waits for an entry.
    pub lease_wait: Duration,
    /// Finding a user's shard.
    pub locate: Duration,
    /// Delivering to one shard.
    pub deliver: Duration,
    /// Telling the source what became of an entry.
    pub settle: Duration,
    /// A target shard without quorum is left alone for this long.
    pub troubled: Duration,
    /// The first pause after a failed delivery; doubles from there.
    pub backoff_min: Duration,
    /// The longest pause: what waits for a shard should arrive soon after it is back.
    pub backoff_max: Duration,
    /// The pause after a shard could not be asked for entries; doubles up to `poll_pause_max`.
    pub poll_pause_min: Duration,
    /// The longest such pause.
    pub poll_pause_max: Duration,
    /// How long after its settlement a transfer is forgotten by its target. Until then a `Deliver` of an earlier attempt might
    /// still be on its way; each lives at most `deliver` in the router and no longer at a node, so this is far more than enough.
    pub forget_after: Duration,
    /// How often it is looked for transfers to forget.
    pub forget_every: Duration,
    /// Telling a target to forget.
    pub forget: Duration,
    /// Draining waits this long for entries under way; what is cut off lapses and is taken over.
    pub drain: Duration,
}

impl Default for WorkerTimings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            lease_wait: Duration::from_secs(20),
            locate: Duration::from_secs(5),
            deliver: Duration::from_secs(5),
            settle: Duration::from_secs(10),
            troubled: Duration::from_secs(1),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(60),
            poll_pause_min: Duration::from_millis(200),
            poll_pause_max: Duration::from_secs(5),
            forget_after: Duration::from_secs(10 * 60),
            forget_every: Duration::from_secs(5),
            forget: Duration::from_secs(10),
            drain: Duration::from_secs(20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlives_the_work_under_it() {
        let timings = WorkerTimings::default();
        assert!(timings.locate * 2 + timings.deliver + timings.settle < timings.lease);
        assert!(timings.lease + timings.deliver < timings.forget_after);
    }
}
