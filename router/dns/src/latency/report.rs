//! What regions tell each other of their measurements.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postrider_api::pb::{RoundTripEntry, RoundTripReport};

use super::prefix::Prefix;
use super::table::{EVIDENCE_MAX, Measured, ROUND_TRIP_MAX, Table};

/// Entries that one report may have; who measured more sends several.
pub const REPORT_ENTRIES_MAX: usize = 10_000;

/// A report that cannot be taken in, with the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// More entries than one report may have.
    #[error("entries: {count} of at most {REPORT_ENTRIES_MAX}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A network that is none.
    #[error("entries[{at}].network: {length} bytes are no address")]
    NoAddress {
        /// Which entry.
        at: usize,
        /// Its length in bytes.
        length: usize,
    },
    /// A prefix of a length that is not kept.
    #[error("entries[{at}].length: /{length} is not kept")]
    NotKept {
        /// Which entry.
        at: usize,
        /// Its length in bits.
        length: u32,
    },
}

/// What a region measured since `since_s`, newest measurements of each prefix, in reports of bounded size.
pub fn reports(table: &Table, region: usize, name: &str, since_s: u64) -> Vec<RoundTripReport> {
    let entries: Vec<RoundTripEntry> = table
        .measured_of(region)
        .into_iter()
        .filter(|(_, measured)| measured.at_s >= since_s)
        .map(|(prefix, measured)| entry(prefix, &measured))
        .collect();
    entries
        .chunks(REPORT_ENTRIES_MAX)
        .map(|entries| RoundTripReport { region: name.to_owned(), entries: entries.to_vec() })
        .collect()
}

/// Takes a report into the table, as what `region` measured. All of it or nothing.
///
/// # Errors
/// When an entry is none; the table is as it was.
pub fn merge(report: &RoundTripReport, table: &mut Table, region: usize, now_s: u64) -> Result<(), ReportError> {
    check_count(report.entries.len())?;
    let read = |(at, entry): (usize, &RoundTripEntry)| read(entry, at, now_s);
    let entries: Vec<_> = report.entries.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    entries.into_iter().for_each(|(prefix, measured)| table.replace(prefix, region, measured));
    Ok(())
}

/// Refuses more than one message may have.
pub(super) fn check_count(count: usize) -> Result<(), ReportError> {
    if count > REPORT_ENTRIES_MAX { Err(ReportError::TooMany { count }) } else { Ok(()) }
}

/// A network's address as messages have it.
pub(super) fn network(prefix: Prefix) -> Vec<u8> {
    match prefix.address() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The prefix that entry `at` of a message names, of a length that is kept.
pub(super) fn prefix(network: &[u8], bits: u32, at: usize) -> Result<Prefix, ReportError> {
    let address = match network.len() {
        4 => network.try_into().ok().map(|bytes: [u8; 4]| IpAddr::V4(Ipv4Addr::from(bytes))),
        16 => network.try_into().ok().map(|bytes: [u8; 16]| IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    };
    let Some(address) = address else { return Err(ReportError::NoAddress { at, length: network.len() }) };
    let not_kept = ReportError::NotKept { at, length: bits };
    let Ok(length) = u8::try_from(bits) else { return Err(not_kept) };
    let prefix = Prefix::new(address, length);
    if prefix.length() == length && prefix.levels().contains(&length) { Ok(prefix) } else { Err(not_kept) }
}

fn entry(prefix: Prefix, measured: &Measured) -> RoundTripEntry {
    RoundTripEntry {
        network: network(prefix).into(),
        length: prefix.length().into(),
        // Both are bounded by the table, and a cast of a float saturates.
        mean_us: measured.mean_us.round() as u32,
        weight_thousandths: (measured.weight * 1000.0).round() as u32,
        at_s: measured.at_s,
    }
}

fn read(entry: &RoundTripEntry, at: usize, now_s: u64) -> Result<(Prefix, Measured), ReportError> {
    let prefix = prefix(&entry.network, entry.length, at)?;
    let mean_us = (entry.mean_us as f32).min(ROUND_TRIP_MAX.as_micros() as f32);
    let weight = (entry.weight_thousandths as f32 / 1000.0).min(EVIDENCE_MAX);
    // A clock that is ahead must not keep later measurements out.
    Ok((prefix, Measured { mean_us, weight, at_s: entry.at_s.min(now_s) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_region_learns_what_another_measured() {
        let mut seoul = Table::new(1000);
        let network = Prefix::of_client("198.51.100.1".parse().unwrap());
        let six = Prefix::of_client("2001:db8::1".parse().unwrap());
        for prefix in [network, six] {
            (0..8).for_each(|_| seoul.record(prefix, 1, Duration::from_millis(30), 50));
        }
        let reports = super::reports(&seoul, 1, "seoul", 0);
        let mut virginia = Table::new(1000);
        for report in &reports {
            merge(report, &mut virginia, 1, 60).unwrap();
        }
        assert_eq!(seoul.measured_of(1), virginia.measured_of(1));
        assert!(super::reports(&seoul, 1, "seoul", 51).is_empty(), "nothing is newer");
        assert!(super::reports(&seoul, 0, "virginia", 0).is_empty());
    }

    #[test]
    fn a_report_is_taken_whole_or_not_at_all() {
        let good = RoundTripEntry {
            network: vec![10, 0, 0, 0].into(),
            length: 8,
            mean_us: 1,
            weight_thousandths: 1000,
            at_s: 1,
        };
        let mut table = Table::new(1000);
        for (bad, error) in [
            (
                RoundTripEntry { network: vec![1, 2, 3].into(), ..good.clone() },
                ReportError::NoAddress { at: 1, length: 3 },
            ),
            (RoundTripEntry { length: 9, ..good.clone() }, ReportError::NotKept { at: 1, length: 9 }),
            (RoundTripEntry { length: 264, ..good.clone() }, ReportError::NotKept { at: 1, length: 264 }),
            (RoundTripEntry { length: 48, ..good.clone() }, ReportError::NotKept { at: 1, length: 48 }),
        ] {
            let report = RoundTripReport { region: "x".into(), entries: vec![good.clone(), bad] };
            assert_eq!(merge(&report, &mut table, 0, 10), Err(error));
            assert!(table.is_empty());
        }
        let ahead = RoundTripReport { region: "x".into(), entries: vec![RoundTripEntry { at_s: 1_000_000, ..good }] };
        merge(&ahead, &mut table, 0, 10).unwrap();
        assert_eq!(table.measured_of(0)[0].1.at_s, 10);
    }
}
