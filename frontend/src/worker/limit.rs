//! Every limit of the queue worker (P-13).

use std::time::Duration;

/// Entries that one call leases when a shard has many: their texts are in memory together.
pub const LEASE_ENTRIES_MAX: u32 = 8;
/// How long a lease lasts, milliseconds. Longer than everything that is done under it: finding the users, delivering and
/// settling, each within [`DELIVER`] or [`SETTLE`].
pub const LEASE_MS: u32 = 30_000;
/// How long a lease call waits for an entry, milliseconds.
pub const LEASE_WAIT_MS: u32 = 20_000;
/// Entries under way at once, of all shards.
pub const DELIVERIES_MAX: usize = 64;
/// Target shards of one entry that are written to at once.
pub const TARGETS_AT_ONCE_MAX: usize = 8;
/// Directory questions of one entry at once.
pub const QUESTIONS_AT_ONCE_MAX: usize = 16;
/// Finding a user's shard may take this long.
pub const LOCATE: Duration = Duration::from_secs(5);
/// Delivering to one shard may take this long.
pub const DELIVER: Duration = Duration::from_secs(5);
/// Telling the source what became of an entry may take this long.
pub const SETTLE: Duration = Duration::from_secs(10);
/// A target shard without quorum is left alone for this long.
pub const TROUBLED: Duration = Duration::from_secs(1);
/// The first pause after a failed delivery, milliseconds; doubles from there.
pub const BACKOFF_MS_MIN: i64 = 500;
/// The longest pause, milliseconds: what waits for a shard should arrive soon after it is back.
pub const BACKOFF_MS_MAX: i64 = 60_000;
/// An entry older than this is given up, milliseconds. RFC 5321 section 4.5.4.1: at least 4 to 5 days.
pub const ENTRY_AGE_MS_MAX: i64 = 5 * 24 * 60 * 60 * 1000;
/// The pause after a shard could not be asked for entries; doubles up to [`POLL_PAUSE_MAX`].
pub const POLL_PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest such pause.
pub const POLL_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long after its settlement a transfer may be forgotten by its target. Until then a `Deliver` of an earlier attempt might
/// still be on its way; each lives at most [`DELIVER`] in the router and no longer at a node, so this is more than enough.
pub const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);
/// Transfers that wait to be forgotten; of more, the oldest rows stay.
pub const FORGETS_MAX: usize = 100_000;
/// Transfers in one `Forget`.
pub const FORGET_REQUESTS_MAX: usize = 500;
/// How often it is looked for transfers to forget.
pub const FORGET_EVERY: Duration = Duration::from_secs(5);
/// One `Forget` may take this long.
pub const FORGET: Duration = Duration::from_secs(10);
/// Draining waits this long for entries under way; what is cut off lapses and is taken over.
pub const DRAIN: Duration = Duration::from_secs(20);

// A lease must outlive the work under it.
const _: () = assert!(LOCATE.as_millis() * 2 + DELIVER.as_millis() + SETTLE.as_millis() < LEASE_MS as u128);
