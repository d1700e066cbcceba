//! The drills: what each does, what it says beforehand, and which promise on pauses it is about.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;

use super::chaos;
use super::fault::{Fault, Ways, Who};
use super::scene::Scene;
use super::verdict::PauseBound;

/// P-7: every mailbox is writable again within 3 s of a region's loss. milliseconds.
const REGION_LOSS_PAUSE_MS: u64 = 3_000;
/// P-8: what moves costs no mailbox more than that, milliseconds.
const MOVE_PAUSE_MS: u64 = 500;

/// What is drilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// kill -9 of a storage node.
    LoseNode,
    /// kill -9 of every process of a region.
    LoseRegion,
    /// A region is cut off from the others, both ways or one way (--ways).
    CutRegion,
    /// The processes of a region run a third of the time.
    SlowRegion,
    /// SIGSTOP of the node that leads the most mailboxes.
    FreezePrimary,
    /// The disk of a storage node has no room.
    FullDisk,
    /// Every process is restarted in turn, from another binary if one is given (--binary).
    Roll,
    /// A storage node is emptied, and takes part again.
    Drain,
    /// Replicas move and leads go round.
    MoveUnderLoad,
    /// kill -9 of a region's object store.
    LoseStore,
    /// All of these by chance, one after the other, for --seconds.
    Chaos,
    /// Not a drill: put right what a drill left that was killed.
    Heal,
}

impl Kind {
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The bound on pauses, if a promise has one for this.
    pub(super) fn bound(self, given_ms: Option<u64>) -> Option<PauseBound> {
        let (promise, ms) = match self {
            Kind::LoseNode | Kind::LoseRegion => ("P-7", REGION_LOSS_PAUSE_MS),
            Kind::Roll | Kind::Drain | Kind::MoveUnderLoad => ("P-8", MOVE_PAUSE_MS),
            _ => return None,
        };
        Some(PauseBound { promise, ms: given_ms.unwrap_or(ms) })
    }
}

/// What the command line asks for.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) kind: Kind,
    pub(super) region: Option<String>,
    pub(super) node: Option<u64>,
    pub(super) ways: Ways,
    pub(super) hold: Duration,
    pub(super) chaos: Duration,
    pub(super) seed: u64,
}

/// The same with everything that was left open decided.
#[derive(Debug, Clone)]
pub(super) enum Aim {
    /// One fault, for so long.
    Hold(Fault, Duration),
    Roll,
    Drain(u64),
    Move,
    Chaos(Duration, u64),
}

impl Aim {
    /// Decides, and refuses what cannot be done here, or is no drill. `regions`: those whose mailboxes are under load.
    pub(super) async fn decide(scene: &Scene, wish: &Wish, regions: &[String]) -> anyhow::Result<Self> {
        let fault = match wish.kind {
            Kind::Roll => return Ok(Aim::Roll),
            Kind::Drain => {
                let node = node_of(scene, wish, regions).await?;
                let region = scene.installation.region_of(node)?.name.clone();
                ensure!(
                    scene.has_neighbour(node),
                    "node {node} is the only one of {region}: nobody there can take its replicas. In a demo: \
                     `postrider demo add-node {region}`, or a new one with --nodes-per-region 2"
                );
                return Ok(Aim::Drain(node));
            }
            Kind::MoveUnderLoad => return Ok(Aim::Move),
            Kind::Chaos => return Ok(Aim::Chaos(wish.chaos, wish.seed)),
            Kind::Heal => bail!("healing is no drill"),
            Kind::LoseNode => Fault::Kill { who: Who::Node(node_of(scene, wish, regions).await?) },
            Kind::FreezePrimary => Fault::Freeze { who: Who::Node(node_of(scene, wish, regions).await?) },
            Kind::FullDisk => Fault::FullDisk { node: node_of(scene, wish, regions).await? },
            Kind::LoseRegion => Fault::Kill { who: Who::Region(region_of(scene, wish, regions).await?) },
            Kind::CutRegion => Fault::Cut { region: region_of(scene, wish, regions).await?, ways: wish.ways },
            Kind::SlowRegion => Fault::Slow { region: region_of(scene, wish, regions).await? },
            Kind::LoseStore => Fault::Kill { who: Who::Store(region_of(scene, wish, regions).await?) },
        };
        scene.check_quorum(&fault)?;
        scene.hands.check(&fault).await?;
        Ok(Aim::Hold(fault, wish.hold))
    }

    /// What it will do, for people.
    pub(super) fn say(&self, scene: &Scene) -> String {
        match self {
            Aim::Hold(fault, long) => format!("{fault}, for {} s; then it is healed", long.as_secs()),
            Aim::Roll => {
                let from = match &scene.binary {
                    Some(binary) => format!(" from {}, where they stay", binary.display()),
                    None => String::new(),
                };
                format!("each of {} processes is stopped and started again{from}", scene.installation.jobs().len())
            }
            Aim::Drain(node) => format!("node {node} is drained: leads, then replicas; then it takes part again"),
            Aim::Move => match scene.session.map().nodes.iter().any(|node| scene.has_neighbour(node.id)) {
                true => "replicas of some shards move to other nodes of their regions, and their leads go round".into(),
                false => {
                    "leads of some shards go round their replicas; no region has a second node that a replica could \
                          move to"
                        .into()
                }
            },
            Aim::Chaos(long, seed) => format!(
                "kills, stops, freezes, cuts, full disks, moves and drains by chance (seed {seed}), one after the other, for {} s",
                long.as_secs()
            ),
        }
    }

    /// Does it. `shards`: those of the mailboxes under load.
    pub(super) async fn perform(&self, scene: &mut Scene, shards: &[u32]) -> anyhow::Result<()> {
        match self {
            Aim::Hold(fault, long) => scene.hold(fault, *long).await,
            Aim::Roll => scene.roll().await,
            Aim::Drain(node) => scene.drain(*node).await,
            Aim::Move => scene.move_around(shards).await,
            Aim::Chaos(long, seed) => chaos::run(scene, shards, *long, *seed).await,
        }
    }
}

async fn node_of(scene: &Scene, wish: &Wish, regions: &[String]) -> anyhow::Result<u64> {
    if let Some(node) = wish.node {
        let region = scene.installation.region_of(node)?;
        if let Some(wanted) = wish.region.as_ref().filter(|wanted| **wanted != region.name) {
            bail!("node {node} is in {}, not in {wanted}", region.name);
        }
        return Ok(node);
    }
    match &wish.region {
        Some(region) => scene.busiest(std::slice::from_ref(&scene.installation.region(region)?.name)).await,
        None => scene.busiest(regions).await,
    }
}

async fn region_of(scene: &Scene, wish: &Wish, regions: &[String]) -> anyhow::Result<String> {
    if let (Some(region), None) = (&wish.region, wish.node) {
        return Ok(scene.installation.region(region)?.name.clone());
    }
    let node = node_of(scene, wish, regions).await?;
    scene.installation.region_of(node).map(|region| region.name.clone()).context("find the node's region")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_documentation_has() {
        let page = include_str!("../../docs/operating/drills.md");
        for kind in Kind::value_variants() {
            assert!(page.contains(&format!("`{}`", kind.name())), "{}", kind.name());
        }
    }

    #[test]
    fn promises_have_their_bounds() {
        assert_eq!(Kind::LoseRegion.bound(None), Some(PauseBound { promise: "P-7", ms: 3_000 }));
        assert_eq!(Kind::Roll.bound(Some(9)), Some(PauseBound { promise: "P-8", ms: 9 }));
        assert_eq!(Kind::CutRegion.bound(Some(9)), None);
    }
}
