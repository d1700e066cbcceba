//! Clocks, injected.

use std::time::Duration;

/// Three views of time whose disagreement shows that time cannot be trusted for a lease.
///
/// Consensus timers themselves run on tokio's clock, which a simulation can pause and advance.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time, which stands still while the machine sleeps (`CLOCK_MONOTONIC`).
    fn monotonic(&self) -> Duration;
    /// Time since boot, sleep included (`CLOCK_BOOTTIME`). A jump against `monotonic` is a suspend.
    fn since_boot(&self) -> Duration;
    /// Wall clock, since the epoch. A jump against `monotonic` is a step of the clock, or a restored machine image.
    fn wall(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    fn read(clock: rustix::time::ClockId) -> Duration {
        let time = rustix::time::clock_gettime(clock);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        Self::read(rustix::time::ClockId::Monotonic)
    }

    fn since_boot(&self) -> Duration {
        Self::read(rustix::time::ClockId::Boottime)
    }

    fn wall(&self) -> Duration {
        Self::read(rustix::time::ClockId::Realtime)
    }
}
