//! What the disk can do by itself: the rates that everything else is a ratio of.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

/// Appended before each fdatasync, bytes.
const APPEND_BYTES: usize = 4096;
/// How long fdatasync is measured.
const SYNC_TIME: Duration = Duration::from_secs(2);
/// Written for the sequential rate, bytes.
const SEQUENTIAL_BYTES: usize = 256 * 1024 * 1024;
const SEQUENTIAL_CHUNK_BYTES: usize = 1024 * 1024;

/// Rates of one file system.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Disk {
    /// 4 KiB append + fdatasync, a second.
    pub(crate) fdatasyncs_per_second: f64,
    /// Sequential write with one fdatasync at the end, MB (10^6) a second.
    pub(crate) sequential_mb_per_second: f64,
}

/// Measures in `dir`; blocks for a few seconds.
pub(crate) fn measure(dir: &Path) -> anyhow::Result<Disk> {
    let path = dir.join("disk-probe");
    let measured = probe(&path).with_context(|| format!("measure the disk with {}", path.display()));
    // A probe that stays is only a waste of space; what matters has been said.
    let _ = std::fs::remove_file(&path);
    measured
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^52
fn probe(path: &Path) -> std::io::Result<Disk> {
    let mut file = File::create(path)?;
    // Not zeros: file systems and devices have short cuts for those.
    let block: Vec<u8> = (0..APPEND_BYTES).map(|n| (n * 31 % 251) as u8).collect();
    let begin = Instant::now();
    let mut syncs = 0_u32;
    while begin.elapsed() < SYNC_TIME {
        file.write_all(&block)?;
        file.sync_data()?;
        syncs += 1;
    }
    let fdatasyncs_per_second = f64::from(syncs) / begin.elapsed().as_secs_f64();
    let mut file = File::create(path)?;
    let chunk: Vec<u8> = (0..SEQUENTIAL_CHUNK_BYTES).map(|n| (n * 31 % 251) as u8).collect();
    let begin = Instant::now();
    for _ in 0..SEQUENTIAL_BYTES / SEQUENTIAL_CHUNK_BYTES {
        file.write_all(&chunk)?;
    }
    file.sync_data()?;
    let sequential_mb_per_second = SEQUENTIAL_BYTES as f64 / 1e6 / begin.elapsed().as_secs_f64();
    Ok(Disk { fdatasyncs_per_second, sequential_mb_per_second })
}
