//! Whether this node's clock may stamp commands.
//!
//! Invariant: a wrong stamp stays for good, because the time that rows see never goes back. So a leader stamps by a clock
//! that its peers have confirmed since it was last set, and where no peer confirms it now, only little ahead of what the
//! shard has seen.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::env::Clock;
use postrider_api::id::NodeId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::judges::{self, Judges};
use crate::map::Map;
use crate::options::NodeTimings;
use crate::peers::Peers;
use crate::replicas::Replicas;

/// The pause between two comparisons while nobody has answered one.
const PAUSE_UNANSWERED: Duration = Duration::from_millis(200);
/// A comparison speaks for this many periods: one may be lost.
const PERIODS_VALID: u32 = 3;
/// How far ahead of a shard's time a stamp may be where no peer's clock stands for it, milliseconds.
pub(crate) const STAMP_AHEAD_MS_MAX: i64 = 60_000;

/// What a stamp by this node's clock is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confidence {
    /// Most peers that answered lately have a clock near this one.
    Witnessed,
    /// It was compared and not found wrong, but no peer stands for it now.
    Plausible,
    /// Nobody could be asked: only for groups in which nobody else votes.
    Alone,
    /// It was not compared yet, has been set since, or is wrong.
    None,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Verdict {
    #[default]
    Unchecked,
    Unanswered,
    Right,
    Off,
}

#[derive(Debug, Clone, Copy, Default)]
struct Compared {
    verdict: Verdict,
    /// Wall time less monotonic time at the comparison, milliseconds: another difference later means that the clock was set.
    difference_ms: i64,
    /// Until when peers stand for it, on the node's clock.
    witnessed_until: Duration,
}

/// What is known of this node's clock.
pub(crate) struct Trust {
    clock: Arc<dyn Clock>,
    /// A clock that moves against monotonic time by more than this was set.
    skew: Duration,
    compared: Mutex<Compared>,
    /// Wakes the comparison: the clock was set.
    doubted: Notify,
    /// Wakes who acts on the verdict.
    judged: Notify,
}

impl Trust {
    pub(crate) fn new(clock: Arc<dyn Clock>, skew: Duration) -> Self {
        let (compared, doubted, judged) = (Mutex::default(), Notify::new(), Notify::new());
        Self { clock, skew, compared, doubted, judged }
    }

    /// Most peers say that the clock is wrong.
    pub(crate) fn is_off(&self) -> bool {
        self.compared.lock().verdict == Verdict::Off
    }

    /// Returns when the clock has turned out wrong, or right again.
    pub(crate) async fn judged(&self) {
        self.judged.notified().await;
    }

    /// The time, and what it is worth as a stamp.
    pub(crate) fn read(&self) -> (i64, Confidence) {
        let (now_ms, monotonic) = (self.clock.wall_ms(), self.clock.monotonic());
        let compared = *self.compared.lock();
        let confidence = match compared.verdict {
            Verdict::Unchecked | Verdict::Off => Confidence::None,
            _ if self.was_set(&compared, now_ms, monotonic) => {
                self.doubted.notify_one();
                Confidence::None
            }
            Verdict::Unanswered => Confidence::Alone,
            Verdict::Right if monotonic < compared.witnessed_until => Confidence::Witnessed,
            Verdict::Right => Confidence::Plausible,
        };
        (now_ms, confidence)
    }

    fn was_set(&self, compared: &Compared, now_ms: i64, monotonic: Duration) -> bool {
        let moved = difference_ms(now_ms, monotonic).saturating_sub(compared.difference_ms);
        Duration::from_millis(moved.unsigned_abs()) > self.skew
    }

