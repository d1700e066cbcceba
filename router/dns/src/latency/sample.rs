//! Round trips as frontends measure them, on their way into the table.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use postrider_api::pb::{MeasuredNetwork, RecordRoundTrips};

use super::prefix::Prefix;
use super::report::{ReportError, check_count, network, prefix};
use super::table::ROUND_TRIP_MAX;

/// Networks that a frontend gathers between two messages; more are not counted until the next.
pub const GATHERED_NETWORKS_MAX: usize = 10_000;

/// What was measured of connections of one network together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The network.
    pub network: Prefix,
    /// There and back, in the mean, as the kernel has it of each connection (`TCP_INFO`).
    pub round_trip: Duration,
    /// How many connections.
    pub connections: u32,
}

impl Sample {
    /// Of one connection.
    pub fn of(client: IpAddr, round_trip: Duration) -> Self {
        Self { network: Prefix::of_client(client), round_trip, connections: 1 }
    }
}

/// Reads what a frontend tells.
///
/// # Errors
/// When a network is none, or there are too many.
pub fn samples(record: &RecordRoundTrips) -> Result<Vec<Sample>, ReportError> {
    check_count(record.networks.len())?;
    let read = |(at, measured): (usize, &MeasuredNetwork)| {
        Ok(Sample {
            network: prefix(&measured.network, measured.length, at)?,
            round_trip: Duration::from_micros(measured.mean_us.into()),
            connections: measured.connections,
        })
    };
    record.networks.iter().enumerate().map(read).collect()
}

/// What a frontend measured since it told last.
#[derive(Debug, Default)]
pub struct Gathered {
    /// By network: microseconds of all its connections, and how many these are.
    networks: HashMap<Prefix, (u64, u32)>,
}

impl Gathered {
    /// Counts a connection. Returns whether there was room for it.
    pub fn add(&mut self, client: IpAddr, round_trip: Duration) -> bool {
        let network = Prefix::of_client(client);
        if self.networks.len() >= GATHERED_NETWORKS_MAX && !self.networks.contains_key(&network) {
            return false;
        }
        let (sum_us, connections) = self.networks.entry(network).or_default();
        // Four seconds at most: it fits.
        *sum_us += round_trip.min(ROUND_TRIP_MAX).as_micros() as u64;
        *connections = connections.saturating_add(1);
        true
    }

    /// Takes all of it, as `region` tells it; `None`: nothing was measured.
    pub fn take(&mut self, region: &str) -> Option<RecordRoundTrips> {
        if self.networks.is_empty() {
            return None;
        }
        let measured = |(prefix, (sum_us, connections)): (Prefix, (u64, u32))| MeasuredNetwork {
            network: network(prefix).into(),
            length: prefix.length().into(),
            mean_us: u32::try_from(sum_us / u64::from(connections.max(1))).unwrap_or(u32::MAX),
            connections,
        };
        let networks = std::mem::take(&mut self.networks).into_iter().map(measured).collect();
        Some(RecordRoundTrips { region: region.to_owned(), networks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_a_network_are_told_together() {
        let mut gathered = Gathered::default();
        assert_eq!(gathered.take("seoul"), None);
        for (client, ms) in
            [("198.51.100.1", 10), ("198.51.100.9", 30), ("2001:db8::1", 5), ("::ffff:198.51.100.7", 20)]
        {
            assert!(gathered.add(client.parse().unwrap(), Duration::from_millis(ms)));
        }
        let record = gathered.take("seoul").unwrap();
        assert_eq!(record.region, "seoul");
        let mut told = samples(&record).unwrap();
        told.sort_by_key(|sample| sample.connections);
        let six = Sample::of("2001:db8::1".parse().unwrap(), Duration::from_millis(5));
        let four = Sample { connections: 3, ..Sample::of("198.51.100.1".parse().unwrap(), Duration::from_millis(20)) };
        assert_eq!(told, [six, four]);
        assert_eq!(gathered.take("seoul"), None, "told once");
    }

    #[test]
    fn what_is_gathered_is_bounded() {
        let mut gathered = Gathered::default();
        let client = |number: usize| IpAddr::V4(u32::try_from(number << 8).unwrap().into());
        for number in 0..GATHERED_NETWORKS_MAX {
            assert!(gathered.add(client(number), Duration::ZERO));
        }
        assert!(!gathered.add(client(GATHERED_NETWORKS_MAX), Duration::ZERO));
        assert!(gathered.add(client(0), Duration::ZERO), "one that is there goes on");
        let mut record = gathered.take("seoul").unwrap();
        assert_eq!(samples(&record).unwrap().len(), GATHERED_NETWORKS_MAX);
        record.networks.push(record.networks[0].clone());
        assert!(samples(&record).is_err());
        record.networks.truncate(1);
        record.networks[0].length = 25;
        assert_eq!(samples(&record), Err(ReportError::NotKept { at: 0, length: 25 }));
    }
}
