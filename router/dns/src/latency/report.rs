//! What regions tell each other of their measurements.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::prefix::Prefix;
use super::table::{EVIDENCE_MAX, Measured, ROUND_TRIP_MAX, Table};

/// Entries that one report may have; who measured more sends several.
pub const REPORT_ENTRIES_MAX: usize = 10_000;

/// What one region measured of networks. Only its own measurements: each region's column of the table has one author.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Report {
    /// The region that measured.
    #[prost(string, tag = "1")]
    pub region: String,
    /// At most [`REPORT_ENTRIES_MAX`].
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<Entry>,
}

/// One prefix.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// The network's address, 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub network: Vec<u8>,
    /// Its length, one of those that are kept.
    #[prost(uint32, tag = "2")]
    pub length: u32,
    /// Microseconds there and back, in the mean.
    #[prost(uint32, tag = "3")]
    pub mean_us: u32,
    /// A thousandth of a measurement each.
    #[prost(uint32, tag = "4")]
    pub weight_thousandths: u32,
    /// Seconds since the Unix epoch of the last one.
    #[prost(uint64, tag = "5")]
    pub at_s: u64,
}

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

impl Report {
    /// What a region measured since `since_s`, newest measurements of each prefix, in reports of bounded size.
    pub fn of(table: &Table, region: usize, name: &str, since_s: u64) -> Vec<Report> {
        let entries: Vec<Entry> = table
            .measured_of(region)
            .into_iter()
            .filter(|(_, measured)| measured.at_s >= since_s)
            .map(|(prefix, measured)| Entry::new(prefix, &measured))
            .collect();
        entries
            .chunks(REPORT_ENTRIES_MAX)
            .map(|entries| Report { region: name.to_owned(), entries: entries.to_vec() })
            .collect()
    }

    /// Takes a report into the table, as what `region` measured. All of it or nothing.
    ///
    /// # Errors
    /// When an entry is none; the table is as it was.
    pub fn merge_into(&self, table: &mut Table, region: usize, now_s: u64) -> Result<(), ReportError> {
        if self.entries.len() > REPORT_ENTRIES_MAX {
            return Err(ReportError::TooMany { count: self.entries.len() });
        }
        let read = |(at, entry): (usize, &Entry)| entry.read(at, now_s);
        let entries: Vec<_> = self.entries.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        entries.into_iter().for_each(|(prefix, measured)| table.replace(prefix, region, measured));
        Ok(())
    }
}

impl Entry {
    fn new(prefix: Prefix, measured: &Measured) -> Self {
        let network = match prefix.address() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        Self {
            network,
            length: prefix.length().into(),
            // Both are bounded by the table, and a cast of a float saturates.
            mean_us: measured.mean_us.round() as u32,
            weight_thousandths: (measured.weight * 1000.0).round() as u32,
            at_s: measured.at_s,
        }
    }

    fn read(&self, at: usize, now_s: u64) -> Result<(Prefix, Measured), ReportError> {
        let address = match self.network.len() {
            4 => self.network.as_slice().try_into().ok().map(|bytes: [u8; 4]| IpAddr::V4(Ipv4Addr::from(bytes))),
            16 => self.network.as_slice().try_into().ok().map(|bytes: [u8; 16]| IpAddr::V6(Ipv6Addr::from(bytes))),
            _ => None,
        };
        let Some(address) = address else { return Err(ReportError::NoAddress { at, length: self.network.len() }) };
        let not_kept = ReportError::NotKept { at, length: self.length };
        let Ok(length) = u8::try_from(self.length) else { return Err(not_kept) };
        let prefix = Prefix::new(address, length);
        if prefix.length() != length || !prefix.levels().contains(&length) {
            return Err(not_kept);
        }
        let mean_us = (self.mean_us as f32).min(ROUND_TRIP_MAX.as_micros() as f32);
        let weight = (self.weight_thousandths as f32 / 1000.0).min(EVIDENCE_MAX);
        // A clock that is ahead must not keep later measurements out.
        Ok((prefix, Measured { mean_us, weight, at_s: self.at_s.min(now_s) }))
    }
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
        let reports = Report::of(&seoul, 1, "seoul", 0);
        let mut virginia = Table::new(1000);
        for report in &reports {
            report.merge_into(&mut virginia, 1, 60).unwrap();
        }
        assert_eq!(seoul.measured_of(1), virginia.measured_of(1));
        assert!(Report::of(&seoul, 1, "seoul", 51).is_empty(), "nothing is newer");
        assert!(Report::of(&seoul, 0, "virginia", 0).is_empty());
    }

    #[test]
    fn a_report_is_taken_whole_or_not_at_all() {
        let good = Entry { network: vec![10, 0, 0, 0], length: 8, mean_us: 1, weight_thousandths: 1000, at_s: 1 };
        let mut table = Table::new(1000);
        for (bad, error) in [
            (Entry { network: vec![1, 2, 3], ..good.clone() }, ReportError::NoAddress { at: 1, length: 3 }),
            (Entry { length: 9, ..good.clone() }, ReportError::NotKept { at: 1, length: 9 }),
            (Entry { length: 264, ..good.clone() }, ReportError::NotKept { at: 1, length: 264 }),
            (Entry { length: 48, ..good.clone() }, ReportError::NotKept { at: 1, length: 48 }),
        ] {
            let report = Report { region: "x".into(), entries: vec![good.clone(), bad] };
            assert_eq!(report.merge_into(&mut table, 0, 10), Err(error));
            assert!(table.is_empty());
        }
        let ahead = Report { region: "x".into(), entries: vec![Entry { at_s: 1_000_000, ..good }] };
        ahead.merge_into(&mut table, 0, 10).unwrap();
        assert_eq!(table.measured_of(0)[0].1.at_s, 10);
    }
}
