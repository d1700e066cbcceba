//! Which regions an answer names, the nearest first.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use postrider_api::limit::REGION_WEIGHT;
use postrider_api::pb::RoundTripReport;

use crate::health::{Health, Seen};
use crate::latency::prefix::Prefix;
use crate::latency::report::{self, ReportError};
use crate::latency::sample::Sample;
use crate::latency::saved::{self, SavedError};
use crate::latency::table::Table;
use crate::region::{Region, RegionSet};

/// One of so many answers tries another region than the nearest, so that what is better can be found out.
pub const EXPLORED_ONE_IN: u64 = 32;
/// What is known of a region with at least so many measurements ...
const EXPLORED_EVIDENCE_MAX: f32 = 8.0;
/// ... is not tried again while it is more than this many times farther than the nearest.
const EXPLORED_FACTOR_MAX: f32 = 1.5;
/// Measurements that are taken in at once: questions wait meanwhile.
const SAMPLES_MAX: usize = 256;
/// What is assumed between a client and a region before anything is known: a client asks a name server that is near to it.
const ACCESS: Duration = Duration::from_millis(5);
/// What is assumed between two regions until it was measured.
const REGIONS_APART: Duration = Duration::from_millis(150);

/// The regions for one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Never empty while there are regions; the first is the one to name where one is named.
    pub order: Vec<usize>,
    /// All networks that share so many bits with the one that was asked for get the same (RFC 7871's scope).
    pub scope: u8,
}

/// Knows regions, measurements and health, and orders regions by them.
#[derive(Debug)]
pub struct Chooser {
    names: Vec<String>,
    /// Its place among them: the region that this process stands in.
    own: usize,
    weights: Vec<AtomicU32>,
    /// Which regions serve.
    health: Health,
    /// Which of them are there, whether or not they serve.
    there: Health,
    table: RwLock<Table>,
    /// Microseconds from this region to each, before anything is known of the client.
    inherited: RwLock<Arc<[f32]>>,
    explored: AtomicU64,
    seed: u64,
}

impl Chooser {
    /// For a process in the region `own` of these. The same seed and questions give the same answers.
    pub fn new(regions: &[Region], own: usize, table: Table, seed: u64) -> Self {
        let chooser = Self {
            names: regions.iter().map(|region| region.name.clone()).collect(),
            own,
            weights: regions.iter().map(|_| AtomicU32::new(REGION_WEIGHT)).collect(),
            health: Health::new(regions.len()),
            there: Health::new(regions.len()),
            table: RwLock::new(table),
            inherited: RwLock::new(Arc::default()),
            explored: AtomicU64::new(0),
            seed,
        };
        chooser.set_peers(&vec![None; regions.len()]);
        chooser
    }

    /// Somebody looked at a region at `now` on a monotonic clock. Returns whether it is counted as serving from now on, or no longer.
    pub fn report(&self, region: usize, seen: Seen, now: Duration) -> bool {
        self.there.report(region, seen != Seen::Nothing, now);
        let changed = self.health.report(region, seen == Seen::Serves, now);
        if let Some(name) = self.names.get(region) {
            let serves = self.health.regions().contains(region);
            metrics::gauge!("postrider_dns_region_serves", "region" => name.clone()).set(f64::from(u8::from(serves)));
            if changed {
                metrics::counter!("postrider_dns_region_changes_total", "region" => name.clone()).increment(1);
            }
        }
        changed
    }

    /// Names of the regions, in the configured order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Round trips from this region to each, where they were measured.
    pub fn set_peers(&self, round_trips: &[Option<Duration>]) {
        let inherited = (0..self.names.len()).map(|region| {
            let apart = if region == self.own { Duration::ZERO } else { REGIONS_APART };
            let apart = round_trips.get(region).copied().flatten().unwrap_or(apart);
            (ACCESS + apart).as_micros() as f32
        });
        *self.inherited.write() = inherited.collect();
    }

    /// How much of what is near to each region shall go there: 100 is its fair share, 50 makes it seem twice as far away as it is, and
    /// 0 drains it. Whose is missing keeps what it has.
    pub fn set_weights(&self, weights: &[u32]) {
        for (weight, now) in self.weights.iter().zip(weights) {
            weight.store(*now, Ordering::Relaxed);
        }
    }

