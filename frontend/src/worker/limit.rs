//! Every limit of the queue worker (P-13).

use std::time::Duration;

/// Entries that one call leases when a shard has many: their texts are in memory together.
pub const LEASE_ENTRIES_MAX: u32 = 8;
/// Entries under way at once, of all shards.
pub const DELIVERIES_MAX: usize = 64;
/// Entries on their way to the outside at once: slow peers take minutes, and keep nobody who lives here waiting.
pub const OUTSIDE_MAX: usize = 200;
/// Bytes of their messages in memory at once; one message always fits.
pub const OUTSIDE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How soon an entry comes back for which there was no place, milliseconds.
pub const OUTSIDE_BUSY_MS: u32 = 5 * 1000;
/// Destinations of one entry that are sent to at once.
pub const DESTINATIONS_AT_ONCE_MAX: usize = 8;
/// One attempt outside. RFC 5321 section 4.5.3.2: the end of a message alone may take ten minutes.
pub const OUTSIDE_ATTEMPT: Duration = Duration::from_secs(20 * 60);
/// For so long a worker tries to tell a shard without quorum what hosts outside have said: nobody can ask them again.
pub const OUTSIDE_SETTLE: Duration = Duration::from_secs(10 * 60);
/// Target shards of one entry that are written to at once.
pub const TARGETS_AT_ONCE_MAX: usize = 8;
/// Directory questions of one entry at once.
pub const QUESTIONS_AT_ONCE_MAX: usize = 16;
/// Transfers that wait to be forgotten; of more, the oldest rows stay.
pub const FORGETS_MAX: usize = 100_000;
/// Transfers in one `Forget`.
pub const FORGET_REQUESTS_MAX: usize = 500;
/// Why a recipient waits or was given up, bytes. No more than a shard takes.
pub const REASON_BYTES_MAX: usize = 500;

/// How long things may take.
#[derive(Debug, Clone)]
pub struct WorkerTimings {
    /// A lease, counted from when it is asked for. Longer than waiting for an entry and one round of everything that is done
    /// under it: finding users, delivering, finding again whoever was not there, settling. Of an entry whose recipients take more
    /// rounds, what is known when the time is up is settled, and the others come first next time.
    pub lease: Duration,
    /// What is left of a lease when its last call ends, for clocks that do not run alike.
    pub lease_margin: Duration,
    /// How long a lease call waits for an entry. The lease that it brings is older by as much.
    pub lease_wait: Duration,
    /// Finding a user's shard.
    pub locate: Duration,
    /// Delivering to one shard.
    pub deliver: Duration,
    /// Carrying the blobs of a message to another shard's stores. What is left to do then is done in the next attempt.
    pub carry: Duration,
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

impl WorkerTimings {
    /// What settling takes of a lease, at its end.
    pub(super) fn to_settle(&self) -> Duration {
        self.lease_margin.saturating_add(self.settle)
    }

    /// What one round of deliveries takes besides: whoever was found must be delivered to before others are looked for.
    pub(super) fn to_deliver(&self) -> Duration {
        self.to_settle().saturating_add(self.deliver).saturating_add(self.locate)
    }
}

impl Default for WorkerTimings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            lease_margin: Duration::from_secs(2),
            lease_wait: Duration::from_secs(5),
            locate: Duration::from_secs(5),
            deliver: Duration::from_secs(5),
            carry: Duration::from_secs(10),
            settle: Duration::from_secs(5),
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
    use postrider_api::limit::{DELIVER_AGE_MS_MAX, FORGET_AGE_MS_MIN, LEASE_MS_MAX, RECIPIENTS_MAX, RETRY_MS_MAX};

    use super::*;

    #[test]
    fn a_lease_outlives_one_round_of_the_work_under_it() {
        let timings = WorkerTimings::default();
        // However long the entry was waited for.
        assert!(timings.lease_wait + timings.locate + timings.to_deliver() < timings.lease);
        // And two, of an entry that was there.
        assert!((timings.locate + timings.deliver) * 2 + timings.to_settle() + timings.lease_margin < timings.lease);
    }

    #[test]
    fn a_lease_outlives_not_all_rounds_and_need_not() {
        // If it did, the deadline of a lease would never be met, and the tests that meet it would be about nothing.
        let timings = WorkerTimings::default();
        let rounds = |at_once: usize| u32::try_from(RECIPIENTS_MAX.div_ceil(at_once)).unwrap();
        let all = timings.locate * rounds(QUESTIONS_AT_ONCE_MAX) + timings.deliver * rounds(TARGETS_AT_ONCE_MAX);
        assert!(all > timings.lease);
    }

    #[test]
    fn times_agree_with_those_of_the_shards() {
        let timings = WorkerTimings::default();
        let ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        // No Deliver of a lease that is kept to is refused as too old, also where leaders' clocks differ by a minute.
        assert!(timings.lease + Duration::from_secs(60) < ms(DELIVER_AGE_MS_MAX));
        // What is asked for is what is given.
        assert!(timings.lease <= Duration::from_millis(LEASE_MS_MAX.into()));
        assert!(timings.forget_after > timings.lease + ms(FORGET_AGE_MS_MIN));
        assert!(timings.backoff_max < Duration::from_millis(RETRY_MS_MAX.into()));
    }
}
