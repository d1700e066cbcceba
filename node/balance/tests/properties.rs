//! What no plan may do and every plan must lead to, over random cells and random sequences of events.
//!
//! What is right is said here a second time, from the policies' words and by trying everything, and shares no code with the planner.

mod support;

use postrider_balance::limits::Limits;
use postrider_balance::plan;
use postrider_balance::simulated::{self, Dice};
use postrider_balance::step::{Change, Priority, Reason, Step};
use postrider_balance::view::{NodeState, View};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use support::cells;
use support::rules;

/// Rounds of planning and carrying out until nothing is left to do: far more than the replicas of any cell here.
const ROUNDS_MAX: usize = 500;

fn limits() -> impl Strategy<Value = Limits> {
    (1_u32..4, 1_u32..4, 1_u32..8, 1_u32..8, 0_u32..300).prop_map(|(node, link, cluster, homes, band)| Limits {
        moves_per_node: node,
        moves_per_link: link,
        moves_per_cluster: cluster,
        homes_per_cluster: homes,
        bytes_band_permille: band,
        writes_band_permille: band * 2,
        leads_band_permille: band,
        fill_permille_max: 900,
    })
}

/// Plans, begins everything, ends what runs in any order; checks each plan on the way.
fn settle(view: &mut View, limits: &Limits, dice: &mut Dice) -> Result<(), TestCaseError> {
    for _ in 0..ROUNDS_MAX {
        let planned = plan(view, limits).unwrap();
        rules::check_plan(view, &planned, limits)?;
        planned.steps.iter().for_each(|step| simulated::begin(view, step));
        rules::check_running(view, limits)?;
        let running: Vec<_> = view.shards.iter().filter(|shard| shard.running.is_some()).map(|s| s.id).collect();
        if planned.steps.is_empty() && running.is_empty() {
            return Ok(());
        }
        // Some end, one at least; the others go on beside what is planned next.
        let certain = usize::try_from(dice.roll(running.len() as u64)).unwrap();
        for (at, shard) in running.iter().enumerate() {
            if at == certain || dice.roll(2) == 0 {
                simulated::end(view, *shard);
            }
        }
    }
    Err(TestCaseError::fail("it does not end"))
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_step_breaks_anything_and_all_ends_well(
        mut view in cells::view(),
        events in prop::collection::vec(cells::event(), 0..8),
        limits in limits(),
        seed in any::<u64>(),
    ) {
        let mut dice = Dice(seed);
        for event in events.into_iter().map(Some).chain([None]) {
            settle(&mut view, &limits, &mut dice)?;
            rules::check_rest(&view, &plan(&view, &limits).unwrap(), &limits)?;
            if let Some(event) = event {
                cells::happen(&mut view, &event);
            }
        }
    }

    #[test]
    fn events_in_the_middle_of_it_change_nothing_about_that(
        mut view in cells::view(),
        events in prop::collection::vec(cells::event(), 0..12),
        limits in limits(),
        seed in any::<u64>(),
    ) {
        let mut dice = Dice(seed);
        for event in events {
            let planned = plan(&view, &limits).unwrap();
            rules::check_plan(&view, &planned, &limits)?;
            for step in &planned.steps {
                if dice.roll(3) > 0 {
                    simulated::begin(&mut view, step);
                }
            }
            let ids: Vec<_> = view.shards.iter().map(|shard| shard.id).collect();
            ids.into_iter().filter(|_| dice.roll(2) == 0).for_each(|id| simulated::end(&mut view, id));
            cells::happen(&mut view, &event);
        }
        settle(&mut view, &limits, &mut dice)?;
        rules::check_rest(&view, &plan(&view, &limits).unwrap(), &limits)?;
    }

    #[test]
    fn the_same_view_gives_the_same_plan(view in cells::view(), limits in limits()) {
        prop_assert_eq!(plan(&view, &limits), plan(&view.clone(), &limits));
    }

    #[test]
    fn whatever_has_no_bounds_ends_in_few_plans(mut view in cells::view(), event in cells::event()) {
        cells::happen(&mut view, &event);
        let limits = Limits::default().unbounded();
        let mut dice = Dice(1);
        settle(&mut view, &limits, &mut dice)?;
    }
}

#[test]
fn what_is_nearest_to_losing_its_quorum_comes_first() {
    let mut view = cells::regular(5, 4, 40, 5);
    // Two nodes of different regions: shards with replicas on both bear no more failure.
    view.nodes[0].state = NodeState::Dead;
    view.nodes[1].state = NodeState::Dead;
    let planned = plan(&view, &Limits::default().unbounded()).unwrap();
    let spare: Vec<usize> = planned
        .steps
        .iter()
        .map_while(|step| match step.reason {
            Reason::Gone { spare, .. } => Some(spare),
            _ => None,
        })
        .collect();
    assert!(spare.contains(&0) && spare.contains(&1), "{spare:?}");
    assert!(spare.is_sorted(), "{spare:?}");
}