    fn weight(&self, region: usize) -> u32 {
        self.weights.get(region).map_or(REGION_WEIGHT, |weight| weight.load(Ordering::Relaxed))
    }

    /// Takes in what a region measured.
    pub fn record(&self, region: usize, samples: &[Sample], now_s: u64) {
        for some in samples.chunks(SAMPLES_MAX) {
            let mut table = self.table.write();
            for sample in some {
                table.record_mean(sample.network, region, sample.round_trip, sample.connections, now_s);
            }
        }
    }

    /// Takes in what frontends of the region measured in which this process stands.
    pub fn record_own(&self, samples: &[Sample], now_s: u64) {
        self.record(self.own, samples, now_s);
    }

    /// What this region measured since `since_s`, for the others.
    pub fn reports(&self, since_s: u64) -> Vec<RoundTripReport> {
        let Some(name) = self.names.get(self.own) else { return Vec::new() };
        report::reports(&self.table.read(), self.own, name, since_s)
    }

    /// Takes in what another region reports. What is of a region that this process does not know is passed over, and what
    /// claims to be of its own is, too: its frontends tell that themselves.
    ///
    /// # Errors
    /// When the report cannot be read.
    pub fn merge(&self, report: &RoundTripReport, now_s: u64) -> Result<(), ReportError> {
        match self.names.iter().position(|name| *name == report.region) {
            Some(region) if region != self.own => report::merge(report, &mut self.table.write(), region, now_s),
            _ => Ok(()),
        }
    }

