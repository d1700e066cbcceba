//! The table of round trips: a trie of prefixes whose nodes hold, for each region, a mean that decays.

use std::collections::HashMap;
use std::time::Duration;

use super::prefix::Prefix;

/// Prefixes that are kept unless said otherwise: some 200 bytes each with three regions.
pub const PREFIXES_MAX: usize = 200_000;
/// What was measured counts half after this long.
pub const HALF_LIFE: Duration = Duration::from_secs(6 * 3600);
/// However much was measured, it weighs no more than this many measurements: a network that moved is believed after as many.
pub const EVIDENCE_MAX: f32 = 64.0;
/// Measurements that what is inherited counts as, beside those of the prefix itself.
const INHERITED_WEIGHT: f32 = 1.0;
/// No path on this planet is longer; what claims to be was a host that slept.
pub const ROUND_TRIP_MAX: Duration = Duration::from_secs(4);
/// When it is full, so much of it goes at once: the share that was measured longest ago.
const EVICTED_SHARE: usize = 8;

/// What is known of the way between a network and a region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Microseconds there and back.
    pub mean_us: f32,
    /// Measurements that stand behind it, decayed to `at_s`.
    pub weight: f32,
    /// Seconds since the Unix epoch of the last one.
    pub at_s: u64,
}

impl Measured {
    /// Its weight at a later moment.
    pub fn weight_at(&self, now_s: u64) -> f32 {
        let halves = now_s.saturating_sub(self.at_s) as f32 / HALF_LIFE.as_secs() as f32;
        self.weight * (-halves).exp2()
    }

    fn add(&mut self, round_trip_us: f32, count: f32, now_s: u64) {
        let weight = self.weight_at(now_s).min(EVIDENCE_MAX - count);
        self.mean_us = (self.mean_us * weight + round_trip_us * count) / (weight + count);
        self.weight = weight + count;
        self.at_s = self.at_s.max(now_s);
    }
}

/// What a network may expect of each region.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimates {
    /// Microseconds to each region, in the configured order.
    pub round_trip_us: Vec<f32>,
    /// Measurements at the finest prefix that has any for the region; 0: all is inherited from what regions measure among
    /// themselves.
    pub evidence: Vec<f32>,
    /// All networks that share so many bits with the one that was asked for get the same estimates (RFC 7871's scope).
    pub scope: u8,
}

#[derive(Debug, Default)]
struct Node {
    /// By region; few of them.
    measured: Vec<(u8, Measured)>,
    /// Finer prefixes right below.
    children: u32,
}

impl Node {
    fn last_s(&self) -> u64 {
        self.measured.iter().map(|(_, measured)| measured.at_s).max().unwrap_or(0)
    }

    fn measured_mut(&mut self, region: u8) -> Option<&mut Measured> {
        self.measured.iter_mut().find(|(known, _)| *known == region).map(|(_, measured)| measured)
    }
}

/// The table. Invariant: where a prefix is, all coarser ones around it are.
#[derive(Debug)]
pub struct Table {
    nodes: HashMap<Prefix, Node>,
    /// Prefixes of the coarsest length of either family.
    roots: [u32; 2],
    prefixes_max: usize,
}

impl Table {
    /// An empty table of at most `prefixes_max` prefixes.
    pub fn new(prefixes_max: usize) -> Self {
        Self { nodes: HashMap::new(), roots: [0; 2], prefixes_max: prefixes_max.max(64) }
    }

    /// Prefixes in it.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing was measured yet.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Takes in one measurement of a region, at its prefix and at every coarser one.
    pub fn record(&mut self, network: Prefix, region: usize, round_trip: Duration, now_s: u64) {
        self.record_mean(network, region, round_trip, 1, now_s);
    }

    /// Takes in the mean of so many.
    pub fn record_mean(&mut self, network: Prefix, region: usize, round_trip: Duration, count: u32, now_s: u64) {
        let Ok(region) = u8::try_from(region) else { return };
        if count == 0 {
            return;
        }
        let count = (count as f32).min(EVIDENCE_MAX);
        let round_trip_us = round_trip.min(ROUND_TRIP_MAX).as_micros() as f32;
        for &level in network.levels() {
            if level > network.length() {
                break;
            }
            let node = self.node(network.truncated(level));
            match node.measured_mut(region) {
                Some(measured) => measured.add(round_trip_us, count, now_s),
                None => node.measured.push((region, Measured { mean_us: round_trip_us, weight: count, at_s: now_s })),
            }
        }
        self.evict();
    }

    /// Takes in what another process measured of a prefix and a region, in place of what is known, unless that is newer.
    /// Prefixes of lengths that are not kept are passed over.
    pub fn replace(&mut self, network: Prefix, region: usize, measured: Measured) {
        let Ok(region) = u8::try_from(region) else { return };
        if !network.levels().contains(&network.length()) {
            return;
        }
        for &level in network.levels() {
            if level >= network.length() {
                break;
            }
            self.node(network.truncated(level));
        }
        let node = self.node(network);
        match node.measured_mut(region) {
            // Equal moments: the same report once more, or one that went on counting within the second.
            Some(known) if (known.at_s, known.weight) >= (measured.at_s, measured.weight) => {}
            Some(known) => *known = measured,
            None => node.measured.push((region, measured)),
        }
        self.evict();
    }