#[test]
fn a_drained_node_is_emptied_and_little_else_moves() {
    let mut view = cells::regular(3, 4, 60, 3);
    let limits = Limits::default().unbounded();
    support::carry_out_all(&mut view, &limits);
    let drained = view.nodes[0].id;
    let held = view.shards.iter().filter(|shard| shard.replicas.contains(&drained)).count();
    view.nodes[0].state = NodeState::Draining;
    let steps = support::carry_out_all(&mut view, &limits);
    assert!(view.shards.iter().all(|shard| !shard.replicas.contains(&drained)));
    let drains = steps.iter().filter(|step| step.priority == Priority::Drain);
    assert_eq!(drains.map(Step::moves).sum::<usize>(), held);
    let moved: usize = steps.iter().map(Step::moves).sum();
    assert!(moved * 10 <= held * 12, "{moved} moves for {held} replicas: {steps:#?}");
}

#[test]
fn two_nodes_added_to_each_region_of_300_shards_are_as_full_as_the_others() {
    let mut view = cells::regular(3, 3, 300, 3);
    let limits = Limits::default();
    support::carry_out_all(&mut view, &limits);
    let capacity = view.nodes[0].capacity;
    simulated::add_nodes(&mut view, 6, capacity);
    let before = view.clone();
    let steps = support::carry_out_all(&mut view, &limits);
    let evenness = postrider_balance::evenness::of(&view);
    for extent in [evenness.bytes, evenness.leads] {
        assert!(extent.least_permille >= 900 && extent.most_permille <= 1100, "{evenness:?}");
    }
    let moved: usize = steps.iter().map(Step::moves).sum();
    let least = postrider_balance::least::moves(&before, &view);
    assert!(moved as u64 * 10 <= least * 11, "{moved} moves, {least} at least");
}

#[test]
fn a_dead_rack_and_new_nodes_cost_at_most_a_tenth_more_than_they_must() {
    let size = simulated::Size { nodes: 1_000, shards: 20_000 };
    let limits = Limits { moves_per_cluster: 1_000, ..Limits::default().unbounded() };
    let trials = postrider_balance::trial::run(size, &limits, || std::time::Duration::ZERO).unwrap();
    for trial in &trials[1..] {
        assert!(trial.moves_percent() <= 110, "{trial:?}");
        assert!(trial.moves > 0 && trial.blocked == 0, "{trial:?}");
    }
}

#[test]
fn a_step_is_one_operation_and_its_reason_a_sentence() {
    use postrider_api::pb::command::Op;
    let mut view = cells::regular(3, 2, 6, 3);
    view.nodes[0].state = NodeState::Dead;
    let planned = plan(&view, &Limits::default()).unwrap();
    let step = &planned.steps[0];
    let Change::Replicas { add, .. } = &step.change else { panic!("{step:?}") };
    assert_eq!(step.to_string(), format!("shard {}: replace node 1 by node {}", step.shard, add[0]));
    let said = "node 1 is gone for good; 2 of 3 replicas answer, and one more failure stops the shard";
    assert_eq!(step.reason.to_string(), said);
    match step.command(0) {
        Op::SetReplicas(set) => {
            assert_eq!((set.shard, set.epoch, set.parent), (step.shard.0, step.epoch, 0));
            assert!(set.replicas.contains(&add[0].0) && !set.replicas.contains(&1));
        }
        other => panic!("{other:?}"),
    }
    let home = cells::Event::Home { policy: 0, region: 1 };
    let mut view = cells::regular(3, 2, 6, 3);
    cells::happen(&mut view, &home);
    let planned = plan(&view, &Limits::default()).unwrap();
    let homes = planned.steps.iter().filter(|step| matches!(step.command(0), Op::SetHome(_))).count();
    assert_eq!(homes, 4, "those that are elsewhere: {planned:?}");
    assert!(planned.steps[0].reason.to_string().ends_with("wants the primary in region region-1"), "{planned:?}");
}

#[test]
fn a_view_that_does_not_hang_together_is_refused_by_name() {
    let mut view = cells::regular(3, 2, 6, 3);
    view.policies[0].replicas = 2;
    let error = plan(&view, &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "policy \"regular\", replicas: 2, not 1, 3, 5 or 7");
    let mut view = cells::regular(3, 2, 6, 3);
    let twice = view.shards[0].replicas[0];
    view.shards[0].replicas[1] = twice;
    let error = plan(&view, &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("shard 1000: node {twice} is named twice"));
    let mut view = cells::regular(3, 2, 6, 3);
    view.nodes.swap(0, 1);
    let error = plan(&view, &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "nodes: 1 comes after one that is not smaller");
}
