//! Everything by chance, one after the other, for a while. The same seed gives the same order of kinds and places, not the same moments.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

use super::fault::{Fault, Ways, Who};
use super::scene::Scene;

/// How long something stays broken, seconds: shorter and longer than leases and elections take, shorter than until a node is given up.
const HOLD_S: std::ops::Range<f64> = 1.0..15.0;
/// Between two, seconds.
const CALM_S: std::ops::Range<f64> = 0.5..4.0;

/// What may come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    KillNode,
    KillRegion,
    KillFrontend,
    KillStore,
    StopAny,
    Freeze,
    Slow,
    Cut,
    FullDisk,
    Move,
    Drain,
}

const TURNS: [Turn; 11] = [
    Turn::KillNode,
    Turn::KillRegion,
    Turn::KillFrontend,
    Turn::KillStore,
    Turn::StopAny,
    Turn::Freeze,
    Turn::Slow,
    Turn::Cut,
    Turn::FullDisk,
    Turn::Move,
    Turn::Drain,
];

/// Until the time is over; at least one turn. The cluster is whole before each.
pub(super) async fn run(scene: &mut Scene, shards: &[u32], long: Duration, seed: u64) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let until = Instant::now() + long;
    let mut turns = TURNS.to_vec();
    loop {
        let at = rng.random_range(0..turns.len());
        let Some(turn) = turns.get(at).copied() else { return Ok(()) };
        if let Err(why) = take(scene, shards, turn, &mut rng).await? {
            scene.timeline.note(format!("{turn:?} is left out: {why}"));
            turns.remove(at);
            continue;
        }
        scene.timeline.phase("until the cluster is whole", true);
        scene.until_whole().await?;
        if Instant::now() > until {
            return Ok(());
        }
        scene.timeline.phase("calm", false);
        tokio::time::sleep(Duration::from_secs_f64(rng.random_range(CALM_S))).await;
    }
}

/// One of them; or why it cannot be done here, ever.
async fn take(scene: &mut Scene, shards: &[u32], turn: Turn, rng: &mut StdRng) -> anyhow::Result<Result<(), String>> {
    let regions: Vec<String> = scene.installation.regions.iter().map(|region| region.name.clone()).collect();
    let nodes: Vec<u64> = scene.session.map().nodes.iter().map(|node| node.id).collect();
    let jobs = scene.installation.jobs();
    let hold = Duration::from_secs_f64(rng.random_range(HOLD_S));
    let ways = one(rng, &[Ways::Both, Ways::Out, Ways::In]);
    let (region, node, job) = (one(rng, &regions), one(rng, &nodes), one(rng, &jobs));
    let (Some(region), Some(node), Some(job), Some(ways)) = (region, node, job, ways) else {
        return Ok(Err("there is nothing to break".into()));
    };
    let fault = match turn {
        Turn::KillNode => Fault::Kill { who: Who::Node(node) },
        Turn::KillRegion => Fault::Kill { who: Who::Region(region) },
        Turn::KillFrontend => Fault::Kill { who: Who::Frontend(region) },
        Turn::KillStore => Fault::Kill { who: Who::Store(region) },
        Turn::StopAny => return scene.roll_one(&job).await.map(Ok),
        Turn::Freeze => Fault::Freeze { who: Who::Node(node) },
        Turn::Slow => Fault::Slow { region },
        Turn::Cut => Fault::Cut { region, ways },
        Turn::FullDisk => Fault::FullDisk { node },
        Turn::Move => {
            let Some(shard) = one(rng, shards) else { return Ok(Err("no shard has a mailbox under load".into())) };
            return scene.move_around(&[shard]).await.map(Ok);
        }
        Turn::Drain if scene.has_neighbour(node) => return scene.drain(node).await.map(Ok),
        Turn::Drain => return Ok(Err(format!("node {node} has no neighbour that takes its replicas"))),
    };
    if let Err(why) = scene.check_quorum(&fault) {
        return Ok(Err(format!("{why:#}")));
    }
    if let Err(why) = scene.hands.check(&fault).await {
        return Ok(Err(format!("{why:#}")));
    }
    scene.hold(&fault, hold).await.map(Ok)
}

fn one<T: Clone>(rng: &mut StdRng, of: &[T]) -> Option<T> {
    if of.is_empty() {
        return None;
    }
    of.get(rng.random_range(0..of.len())).cloned()
}
