//! When this node may vote, and when it may trust its own sense of time.
//!
//! A follower that has acknowledged its leader has promised not to vote for anyone else for a lease, and openraft
//! forgets that promise when the process restarts. So a replica that had a life before this process neither votes nor
//! stands for election for one full lease. Votes that the leader itself asked for (a transfer) are exempt, and so is a
//! replica that never promised anything because it has neither vote nor entries.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Clock;

/// The promise of a life before: no votes before `until`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probation {
    until: Option<Instant>,
}

impl Probation {
    /// Of a replica that never promised anything.
    pub(crate) fn none() -> Self {
        Self { until: None }
    }

    /// Of a replica whose process started at `start`.
    pub(crate) fn after_restart(start: Instant, lease: Duration) -> Self {
        Self { until: Some(start + lease) }
    }

    /// Whether a vote may be granted, or asked for, now.
    pub(crate) fn over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }
}

/// Clocks that differ by more than this have jumped: a suspend.
const SUSPEND_MIN: Duration = Duration::from_millis(100);
/// The clocks are looked at many times a lease. When nobody looked for this share of one, the process was stopped, and
/// what waits in its sockets may be older than it will look when it is read.
const GAP_SHARE: u32 = 3;
/// The wall clock is slewed and stepped by small amounts all the time; this much is a jump.
const STEP_MIN: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
struct Sample {
    monotonic: Duration,
    since_boot: Duration,
    wall: Duration,
}

struct Watched {
    last: Sample,
    distrust_until: Option<Duration>,
}

/// Notices suspends and steps of the clock. After one, acknowledgements that this process remembers may be older than
/// they look, so reads ask the quorum again until those have all been replaced.
pub(crate) struct ClockWatch {
    clock: Arc<dyn Clock>,
    distrust: Duration,
    gap: Duration,
    watched: Mutex<Watched>,
}

impl ClockWatch {
    /// Distrusts time for two leases after a jump.
    pub(crate) fn new(clock: Arc<dyn Clock>, lease: Duration) -> Self {
        let last = sample(&*clock);
        Self {
            clock,
            distrust: lease * 2,
            gap: lease / GAP_SHARE,
            watched: Mutex::new(Watched { last, distrust_until: None }),
        }
    }

    /// Whether the time since the last call went by evenly on all clocks, and long enough before.
    pub(crate) fn trusted(&self) -> bool {
        let mut watched = self.watched.lock();
        let now = sample(&*self.clock);
        let last = std::mem::replace(&mut watched.last, now);
        let passed = now.monotonic.saturating_sub(last.monotonic);
        let booted = now.since_boot.saturating_sub(last.since_boot);
        let backwards = now.wall < last.wall;
        let wall = now.wall.saturating_sub(last.wall);
        if passed > self.gap
            || booted.abs_diff(passed) > SUSPEND_MIN
            || wall.abs_diff(passed) > STEP_MIN
            || (backwards && last.wall - now.wall > STEP_MIN)
        {
            tracing::warn!(
                passed_ms = passed.as_millis(),
                since_boot_ms = booted.as_millis(),
                wall_ms = wall.as_millis(),
                "a clock has jumped, or the process was stopped; reads ask the quorum for a while"
            );
            metrics::counter!("postrider_raft_clock_jumps_total").increment(1);
            watched.distrust_until = Some(now.monotonic + self.distrust);
        }
        match watched.distrust_until {
            Some(until) if now.monotonic < until => false,
            Some(_) => {
                watched.distrust_until = None;
                true
            }
            None => true,
        }
    }
}

fn sample(clock: &dyn Clock) -> Sample {
    Sample { monotonic: clock.monotonic(), since_boot: clock.since_boot(), wall: clock.wall() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Hands(Mutex<[Duration; 3]>);

    impl Hands {
        fn pass(&self, monotonic: u64, since_boot: u64, wall: i64) {
            let mut hands = self.0.lock();
            hands[0] += Duration::from_millis(monotonic);
            hands[1] += Duration::from_millis(since_boot);
            let step = Duration::from_millis(wall.unsigned_abs());
            hands[2] = if wall < 0 { hands[2] - step } else { hands[2] + step };
        }
    }

    impl Clock for Hands {
        fn monotonic(&self) -> Duration {
            self.0.lock()[0]
        }
        fn since_boot(&self) -> Duration {
            self.0.lock()[1]
        }
        fn wall(&self) -> Duration {
            self.0.lock()[2]
        }
    }

    fn watch() -> (Arc<Hands>, ClockWatch) {
        let hands = Arc::new(Hands::default());
        hands.pass(1_000_000, 1_000_000, 1_000_000);
        let watch = ClockWatch::new(hands.clone(), Duration::from_millis(900));
        (hands, watch)
    }

    #[test]
    fn even_time_is_trusted() {
        let (hands, watch) = watch();
        for _ in 0..100 {
            hands.pass(50, 50, 55);
            assert!(watch.trusted());
        }
    }

    #[test]
    fn a_stopped_process_distrusts_what_it_remembers() {
        let (hands, watch) = watch();
        hands.pass(900, 900, 900);
        assert!(!watch.trusted());
    }

    #[test]
    fn a_suspend_is_distrusted_for_two_leases() {
        let (hands, watch) = watch();
        hands.pass(10, 60_010, 60_010);
        assert!(!watch.trusted());
        for _ in 0..17 {
            hands.pass(100, 100, 100);
            assert!(!watch.trusted());
        }
        hands.pass(200, 200, 200);
        assert!(watch.trusted());
    }

    #[test]
    fn a_step_of_the_wall_clock_is_distrusted_either_way() {
        for step in [-3_000, 3_000] {
            let (hands, watch) = watch();
            hands.pass(10, 10, step);
            assert!(!watch.trusted(), "{step}");
        }
    }

    #[tokio::test]
    async fn a_restarted_replica_does_not_vote_for_a_lease() {
        let start = Instant::now();
        let lease = Duration::from_millis(900);
        let probation = Probation::after_restart(start, lease);
        assert!(!probation.over(start + lease - Duration::from_millis(1)));
        assert!(probation.over(start + lease));
        assert!(Probation::none().over(start));
    }
}