    /// What a network may expect of each region, from `inherited`: microseconds from the region that was asked to each.
    pub fn estimate(&self, network: Prefix, inherited: &[f32], now_s: u64) -> Estimates {
        let mut round_trip_us = inherited.to_vec();
        let mut evidence = vec![0.0; inherited.len()];
        let mut children = self.roots[usize::from(network.address().is_ipv6())];
        let mut scope = 0;
        for &level in network.levels() {
            if children == 0 {
                break;
            }
            // Somebody was measured in here: whether this network is among them, so many bits decide.
            scope = level;
            let node = if level <= network.length() { self.nodes.get(&network.truncated(level)) } else { None };
            let Some(node) = node else { break };
            for (region, measured) in &node.measured {
                let region = usize::from(*region);
                let Some(estimate) = round_trip_us.get_mut(region) else { continue };
                let weight = measured.weight_at(now_s);
                *estimate = (measured.mean_us * weight + *estimate * INHERITED_WEIGHT) / (weight + INHERITED_WEIGHT);
                evidence[region] = weight;
            }
            children = node.children;
        }
        Estimates { round_trip_us, evidence, scope }
    }

    /// Every prefix with what is known of it for a region, in the order of prefixes.
    pub fn measured_of(&self, region: usize) -> Vec<(Prefix, Measured)> {
        let of_region = |node: &Node| {
            node.measured.iter().find(|(known, _)| usize::from(*known) == region).map(|(_, measured)| *measured)
        };
        let mut found: Vec<_> =
            self.nodes.iter().filter_map(|(prefix, node)| Some((*prefix, of_region(node)?))).collect();
        found.sort_by_key(|(prefix, _)| *prefix);
        found
    }

    /// The node of a prefix of a kept length, whose coarser ones are there.
    fn node(&mut self, prefix: Prefix) -> &mut Node {
        if !self.nodes.contains_key(&prefix) {
            let levels = prefix.levels();
            let at = levels.iter().position(|level| *level == prefix.length()).unwrap_or(0);
            match at.checked_sub(1).and_then(|above| self.nodes.get_mut(&prefix.truncated(levels[above]))) {
                Some(parent) => parent.children += 1,
                None => self.roots[usize::from(prefix.address().is_ipv6())] += 1,
            }
        }
        self.nodes.entry(prefix).or_default()
    }

