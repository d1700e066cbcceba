//! How evenly the nodes of a view bear what they bear: for people and for measurements.

use serde::Serialize;

use crate::cell::{Cell, Dimension};
use crate::view::View;

/// Of the nodes that are up, by what they can bear, thousandths of what a node bears on the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// The one with least.
    pub least_permille: u64,
    /// The one with most.
    pub most_permille: u64,
}

/// The extents of what is evened out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Evenness {
    /// Bytes.
    pub bytes: Extent,
    /// Writes.
    pub writes: Extent,
    /// Leads.
    pub leads: Extent,
}

/// Of a view that was checked.
#[must_use]
pub fn of(view: &View) -> Evenness {
    let cell = Cell::new(view);
    let extent = |dimension| {
        let (amount, capacity) = cell.sums(dimension, None);
        let loads = cell.spots_up().map(|spot| {
            let node = cell.node(spot);
            let share = u128::from(node.amounts[dimension as usize]) * u128::from(capacity) * 1000;
            let even = u128::from(amount) * u128::from(node.capacity[dimension as usize]);
            share.checked_div(even).and_then(|share| u64::try_from(share).ok()).unwrap_or(0)
        });
        let loads: Vec<u64> = loads.collect();
        let (least, most) = (loads.iter().min(), loads.iter().max());
        Extent { least_permille: least.copied().unwrap_or(0), most_permille: most.copied().unwrap_or(0) }
    };
    Evenness { bytes: extent(Dimension::Bytes), writes: extent(Dimension::Writes), leads: extent(Dimension::Leads) }
}
