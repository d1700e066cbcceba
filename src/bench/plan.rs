//! `bench plan`: the planner on a simulated cluster of any size, in this process.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use postrider_balance::evenness::Extent;
use postrider_balance::limits::Limits;
use postrider_balance::simulated::Size;
use postrider_balance::trial::{self, Trial};
use serde::Serialize;

use crate::ctl::table::{Align, Table};

const SHARDS_DEFAULT: u32 = 1_000_000;
/// The largest cluster that is simulated.
const SHARDS_MAX: u32 = 10_000_000;
/// Two racks in each region: one can fail.
const NODES_MIN: usize = 200;
const NODES_MAX: usize = 20_000;
/// Moves may be this much above the least possible, hundredths.
const MOVES_PERCENT_MAX: u64 = 110;
const MOVES_DEFAULT: u32 = 100_000;

#[derive(Debug, Clone, Args)]
pub(crate) struct PlanTrial {
    /// Storage nodes, in racks of 20 in five regions.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    nodes: usize,
    /// Moves of one plan; the next one is made once they are done.
    #[arg(long, value_name = "N", default_value_t = MOVES_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    moves: u32,
}

#[derive(Serialize)]
struct Report {
    nodes: usize,
    shards: u32,
    /// Of this process, the simulated cluster included.
    peak_memory_bytes: u64,
    trials: Vec<Trial>,
}

/// Simulates, prints, and fails when more moves than a tenth above the least possible.
pub(super) fn run(trial: PlanTrial, shards: Option<u32>, json: bool) -> anyhow::Result<ExitCode> {
    let shards = shards.unwrap_or(SHARDS_DEFAULT);
    ensure!((NODES_MIN..=NODES_MAX).contains(&trial.nodes), "--nodes: {NODES_MIN} to {NODES_MAX}");
    ensure!((1..=SHARDS_MAX).contains(&shards), "--shards: 1 to {SHARDS_MAX}");
    let limits = Limits { moves_per_cluster: trial.moves, ..Limits::default().unbounded() };
    let size = Size { nodes: trial.nodes, shards: usize::try_from(shards).context("--shards")? };
    let start = Instant::now();
    let trials = trial::run(size, &limits, || processor_time().unwrap_or_else(|| start.elapsed()))?;
    // The first is how the cell was made, which is not judged.
    let is_good = trials.iter().skip(1).all(|trial| trial.moves_percent() <= MOVES_PERCENT_MAX);
    let report = Report { nodes: trial.nodes, shards, peak_memory_bytes: peak_memory()?, trials };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report) {
    let mut table = Table::new(&[
        ("event", Align::Left),
        ("plans", Align::Right),
        ("planning s", Align::Right),
        ("longest s", Align::Right),
        ("moves", Align::Right),
        ("least", Align::Right),
        ("ratio", Align::Right),
        ("homes", Align::Right),
        ("bytes before", Align::Right),
        ("after", Align::Right),
        ("leads before", Align::Right),
        ("after", Align::Right),
    ]);
    for trial in &report.trials {
        let ratio = trial.moves_percent();
        table.row([
            trial.event.clone(),
            trial.plans.to_string(),
            seconds(trial.planning_ms),
            seconds(trial.longest_ms),
            trial.moves.to_string(),
            trial.least_moves.to_string(),
            if trial.moves == 0 { "-".to_owned() } else { format!("{}.{:02}", ratio / 100, ratio % 100) },
            trial.homes.to_string(),
            extent(trial.before.bytes),
            extent(trial.after.bytes),
            extent(trial.before.leads),
            extent(trial.after.leads),
        ]);
    }
    println!(
        "{} nodes, {} shards; bytes and leads: the node with least and the one with most, % of the mean\n",
        report.nodes, report.shards
    );
    table.print();
    println!("\npeak memory: {} MiB, the simulated cluster included", report.peak_memory_bytes >> 20);
}

fn seconds(ms: u128) -> String {
    format!("{}.{:02}", ms / 1000, ms % 1000 / 10)
}

fn extent(extent: Extent) -> String {
    let tenths = |permille: u64| format!("{}.{}", permille / 10, permille % 10);
    format!("{} to {}", tenths(extent.least_permille), tenths(extent.most_permille))
}

/// What this thread has run for (proc(5), `schedstat`): the machine may have other work. The first plan is made on it, and so are all.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn peak_memory() -> anyhow::Result<u64> {
    let path = "/proc/self/status";
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).with_context(|| format!("find VmHWM in {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_about_this_thread() {
        // It counts in ticks of some milliseconds.
        let begin = Instant::now();
        while processor_time().unwrap().is_zero() {
            assert!(begin.elapsed() < Duration::from_secs(60));
        }
        assert!(peak_memory().unwrap() > 1 << 20);
    }

    #[test]
    fn sizes_out_of_bounds_are_refused_by_name() {
        let trial = PlanTrial { nodes: NODES_MIN - 1, moves: 1 };
        assert!(run(trial, None, true).unwrap_err().to_string().contains("--nodes"));
        let trial = PlanTrial { nodes: NODES_MIN, moves: 1 };
        assert!(run(trial, Some(0), true).unwrap_err().to_string().contains("--shards"));
    }
}
