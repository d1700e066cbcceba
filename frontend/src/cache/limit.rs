//! Limits of the cache (P-13).

use std::time::Duration;

/// A value as it is stored, bytes: what a rendered message rarely is, with its text compressed. What is larger is not put.
pub(crate) const VALUE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A blob that is put, bytes: most attachments have less. Larger ones are read from the object stores each time.
pub(crate) const BLOB_BYTES_MAX: u64 = 1024 * 1024;
/// A value when it is decompressed, bytes: all that is rendered of a message, and its header.
pub(crate) const CONTENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What is opened or sealed on the threads that serve others, bytes. More is done elsewhere.
pub(crate) const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Values on their way into the cache at once; what comes meanwhile is not put.
pub(crate) const PUTS_MAX: usize = 16;
/// Mail that was received so long ago is not put, days: most reads are of what is newer.
pub const RECENT_DAYS_DEFAULT: u32 = 16;
/// A value is kept so long at most, however recent its message: what a deletion leaves here is over with what it leaves on disks.
pub(crate) const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Values in this process where there is no Redis, bytes.
pub const MEMORY_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// What a value in this process costs beyond its bytes.
pub(crate) const ENTRY_BYTES: usize = 256;

/// How long a request waits for a value.
pub(crate) const VALUE_WAIT_MAX: Duration = Duration::from_millis(6);
/// How long a request waits for what the region's frontends have counted.
pub(crate) const LIMIT_WAIT_MAX: Duration = Duration::from_millis(4);
/// How long a value that is put may take, and a count that nobody waits for.
pub(crate) const BACKGROUND_WAIT_MAX: Duration = Duration::from_millis(250);
/// Failures in a row after which Redis is not asked any more: one limit and two values, 16 ms of one request.
pub(crate) const FAILURES_MAX: u32 = 3;
/// From one try to reach it again to the next.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// One such try: a connection, its handshake and a PING.
pub(crate) const PROBE_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long nothing is written to a Redis that says it is full.
pub(crate) const FULL_PAUSE: Duration = Duration::from_secs(1);

// What a request loses to a Redis that answers nothing is below 20 ms: its limit, and values until the breaker opens.
const _: () = assert!(LIMIT_WAIT_MAX.as_millis() + (FAILURES_MAX as u128 - 1) * VALUE_WAIT_MAX.as_millis() < 20);
