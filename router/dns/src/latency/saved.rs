//! The table on disk, so that it survives a restart.
//!
//! Format: `PRLT`, the version (u32), the CRC-32C of the rest (u32), both big-endian; then one protobuf with a report of each
//! region. History: 1, the first.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use postrider_api::pb::RoundTripReport;
use prost::Message as _;

use super::report::{self, ReportError};
use super::table::Table;

const MAGIC: &[u8; 4] = b"PRLT";
const VERSION: u32 = 1;
/// Magic, version and checksum.
const HEAD_BYTES: usize = 12;
/// A file that is larger was not written by this.
const FILE_BYTES_MAX: u64 = 1 << 30;

#[derive(Clone, PartialEq, prost::Message)]
struct Saved {
    #[prost(message, repeated, tag = "1")]
    reports: Vec<RoundTripReport>,
}

/// Why a table was not saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The file could not be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is damaged, or something else.
    #[error("{path}: {detail}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A newer build wrote it.
    #[error("{path}: version {version} is newer than this build's {VERSION}")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// An entry is none.
    #[error("{path}: {error}")]
    Entry {
        /// Which file.
        path: PathBuf,
        /// Which entry.
        error: ReportError,
    },
}

/// The table as it is saved. `regions`: names in the configured order.
pub fn encode(table: &Table, regions: &[String]) -> Vec<u8> {
    let reports =
        regions.iter().enumerate().flat_map(|(region, name)| report::reports(table, region, name, 0)).collect();
    Saved { reports }.encode_to_vec()
}

/// Writes what [`encode`] gave, in place of the file that was there or not at all.
///
/// # Errors
/// When the file cannot be written; the old one is as it was.
pub fn write(body: &[u8], path: &Path) -> Result<(), SavedError> {
    let io = |error| SavedError::Io { path: path.to_owned(), error };
    let beside = path.with_extension("new");
    let mut file = File::create(&beside).map_err(io)?;
    file.write_all(MAGIC).map_err(io)?;
    file.write_all(&VERSION.to_be_bytes()).map_err(io)?;
    file.write_all(&crc32c::crc32c(body).to_be_bytes()).map_err(io)?;
    file.write_all(body).map_err(io)?;
    file.sync_all().map_err(io)?;
    std::fs::rename(&beside, path).map_err(io)
}

/// Reads what was saved into a table. `None`: there is no such file. What is of regions that are configured no more is passed
/// over.
///
/// # Errors
/// When the file cannot be read or is not whole.
pub fn load(path: &Path, regions: &[String], prefixes_max: usize, now_s: u64) -> Result<Option<Table>, SavedError> {
    let io = |error| SavedError::Io { path: path.to_owned(), error };
    let damaged = |detail: &str| SavedError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if length > FILE_BYTES_MAX {
        return Err(damaged("it is larger than any table"));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let mut table = Table::new(prefixes_max);
    for saved in decode(&bytes, path)?.reports {
        let Some(region) = regions.iter().position(|name| *name == saved.region) else { continue };
        report::merge(&saved, &mut table, region, now_s)
            .map_err(|error| SavedError::Entry { path: path.to_owned(), error })?;
    }
    Ok(Some(table))
}

fn decode(bytes: &[u8], path: &Path) -> Result<Saved, SavedError> {
    let damaged = |detail: &str| SavedError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
    let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| damaged("it is cut off"))?;
    let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if &head[..4] != MAGIC {
        return Err(damaged("it is no table of round trips"));
    }
    if number(4) > VERSION {
        return Err(SavedError::Newer { path: path.to_owned(), version: number(4) });
    }
    if number(8) != crc32c::crc32c(body) {
        return Err(damaged("its checksum is wrong"));
    }
    Saved::decode(body).map_err(|error| damaged(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::prefix::Prefix;
    use std::time::Duration;

    fn names() -> Vec<String> {
        vec!["seoul".into(), "virginia".into()]
    }

    #[test]
    fn it_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latency");
        assert!(load(&path, &names(), 1000, 10).unwrap().is_none());
        let mut table = Table::new(1000);
        for low in 0..50 {
            let network = Prefix::of_client(format!("198.51.{low}.1").parse().unwrap());
            table.record(network, low % 2, Duration::from_millis(low as u64 + 1), 10);
        }
        write(&encode(&table, &names()), &path).unwrap();
        let loaded = load(&path, &names(), 1000, 10).unwrap().unwrap();
        for region in 0..2 {
            assert_eq!(loaded.measured_of(region), table.measured_of(region));
        }
        let renamed = load(&path, &["virginia".into()], 1000, 10).unwrap().unwrap();
        assert_eq!(renamed.measured_of(0), table.measured_of(1), "by name, whatever its place");
    }

    #[test]
    fn damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latency");
        let mut table = Table::new(1000);
        table.record(Prefix::of_client("10.1.1.1".parse().unwrap()), 0, Duration::from_millis(1), 10);
        write(&encode(&table, &names()), &path).unwrap();
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            std::fs::write(&path, &bad).unwrap();
            assert!(load(&path, &names(), 1000, 10).is_err(), "byte {at}");
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(load(&path, &names(), 1000, 10).is_err(), "cut at {at}");
        }
    }
}
