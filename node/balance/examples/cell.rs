//! `postrider bench plan` without the rest of the binary: `cargo run --release -p postrider-balance --example cell -- NODES SHARDS`.

use std::time::{Duration, Instant};

use postrider_balance::limits::Limits;
use postrider_balance::simulated::Size;
use postrider_balance::trial;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<usize>());
    let nodes = numbers.next().transpose()?.unwrap_or(1_000);
    let shards = numbers.next().transpose()?.unwrap_or(1_000_000);
    let moves = numbers.next().transpose()?.unwrap_or(100_000);
    let limits = Limits { moves_per_cluster: u32::try_from(moves)?, ..Limits::default().unbounded() };
    let start = Instant::now();
    let trials = trial::run(Size { nodes, shards }, &limits, || processor_time().unwrap_or(start.elapsed()))?;
    for trial in trials {
        println!("{trial:#?}\n{} % of the least moves", trial.moves_percent());
    }
    Ok(())
}

/// What this thread has run for: the machine may have other work.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