    /// Takes in how far ahead the peers' clocks are, of those that answered. `difference_ms`: of this node's two clocks when
    /// they were asked; what was set since was not compared.
    fn judge(&self, difference_ms: i64, ahead_ms: &[i64], valid: Duration) -> Verdict {
        let (now_ms, monotonic) = (self.clock.wall_ms(), self.clock.monotonic());
        let verdict = verdict(ahead_ms, self.skew);
        let far = ahead_ms.iter().filter(|ahead| ahead.unsigned_abs() > STAMP_AHEAD_MS_MAX.unsigned_abs()).count();
        let is_witnessed = !ahead_ms.is_empty() && far * 2 <= ahead_ms.len();
        let mut compared = self.compared.lock();
        // Silence changes nothing, unless what was said before was said of another time.
        let stands = !matches!(compared.verdict, Verdict::Unchecked) && !self.was_set(&compared, now_ms, monotonic);
        if verdict == Verdict::Unanswered && stands {
            return compared.verdict;
        }
        let was_off = compared.verdict == Verdict::Off;
        let witnessed_until = if is_witnessed { monotonic.saturating_add(valid) } else { Duration::ZERO };
        *compared = Compared { verdict, difference_ms, witnessed_until };
        if was_off != (verdict == Verdict::Off) {
            self.judged.notify_one();
        }
        verdict
    }
}

fn difference_ms(wall_ms: i64, monotonic: Duration) -> i64 {
    wall_ms.saturating_sub(i64::try_from(monotonic.as_millis()).unwrap_or(i64::MAX))
}

/// It is off when most of at least two peers say so: of two clocks that differ, nobody can tell which is right.
fn verdict(ahead_ms: &[i64], skew: Duration) -> Verdict {
    let differing = ahead_ms.iter().filter(|ahead| Duration::from_millis(ahead.unsigned_abs()) > skew).count();
    match ahead_ms.len() {
        0 => Verdict::Unanswered,
        answered if answered >= 2 && differing * 2 > answered => Verdict::Off,
        _ => Verdict::Right,
    }
}

/// Compares this node's clock with its peers' until the node stops.
pub(crate) struct ClockKeeper {
    pub(crate) node: NodeId,
    pub(crate) trust: Arc<Trust>,
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) peers: Peers,
    pub(crate) timings: NodeTimings,
    pub(crate) stop: CancellationToken,
}