    /// Writes the measurements to a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &std::path::Path) -> Result<(), SavedError> {
        let body = {
            let table = self.table.read();
            metrics::gauge!("postrider_dns_prefixes").set(table.len() as f64);
            saved::encode(&table, &self.names)
        };
        // Without the lock: a slow disk must not hold up answers.
        saved::write(&body, path)
    }

    /// Orders the regions of `allowed` for a client's network, of which `length` bits are known.
    pub fn choose(&self, client: IpAddr, length: u8, allowed: RegionSet, now_s: u64) -> Choice {
        let allowed = allowed.and(RegionSet::first(self.names.len()));
        let not_drained: RegionSet = allowed.iter().filter(|region| self.weight(*region) > 0).collect();
        let healthy = not_drained.and(self.health.regions());
        // While nobody serves, those that are there are the better guess: what all of them wait for comes back to all of them.
        let there = not_drained.and(self.there.regions());
        // Where leaving out would leave nobody, it is not done: first health is ignored, then weights.
        let candidates =
            [healthy, there, not_drained, allowed].into_iter().find(|set| !set.is_empty()).unwrap_or(RegionSet::NONE);
        let network = Prefix::new(client, length);
        let network = network.truncated(network.finest());
        let inherited = self.inherited.read().clone();
        let estimates = self.table.read().estimate(network, &inherited, now_s);
        let distance = |region: usize| {
            let weight = self.weight(region).max(1) as f32 / REGION_WEIGHT as f32;
            estimates.round_trip_us[region] / weight
        };
        let mut order: Vec<usize> = candidates.iter().collect();
        order.sort_by(|one, other| distance(*one).total_cmp(&distance(*other)).then(one.cmp(other)));
        if let Some(drawn) = self.draw_exploration()
            && let Some(&nearest) = order.first()
        {
            let worth_it = |region: &usize| {
                estimates.evidence[*region] < EXPLORED_EVIDENCE_MAX
                    || distance(*region) < distance(nearest) * EXPLORED_FACTOR_MAX
            };
            let others: Vec<usize> = (1..order.len()).filter(|at| worth_it(&order[*at])).collect();
            if !others.is_empty() {
                // The remainder is below the length.
                let at = others[(drawn % others.len() as u64) as usize];
                order[..=at].rotate_right(1);
            }
        }
        Choice { order, scope: estimates.scope }
    }

    /// For one of [`EXPLORED_ONE_IN`] answers, a number to choose by.
    fn draw_exploration(&self) -> Option<u64> {
        let turn = self.explored.fetch_add(1, Ordering::Relaxed);
        let drawn = mixed(self.seed.wrapping_add(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        drawn.is_multiple_of(EXPLORED_ONE_IN).then_some(drawn / EXPLORED_ONE_IN)
    }
}

/// SplitMix64's finish: neighbours come out as if drawn by chance.
fn mixed(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Regions as tests have them.
    pub(crate) fn regions() -> Vec<Region> {
        ["seoul", "virginia", "frankfurt"]
            .iter()
            .enumerate()
            .map(|(at, name)| Region {
                name: (*name).into(),
                addresses: vec![
                    format!("192.0.2.{}", at + 1).parse().unwrap(),
                    format!("2001:db8::{}", at + 1).parse().unwrap(),
                ],
                mail_host: format!("mx-{name}.example.org"),
                ns_host: format!("ns-{name}.example.org"),
                ns_addresses: vec![format!("192.0.2.{}", at + 101).parse().unwrap()],
                outgoing: Vec::new(),
                tlsa: vec![Tlsa::dane_ee(name.as_bytes())],
            })
            .collect()
    }

    use crate::region::Tlsa;

    const CLIENT: &str = "198.51.100.1";

    fn first_choices(chooser: &Chooser, count: usize) -> Vec<usize> {
        let client = CLIENT.parse().unwrap();
        (0..count).map(|_| chooser.choose(client, 32, RegionSet::first(3), 0).order[0]).collect()
    }

    fn share(choices: &[usize], region: usize) -> f64 {
        choices.iter().filter(|choice| **choice == region).count() as f64 / choices.len() as f64
    }

    #[test]
    fn the_own_region_is_nearest_until_something_was_measured() {
        let chooser = Chooser::new(&regions(), 1, Table::new(1000), 7);
        let peers = [Some(Duration::from_millis(180)), None, Some(Duration::from_millis(90))];
        chooser.set_peers(&peers);
        assert_eq!(chooser.choose(CLIENT.parse().unwrap(), 32, RegionSet::first(3), 0).order, [1, 2, 0]);
    }

    #[test]
    fn a_named_share_explores_and_the_same_seed_does_it_alike() {
        let one = first_choices(&Chooser::new(&regions(), 0, Table::new(1000), 7), 3200);
        let same = first_choices(&Chooser::new(&regions(), 0, Table::new(1000), 7), 3200);
        let other = first_choices(&Chooser::new(&regions(), 0, Table::new(1000), 8), 3200);
        assert_eq!(one, same);
        assert_ne!(one, other);
        let explored = 1.0 - share(&one, 0);
        assert!((0.02..0.045).contains(&explored), "{explored}");
    }

    #[test]
    fn what_is_known_to_be_far_is_not_tried_again() {
        let chooser = Chooser::new(&regions(), 0, Table::new(1000), 7);
        for (region, ms) in [(0, 10), (1, 150), (2, 200)] {
            let sample = Sample::of(CLIENT.parse().unwrap(), Duration::from_millis(ms));
            chooser.record(region, &[sample; 20], 0);
        }
        assert_eq!(share(&first_choices(&chooser, 2000), 0), 1.0);
    }

    #[test]
    fn weights_make_a_region_seem_farther_and_zero_drains_it() {
        let chooser = Chooser::new(&regions(), 0, Table::new(1000), 7);
        chooser.set_weights(&[0, 100, 100]);
        assert_eq!(share(&first_choices(&chooser, 500), 0), 0.0, "not even to explore");
        let only: RegionSet = [0].into_iter().collect();
        assert_eq!(chooser.choose(CLIENT.parse().unwrap(), 32, only, 0).order, [0], "better than nobody");
    }

    #[test]
    fn the_dead_are_left_out_unless_all_are() {
        let chooser = Chooser::new(&regions(), 0, Table::new(1000), 7);
        for second in 0..2 {
            chooser.report(0, Seen::Nothing, Duration::from_secs(second));
        }
        assert_eq!(share(&first_choices(&chooser, 500), 0), 0.0);
        for second in 0..2 {
            chooser.report(1, Seen::Answers, Duration::from_secs(second));
            chooser.report(2, Seen::Answers, Duration::from_secs(second));
        }
        assert_eq!(share(&first_choices(&chooser, 500), 0), 0.0, "who is there and waits, before who is gone");
        for second in 2..4 {
            chooser.report(1, Seen::Nothing, Duration::from_secs(second));
            chooser.report(2, Seen::Nothing, Duration::from_secs(second));
        }
        assert_eq!(chooser.choose(CLIENT.parse().unwrap(), 32, RegionSet::first(3), 0).order.len(), 3);
    }
}
