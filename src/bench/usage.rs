//! What the cluster's processes have used, as the kernel and their own counters tell.

use std::time::Duration;

use anyhow::Context as _;

use super::http;
use super::target::Target;
use crate::proc::{cpu_seconds, write_bytes};

/// The nodes' counter of log syncs.
const SYNCS: &str = "postrider_raft_log_syncs_total";
/// How long nothing may be written until compaction counts as idle.
const IDLE_FOR: Duration = Duration::from_secs(5);
/// What may be written in that time all the same: heartbeats and logs.
const IDLE_BYTES_MAX: u64 = 256 * 1024;
/// How long to wait for that at most.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(180);

/// Sums over all processes of the cluster since they started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) write_bytes: u64,
    pub(crate) log_syncs: f64,
}

impl Usage {
    /// Now.
    pub(crate) async fn read(target: &Target) -> anyhow::Result<Self> {
        let mut usage = Usage { cpu_seconds: 0.0, write_bytes: 0, log_syncs: 0.0 };
        for pid in target.ready().pids() {
            usage.cpu_seconds += cpu_seconds(pid)?;
            usage.write_bytes += write_bytes(pid)?;
        }
        for address in target.metrics_addresses()? {
            let text =
                http::get_text(&address, "/metrics").await.with_context(|| format!("read counters of {address}"))?;
            usage.log_syncs += counter(&text, SYNCS);
        }
        Ok(usage)
    }

    /// Once nothing is written any more: what was received has been compacted.
    pub(crate) async fn read_when_idle(target: &Target) -> anyhow::Result<Self> {
        let give_up = tokio::time::Instant::now() + IDLE_WAIT_MAX;
        let mut last = Usage::read(target).await?;
        loop {
            tokio::time::sleep(IDLE_FOR).await;
            let now = Usage::read(target).await?;
            if now.write_bytes - last.write_bytes <= IDLE_BYTES_MAX {
                return Ok(now);
            }
            if tokio::time::Instant::now() > give_up {
                eprintln!(
                    "the cluster still writes after {} s; what is measured so far counts",
                    IDLE_WAIT_MAX.as_secs()
                );
                return Ok(now);
            }
            last = now;
        }
    }
}

/// The sum over all label sets of a counter in Prometheus' text format.
fn counter(text: &str, name: &str) -> f64 {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with([' ', '{']) {
                return None;
            }
            rest.rsplit_once(' ')?.1.parse::<f64>().ok()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_by_exact_name() {
        let text = "# TYPE a_total counter\na_total{x=\"1\"} 2\na_total 3\na_total_more 9\n";
        assert!((counter(text, "a_total") - 5.0).abs() < f64::EPSILON);
    }
}