impl ClockKeeper {
    pub(crate) async fn run(self) {
        let mut judges = Judges::default();
        loop {
            let pause = tokio::select! {
                () = self.stop.cancelled() => return,
                pause = self.compare(&mut judges) => pause,
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.trust.doubted.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Compares once; says when to do so again.
    async fn compare(&self, judges: &mut Judges) -> Duration {
        let was_off = self.trust.is_off();
        let difference_ms = difference_ms(self.replicas.clock.wall_ms(), self.replicas.clock.monotonic());
        let chosen = judges.choose(judges::candidates(self.node, &self.replicas, &self.map));
        let asked = chosen.iter().map(|(_, judge)| self.peers.status(&judge.address, true));
        let answers = futures::future::join_all(asked).await;
        for ((node, _), answer) in chosen.iter().zip(&answers) {
            judges.heard(*node, answer.is_ok());
        }
        let ahead_ms: Vec<i64> = answers.into_iter().flatten().map(|peer| peer.clock_ahead_ms).collect();
        if let Some(ahead) = ahead_ms.iter().min_by_key(|ahead| ahead.unsigned_abs()) {
            metrics::gauge!("postrider_node_clock_behind_ms").set(*ahead as f64);
        }
        let verdict = self.trust.judge(difference_ms, &ahead_ms, self.timings.clock_check * PERIODS_VALID);
        match verdict {
            Verdict::Off if !was_off => {
                tracing::error!(?ahead_ms, "this node's clock is wrong: it leads nothing until it is right");
            }
            Verdict::Right if was_off => tracing::info!("this node's clock agrees with the others again"),
            _ => {}
        }
        match verdict {
            Verdict::Unchecked | Verdict::Unanswered => PAUSE_UNANSWERED.min(self.timings.clock_check),
            Verdict::Right | Verdict::Off => self.timings.clock_check,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    const SKEW: Duration = Duration::from_secs(1);
    const VALID: Duration = Duration::from_secs(30);

    /// Milliseconds of both clocks.
    struct Hands {
        wall: AtomicI64,
        monotonic: AtomicI64,
    }

    impl Clock for Hands {
        fn wall_ms(&self) -> i64 {
            self.wall.load(Ordering::Relaxed)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.monotonic.load(Ordering::Relaxed).unsigned_abs())
        }
    }

    impl Hands {
        fn pass(&self, ms: i64) {
            self.wall.fetch_add(ms, Ordering::Relaxed);
            self.monotonic.fetch_add(ms, Ordering::Relaxed);
        }

        fn difference_ms(&self) -> i64 {
            difference_ms(self.wall_ms(), self.monotonic())
        }
    }

    fn trust() -> (Arc<Hands>, Trust) {
        let hands = Arc::new(Hands { wall: AtomicI64::new(1_000_000), monotonic: AtomicI64::new(5_000) });
        (hands.clone(), Trust::new(hands, SKEW))
    }

    #[test]
    fn one_peer_alone_cannot_tell_whose_clock_is_wrong() {
        assert_eq!(verdict(&[], SKEW), Verdict::Unanswered);
        assert_eq!(verdict(&[30_000], SKEW), Verdict::Right);
        assert_eq!(verdict(&[30_000, 0], SKEW), Verdict::Right);
        assert_eq!(verdict(&[30_000, -30_000], SKEW), Verdict::Off);
        assert_eq!(verdict(&[9_000, 9_000, 0, 1, 2], SKEW), Verdict::Right);
        assert_eq!(verdict(&[9_000, 9_000, 9_000, 1, 2], SKEW), Verdict::Off);
    }

    #[test]
    fn nothing_is_stamped_before_the_first_comparison() {
        let (hands, trust) = trust();
        assert_eq!(trust.read().1, Confidence::None);
        trust.judge(hands.difference_ms(), &[0, 1], VALID);
        assert_eq!(trust.read(), (1_000_000, Confidence::Witnessed));
    }

    #[test]
    fn a_clock_that_was_set_counts_as_not_compared() {
        let (hands, trust) = trust();
        let before = hands.difference_ms();
        trust.judge(before, &[0, 1], VALID);
        hands.pass(20_000);
        assert_eq!(trust.read().1, Confidence::Witnessed);
        hands.wall.fetch_add(1_001, Ordering::Relaxed);
        assert_eq!(trust.read().1, Confidence::None);
        trust.judge(before, &[0, 1], VALID);
        assert_eq!(trust.read().1, Confidence::None, "it was set while its peers were asked");
        trust.judge(hands.difference_ms(), &[-1_001, -1_001], VALID);
        assert!(trust.is_off());
        assert_eq!(trust.read().1, Confidence::None);
        trust.judge(hands.difference_ms(), &[], VALID);
        assert!(trust.is_off(), "nobody took it back");
        trust.judge(hands.difference_ms(), &[0, 0], VALID);
        assert_eq!(trust.read().1, Confidence::Witnessed);
        hands.wall.fetch_add(1_001, Ordering::Relaxed);
        trust.judge(hands.difference_ms(), &[], VALID);
        assert_eq!(trust.read().1, Confidence::Alone, "what was said was said of another time");
    }

    #[test]
    fn peers_stand_for_it_for_a_while_and_only_if_they_are_near() {
        let (hands, trust) = trust();
        trust.judge(hands.difference_ms(), &[], VALID);
        assert_eq!(trust.read().1, Confidence::Alone);
        trust.judge(hands.difference_ms(), &[59_000], VALID);
        assert_eq!(trust.read().1, Confidence::Witnessed);
        trust.judge(hands.difference_ms(), &[], VALID);
        assert_eq!(trust.read().1, Confidence::Witnessed, "silent for a moment");
        hands.pass(30_000);
        assert_eq!(trust.read().1, Confidence::Plausible);
        trust.judge(hands.difference_ms(), &[61_000], VALID);
        assert_eq!(trust.read().1, Confidence::Plausible, "one peer, and it is far off");
    }
}
