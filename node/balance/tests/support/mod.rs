//! Cells and rules for tests.

pub(crate) mod cells;
pub(crate) mod rules;

use postrider_balance::limits::Limits;
use postrider_balance::plan;
use postrider_balance::simulated;
use postrider_balance::step::Step;
use postrider_balance::view::View;

/// Plans and carries out until nothing is left to do.
pub(crate) fn carry_out_all(view: &mut View, limits: &Limits) -> Vec<Step> {
    let mut all = Vec::new();
    loop {
        let planned = plan(view, limits).unwrap();
        if planned.steps.is_empty() {
            return all;
        }
        for step in &planned.steps {
            simulated::begin(view, step);
            simulated::end(view, step.shard);
        }
        all.extend(planned.steps);
        assert!(all.len() < 100_000, "it does not end");
    }
}
