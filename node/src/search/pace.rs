//! How an indexing thread gives way: it rests after each step, and the longer the busier the machine is. Mail goes before its index.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The longest rest after one step: the node may be shutting down.
const REST_MAX: Duration = Duration::from_millis(250);
/// Times that a step may have taken longer than it had a processor, as far as it matters.
const CROWDED_MAX: f64 = 8.0;

/// A step of work.
pub(super) struct Pace {
    began: Instant,
    /// Of this thread.
    processor: Duration,
}

impl Pace {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), processor: processor() }
    }

    /// Rests, and begins the next step. On a machine with a free processor as long as it has worked; where it had one for a third of the
    /// time only, others want it: then nine times as long.
    pub(super) fn rest(&mut self) {
        let worked = processor().saturating_sub(self.processor);
        std::thread::sleep(rest(worked, self.began.elapsed()));
        *self = Self::begin();
    }
}

fn rest(worked: Duration, took: Duration) -> Duration {
    let crowded = (took.as_secs_f64() / worked.as_secs_f64().max(1e-6)).clamp(1.0, CROWDED_MAX);
    worked.mul_f64(crowded * crowded).min(REST_MAX)
}

fn processor() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_way() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(10), ms(10)), ms(10));
        assert_eq!(rest(ms(10), ms(30)), ms(90));
        assert_eq!(rest(ms(10), ms(1000)), REST_MAX);
        assert_eq!(rest(ms(0), ms(5)), ms(0));
    }
}
