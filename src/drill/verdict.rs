//! What a drill shows of each promise (P-n of the design), and the form in which programs read it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::books::Balance;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Kept,
    Broken,
}

impl Verdict {
    pub(super) fn of(kept: bool) -> Self {
        if kept { Verdict::Kept } else { Verdict::Broken }
    }
}

/// What `--json` prints.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    pub(super) drill: String,
    pub(super) verdict: Verdict,
    pub(super) acknowledged: u64,
    pub(super) missing: usize,
    pub(super) twice: usize,
    pub(super) hidden: usize,
    /// Seconds from the break.
    pub(super) last_refused_s: f64,
    /// Seconds from the break; null when the cluster did not become whole again.
    pub(super) recovered_s: Option<f64>,
    pub(super) longest_pause_ms: u64,
    /// Each promise that the drill says something of.
    pub(super) promises: BTreeMap<&'static str, Verdict>,
}

/// What was measured.
pub(super) struct Measured {
    pub(super) balance: Balance,
    pub(super) last_refused_s: f64,
    pub(super) recovered_s: Option<f64>,
    pub(super) longest_pause_ms: u64,
    /// Counters, quotas and indexes of all replicas are what is computed anew (`ctl verify`).
    pub(super) verified: bool,
    /// Replicas of every shard hold the same (`ctl digest`).
    pub(super) equal: bool,
}

/// The promise on pauses that a drill is about, and its bound, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PauseBound {
    pub(super) promise: &'static str,
    pub(super) ms: u64,
}

impl Summary {
    pub(super) fn new(drill: &str, measured: &Measured, bound: Option<PauseBound>) -> Self {
        let balance = &measured.balance;
        let mut promises = BTreeMap::from([
            ("P-1", Verdict::of(balance.missing.is_empty())),
            ("P-2", Verdict::of(balance.hidden.is_empty())),
            ("P-6", Verdict::of(balance.twice.is_empty())),
            ("P-10", Verdict::of(measured.verified)),
            ("P-12", Verdict::of(measured.equal)),
        ]);
        if let Some(bound) = bound {
            promises.insert(bound.promise, Verdict::of(measured.longest_pause_ms <= bound.ms));
        }
        // A load of which nothing was acknowledged has shown nothing.
        let all = promises.values().all(|verdict| *verdict == Verdict::Kept)
            && measured.recovered_s.is_some()
            && balance.acknowledged > 0;
        Self {
            drill: drill.into(),
            verdict: Verdict::of(all),
            acknowledged: balance.acknowledged,
            missing: balance.missing.len(),
            twice: balance.twice.len(),
            hidden: balance.hidden.len(),
            last_refused_s: measured.last_refused_s,
            recovered_s: measured.recovered_s,
            longest_pause_ms: measured.longest_pause_ms,
            promises,
        }
    }
}

/// A promise in a few words, for people.
pub(super) fn words(promise: &str) -> &'static str {
    match promise {
        "P-1" => "acknowledged is durable",
        "P-2" => "acknowledged is visible",
        "P-6" => "exactly once",
        "P-7" => "the loss of a region heals itself",
        "P-8" => "moves are invisible",
        "P-10" => "counters do not drift",
        "P-12" => "replicas hold the same",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        Measured {
            balance: Balance { acknowledged: 10, ..Balance::default() },
            last_refused_s: 1.5,
            recovered_s: Some(4.0),
            longest_pause_ms: 700,
            verified: true,
            equal: true,
        }
    }

    #[test]
    fn one_broken_promise_breaks_the_drill() {
        let kept = Summary::new("roll", &measured(), Some(PauseBound { promise: "P-8", ms: 700 }));
        assert_eq!(kept.verdict, Verdict::Kept);
        let one = || vec!["a".to_owned()];
        let broken: Vec<(&str, Measured)> = vec![
            ("P-1", Measured { balance: Balance { missing: one(), ..measured().balance }, ..measured() }),
            ("P-2", Measured { balance: Balance { hidden: one(), ..measured().balance }, ..measured() }),
            ("P-6", Measured { balance: Balance { twice: one(), ..measured().balance }, ..measured() }),
            ("P-8", Measured { longest_pause_ms: 701, ..measured() }),
            ("P-10", Measured { verified: false, ..measured() }),
            ("P-12", Measured { equal: false, ..measured() }),
        ];
        for (promise, measured) in broken {
            let summary = Summary::new("roll", &measured, Some(PauseBound { promise: "P-8", ms: 700 }));
            assert_eq!(summary.verdict, Verdict::Broken, "{promise}");
            let of =
                |verdict| summary.promises.iter().filter(|(_, v)| **v == verdict).map(|(p, _)| *p).collect::<Vec<_>>();
            assert_eq!(of(Verdict::Broken), [promise]);
        }
        for nothing in
            [Measured { recovered_s: None, ..measured() }, Measured { balance: Balance::default(), ..measured() }]
        {
            assert_eq!(Summary::new("roll", &nothing, None).verdict, Verdict::Broken);
        }
    }

    #[test]
    fn programs_read_it_as_promised() {
        let summary = Summary::new("lose-region", &measured(), Some(PauseBound { promise: "P-7", ms: 3_000 }));
        let value = serde_json::to_value(&summary).unwrap();
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "acknowledged",
                "drill",
                "hidden",
                "last_refused_s",
                "longest_pause_ms",
                "missing",
                "promises",
                "recovered_s",
                "twice",
                "verdict"
            ]
        );
        assert_eq!((&value["verdict"], &value["promises"]["P-7"]), (&"kept".into(), &"kept".into()));
        assert!(["P-1", "P-2", "P-6", "P-10", "P-12"].iter().all(|promise| !words(promise).is_empty()));
    }
}
