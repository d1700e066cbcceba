//! The planner on a simulated cell: what `postrider bench plan` runs.

use std::time::Duration;

use serde::Serialize;

use crate::evenness::{self, Evenness};
use crate::limits::Limits;
use crate::simulated::{self, Size};
use crate::view::{View, ViewError};
use crate::{least, plan};

/// Plans until nothing is left to do: more would be a planner that does not end.
const ROUNDS_MAX: usize = 64;
/// Nodes that are added.
const NODES_ADDED: usize = 100;

/// What one event led to.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// The event.
    pub event: String,
    /// Plans until one had no steps.
    pub plans: usize,
    /// What all of them took.
    pub planning_ms: u128,
    /// What the longest took.
    pub longest_ms: u128,
    /// Replicas that were made.
    pub moves: u64,
    /// Replicas that any plan has to make to come as far.
    pub least_moves: u64,
    /// Homes that were changed.
    pub homes: u64,
    /// Shards that could not be put right.
    pub blocked: usize,
    /// Once the event has happened.
    pub before: Evenness,
    /// Once nothing was left to do.
    pub after: Evenness,
}

impl Trial {
    /// Moves by the least possible, hundredths.
    #[must_use]
    pub fn moves_percent(&self) -> u64 {
        (self.moves * 100).div_ceil(self.least_moves.max(1))
    }
}

/// A rack fails, and nodes are added, in a cell of that size; `now` is a clock that only goes forward.
///
/// # Errors
/// When the simulated cell does not hang together.
pub fn run(size: Size, limits: &Limits, mut now: impl FnMut() -> Duration) -> Result<Vec<Trial>, ViewError> {
    let mut view = simulated::cell(size);
    let built = settle("as built", &mut view, limits, &mut now)?;
    simulated::kill_rack_of(&mut view, 0);
    let rack = settle("a rack is dead", &mut view, limits, &mut now)?;
    if let Some(capacity) = view.nodes.first().map(|node| node.capacity) {
        simulated::add_nodes(&mut view, NODES_ADDED, capacity);
    }
    let added = settle(&format!("{NODES_ADDED} nodes are added"), &mut view, limits, &mut now)?;
    Ok(vec![built, rack, added])
}

/// Plans and carries out until nothing is left to do.
///
/// # Errors
/// When the view does not hang together.
pub fn settle(
    event: &str,
    view: &mut View,
    limits: &Limits,
    now: &mut impl FnMut() -> Duration,
) -> Result<Trial, ViewError> {
    let start = view.clone();
    let mut trial = Trial {
        event: event.to_owned(),
        plans: 0,
        planning_ms: 0,
        longest_ms: 0,
        moves: 0,
        least_moves: 0,
        homes: 0,
        blocked: 0,
        before: evenness::of(view),
        after: evenness::of(view),
    };
    let mut planning = Duration::ZERO;
    while trial.plans < ROUNDS_MAX {
        let began = now();
        let planned = plan(view, limits)?;
        let took = now().saturating_sub(began);
        planning += took;
        trial.plans += 1;
        trial.longest_ms = trial.longest_ms.max(took.as_millis());
        trial.blocked = planned.blocked_shards;
        if planned.steps.is_empty() {
            break;
        }
        for step in &planned.steps {
            let moves = step.moves() as u64;
            trial.moves += moves;
            trial.homes += u64::from(moves == 0);
            simulated::begin(view, step);
            simulated::end(view, step.shard);
        }
    }
    trial.planning_ms = planning.as_millis();
    trial.after = evenness::of(view);
    trial.least_moves = least::moves(&start, view);
    Ok(trial)
}
