//! How long a runtime's thread was kept by one task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

/// Between two beats, while nothing keeps the thread.
const BEAT: Duration = Duration::from_millis(1);

/// A task that wants to run every millisecond. The processor time that its thread takes between two runs is what others took, in
/// one piece or little more: exact where the machine itself pauses, for a thread that does not run takes no time.
pub struct Pulse {
    longest_ns: Arc<AtomicU64>,
}

impl Pulse {
    pub(super) fn feel(runtime: &Runtime) -> Self {
        let longest_ns = Arc::new(AtomicU64::new(0));
        let longest = longest_ns.clone();
        runtime.spawn(async move {
            let mut before = None;
            loop {
                tokio::time::sleep(BEAT).await;
                let thread = std::thread::current().id();
                let time = clock_gettime(ClockId::ThreadCPUTime);
                let now = Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap());
                // Another thread took over while the first one blocked: it was kept by nobody.
                if let Some((on, then)) = before
                    && on == thread
                {
                    let kept: Duration = now.saturating_sub(then);
                    longest.fetch_max(u64::try_from(kept.as_nanos()).unwrap(), Ordering::Relaxed);
                }
                before = Some((thread, now));
            }
        });
        Self { longest_ns }
    }

    /// The longest since this was last asked.
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest_ns.swap(0, Ordering::Relaxed))
    }
}
