//! What happened and when, in milliseconds since the drill began.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Refusals that are kept with their words; all are counted.
const REFUSALS_KEPT_MAX: usize = 5_000;

/// A stretch of the drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Phase {
    pub(super) name: String,
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    /// Whether something was broken, or moved, in it.
    pub(super) broken: bool,
}

/// A write that was refused or not answered.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) at_ms: u64,
    pub(super) mailbox: usize,
    pub(super) region: String,
    pub(super) said: String,
}

/// A mailbox that waited for its next acknowledgement, for however short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) mailbox: usize,
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
}

/// From then on a shard was led by a node, or by nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lead {
    pub(super) shard: u32,
    pub(super) node: Option<u64>,
    pub(super) at_ms: u64,
}

/// Reads of the drill's readers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reads {
    pub(super) current: u64,
    pub(super) stale: u64,
    pub(super) refused: u64,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Events {
    pub(super) phases: Vec<Phase>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) refusals_count: u64,
    pub(super) last_refusal_ms: Option<u64>,
    pub(super) pauses: Vec<Pause>,
    pub(super) leads: Vec<Lead>,
    pub(super) reads: Reads,
    /// What the drill has to say for people.
    pub(super) notes: Vec<(u64, String)>,
    /// When it was first broken, and when everything was right again.
    pub(super) broke_ms: Option<u64>,
    pub(super) whole_ms: Option<u64>,
    /// Who leads each shard as far as is known.
    pub(super) led: BTreeMap<u32, Option<u64>>,
}

/// Written by all tasks of the drill.
#[derive(Clone)]
pub(super) struct Timeline {
    begin: Instant,
    events: Arc<Mutex<Events>>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self { begin: Instant::now(), events: Arc::default() }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.ms(Instant::now())
    }

    pub(super) fn ms(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.begin).as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Events) -> T) -> T {
        // A task that panicked has left whole events: each is pushed in one step.
        change(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What there is so far.
    pub(super) fn events(&self) -> Events {
        self.with(|events| events.clone())
    }

    /// Ends the phase that is on, and begins another.
    pub(super) fn phase(&self, name: &str, broken: bool) {
        let now = self.now_ms();
        self.with(|events| {
            if let Some(last) = events.phases.last_mut() {
                last.to_ms = now;
            }
            events.phases.push(Phase { name: name.into(), from_ms: now, to_ms: now, broken });
            if broken {
                events.broke_ms.get_or_insert(now);
            }
        });
    }

    pub(super) fn end(&self) {
        let now = self.now_ms();
        self.with(|events| {
            if let Some(last) = events.phases.last_mut() {
                last.to_ms = now;
            }
        });
    }

    pub(super) fn note(&self, text: impl Into<String>) {
        let now = self.now_ms();
        self.with(|events| events.notes.push((now, text.into())));
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.with(|events| {
            events.refusals_count += 1;
            events.last_refusal_ms = events.last_refusal_ms.max(Some(refusal.at_ms));
            if events.refusals.len() < REFUSALS_KEPT_MAX {
                events.refusals.push(refusal);
            }
        });
    }

    pub(super) fn paused(&self, mailbox: usize, from: Instant, to: Instant) {
        let pause = Pause { mailbox, from_ms: self.ms(from), to_ms: self.ms(to) };
        self.with(|events| events.pauses.push(pause));
    }

    /// Kept when it has changed.
    pub(super) fn led(&self, shard: u32, node: Option<u64>) {
        let at_ms = self.now_ms();
        self.with(|events| {
            if events.led.get(&shard) != Some(&node) {
                events.led.insert(shard, node);
                events.leads.push(Lead { shard, node, at_ms });
            }
        });
    }
}

impl Events {
    /// The longest pause of a mailbox that ended after it was first broken, milliseconds.
    pub(super) fn longest_pause_ms(&self) -> u64 {
        let broke = self.broke_ms.unwrap_or(0);
        let of = |pause: &Pause| pause.to_ms.saturating_sub(pause.from_ms);
        self.pauses.iter().filter(|pause| pause.to_ms >= broke).map(of).max().unwrap_or(0)
    }

    /// Seconds from when it was first broken to the last refused write; 0 when none was.
    pub(super) fn last_refused_s(&self) -> f64 {
        match (self.broke_ms, self.last_refusal_ms) {
            (Some(broke), Some(last)) => seconds(last.saturating_sub(broke)),
            _ => 0.0,
        }
    }

    /// Seconds from when it was first broken until the cluster was whole again; `None`: it was not.
    pub(super) fn recovered_s(&self) -> Option<f64> {
        Some(seconds(self.whole_ms?.saturating_sub(self.broke_ms?)))
    }
}

/// To a millisecond.
pub(super) fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_break() {
        let pause = |from_ms, to_ms| Pause { mailbox: 0, from_ms, to_ms };
        let events = Events {
            broke_ms: Some(1_000),
            whole_ms: Some(9_500),
            last_refusal_ms: Some(3_250),
            pauses: vec![pause(100, 900), pause(950, 1_500), pause(2_000, 2_300)],
            ..Events::default()
        };
        assert_eq!(events.longest_pause_ms(), 550, "what was over before it does not count");
        assert!((events.last_refused_s() - 2.25).abs() < 1e-9);
        assert_eq!(events.recovered_s(), Some(8.5));
        assert_eq!(Events { broke_ms: Some(5), ..Events::default() }.recovered_s(), None);
    }

    #[test]
    fn phases_follow_each_other_and_leads_are_kept_when_they_change() {
        let timeline = Timeline::new();
        timeline.phase("calm", false);
        timeline.phase("broken", true);
        timeline.end();
        for node in [Some(1), Some(1), None, Some(2)] {
            timeline.led(1000, node);
        }
        let events = timeline.events();
        assert_eq!(events.phases[0].to_ms, events.phases[1].from_ms);
        assert_eq!(events.broke_ms, Some(events.phases[1].from_ms));
        assert_eq!(events.leads.iter().map(|lead| lead.node).collect::<Vec<_>>(), [Some(1), None, Some(2)]);
    }
}