    /// Where it has grown too large, the childless prefixes that were measured longest ago go; what they taught stays in the
    /// coarser ones.
    fn evict(&mut self) {
        while self.nodes.len() > self.prefixes_max {
            let mut childless: Vec<_> = self
                .nodes
                .iter()
                .filter(|(_, node)| node.children == 0)
                .map(|(prefix, node)| (node.last_s(), *prefix))
                .collect();
            let count = (self.prefixes_max / EVICTED_SHARE).clamp(1, childless.len());
            childless.select_nth_unstable(count - 1);
            childless.truncate(count);
            for (_, prefix) in childless {
                self.nodes.remove(&prefix);
                let levels = prefix.levels();
                let at = levels.iter().position(|level| *level == prefix.length()).unwrap_or(0);
                match at.checked_sub(1).and_then(|above| self.nodes.get_mut(&prefix.truncated(levels[above]))) {
                    Some(parent) => parent.children -= 1,
                    None => self.roots[usize::from(prefix.address().is_ipv6())] -= 1,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    const MS: f32 = 1000.0;

    fn client(text: &str) -> Prefix {
        Prefix::of_client(text.parse().unwrap())
    }

    #[test]
    fn what_was_measured_wins_over_what_is_inherited() {
        let mut table = Table::new(1000);
        let inherited = [5.0 * MS, 80.0 * MS];
        let asked = client("198.51.100.7");
        assert_eq!(table.estimate(asked, &inherited, 0).round_trip_us, inherited);
        for _ in 0..20 {
            table.record(asked, 0, Duration::from_millis(120), 10);
            table.record(asked, 1, Duration::from_millis(10), 10);
        }
        let found = table.estimate(asked, &inherited, 10);
        assert!((found.round_trip_us[0] - 120.0 * MS).abs() < 7.0 * MS, "{found:?}");
        assert!((found.round_trip_us[1] - 10.0 * MS).abs() < 5.0 * MS, "{found:?}");
        assert_eq!(found.scope, 24);
    }

    #[test]
    fn a_network_that_nobody_measured_gets_what_its_neighbours_get() {
        let mut table = Table::new(1000);
        for neighbour in 0..10 {
            let network = client(&format!("198.51.{neighbour}.1"));
            table.record(network, 1, Duration::from_millis(10), 10);
        }
        let found = table.estimate(client("198.51.200.1"), &[5.0 * MS, 80.0 * MS], 10);
        assert!(found.round_trip_us[1] < 12.0 * MS, "{found:?}");
        assert_eq!(found.scope, 20, "its /20 has nobody; another /20 of the /16 has");
        let far = table.estimate(client("10.1.1.1"), &[5.0 * MS, 80.0 * MS], 10);
        assert_eq!((far.round_trip_us[1], far.scope), (80.0 * MS, 8));
    }

    #[test]
    fn a_short_subnet_is_told_that_a_longer_one_would_get_more() {
        let mut table = Table::new(1000);
        table.record(client("198.51.100.1"), 0, Duration::from_millis(10), 10);
        let short = Prefix::new("198.51.0.0".parse().unwrap(), 16);
        assert_eq!(table.estimate(short, &[MS], 10).scope, 20);
        let none = Prefix::new("0.0.0.0".parse().unwrap(), 0);
        assert_eq!(table.estimate(none, &[MS], 10).scope, 8);
    }

    #[test]
    fn old_measurements_fade() {
        let mut table = Table::new(1000);
        let network = client("198.51.100.1");
        for _ in 0..64 {
            table.record(network, 0, Duration::from_millis(10), 0);
        }
        let day = 24 * 3600;
        let fresh = table.estimate(network, &[100.0 * MS], 0).round_trip_us[0];
        let after_days = table.estimate(network, &[100.0 * MS], 10 * day).round_trip_us[0];
        assert!(fresh < 12.0 * MS && after_days > 99.0 * MS, "{fresh} {after_days}");
    }

    #[test]
    fn a_network_that_moved_is_believed_soon() {
        let mut table = Table::new(1000);
        let network = client("198.51.100.1");
        for _ in 0..10_000 {
            table.record(network, 0, Duration::from_millis(10), 0);
        }
        for _ in 0..200 {
            table.record(network, 0, Duration::from_millis(200), 60);
        }
        assert!(table.estimate(network, &[100.0 * MS], 60).round_trip_us[0] > 180.0 * MS);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bound_and_scopes_are_honest(
            seen in proptest::collection::vec((any::<u32>(), 0usize..4, 1u64..500), 1..400),
            asked: u32,
        ) {
            let mut table = Table::new(64);
            for (at, (address, region, ms)) in seen.iter().enumerate() {
                // A small world, so that networks meet.
                let address = IpAddr::V4(Ipv4Addr::from_bits(address & 0x0303_0fff));
                table.record(Prefix::of_client(address), *region, Duration::from_millis(*ms), at as u64);
                prop_assert!(table.len() <= 64);
            }
            for (prefix, _) in (0..4).flat_map(|region| table.measured_of(region)) {
                for &level in prefix.levels() {
                    prop_assert!(level > prefix.length() || table.nodes.contains_key(&prefix.truncated(level)));
                }
            }
            let inherited = [1.0, 2.0, 3.0, 4.0];
            let network = Prefix::of_client(IpAddr::V4(Ipv4Addr::from_bits(asked & 0x0303_0fff)));
            let found = table.estimate(network, &inherited, 1000);
            // Everybody within the scope gets the same.
            for other in (0..16u32).map(|low| Ipv4Addr::from_bits((asked & 0x0303_0000) | low << 8)) {
                let other = Prefix::of_client(IpAddr::V4(other));
                if other.truncated(found.scope) == network.truncated(found.scope) {
                    prop_assert_eq!(&table.estimate(other, &inherited, 1000), &found);
                }
            }
        }

        #[test]
        fn reports_may_come_doubled_and_in_any_order(
            reports in proptest::collection::vec((0u32..16, 0usize..3, 1u64..100, 1u32..60), 1..60),
            order in any::<u64>(),
        ) {
            let entry = |(low, region, at_s, weight): &(u32, usize, u64, u32)| {
                let network = Prefix::of_client(IpAddr::V4(Ipv4Addr::from_bits(0xc633_0000 | low << 8)));
                // One region measures a prefix once at a moment and weight.
                let mean_us = (at_s * 64 + u64::from(*weight)) as f32;
                (network, *region, Measured { mean_us, weight: *weight as f32, at_s: *at_s })
            };
            let mut one = Table::new(1000);
            reports.iter().map(entry).for_each(|(network, region, measured)| one.replace(network, region, measured));
            let mut shuffled = reports.clone();
            shuffled.extend_from_slice(&reports);
            let length = shuffled.len();
            for at in 0..length {
                shuffled.swap(at, (order.wrapping_mul(at as u64 + 7) % length as u64) as usize);
            }
            let mut other = Table::new(1000);
            shuffled.iter().map(entry).for_each(|(network, region, measured)| other.replace(network, region, measured));
            for region in 0..3 {
                prop_assert_eq!(one.measured_of(region), other.measured_of(region));
            }
        }
    }
}
