//! Nodes in order of their load, kept in order while steps are planned: the least loaded of each class, region and cell at once, and the
//! most loaded of the cell.

use std::collections::BTreeSet;

use crate::cell::{Cell, Dimension, load};
use crate::members::Spot;

/// Of the nodes that may be given something: those that are up.
#[derive(Debug)]
pub(crate) struct Ranks {
    dimension: Dimension,
    /// Of each node, what it is filed under; `None`: it is not.
    filed: Vec<Option<u64>>,
    by_class: Vec<BTreeSet<(u64, Spot)>>,
    /// The first of each class.
    by_region: Vec<BTreeSet<(u64, u32)>>,
    /// Those that may still give something.
    givers: BTreeSet<(u64, Spot)>,
    is_retired: Vec<bool>,
    /// What the nodes of each region bear on the whole, and all together.
    means: Vec<u64>,
    mean: u64,
}

impl Ranks {
    pub(crate) fn new(cell: &Cell, dimension: Dimension) -> Self {
        let mean = |region| {
            let (amount, capacity) = cell.sums(dimension, region);
            load(amount, capacity)
        };
        let regions = u16::try_from(cell.regions).unwrap_or(u16::MAX);
        let mut ranks = Self {
            dimension,
            filed: vec![None; cell.nodes.len()],
            by_class: vec![BTreeSet::new(); cell.classes],
            by_region: vec![BTreeSet::new(); cell.regions],
            givers: BTreeSet::new(),
            is_retired: vec![false; cell.nodes.len()],
            means: (0..regions).map(|region| mean(Some(region))).collect(),
            mean: mean(None),
        };
        for spot in cell.spots_up() {
            ranks.file(cell, spot);
        }
        ranks
    }

    /// Files a node anew, whose load has changed.
    pub(crate) fn file(&mut self, cell: &Cell, spot: Spot) {
        let node = cell.node(spot);
        if !node.is_up() {
            return;
        }
        let load = node.load(self.dimension);
        if self.filed[spot as usize] == Some(load) {
            return;
        }
        let (class, region) = (node.class as usize, usize::from(node.region));
        let before = self.by_class[class].first().map(|(load, _)| *load);
        if let Some(filed) = self.filed[spot as usize].replace(load) {
            self.by_class[class].remove(&(filed, spot));
            self.givers.remove(&(filed, spot));
        }
        self.by_class[class].insert((load, spot));
        if !self.is_retired[spot as usize] {
            self.givers.insert((load, spot));
        }
        let after = self.by_class[class].first().map(|(load, _)| *load);
        if before != after {
            if let Some(before) = before {
                self.by_region[region].remove(&(before, node.class));
            }
            if let Some(after) = after {
                self.by_region[region].insert((after, node.class));
            }
        }
    }

    /// What a node is filed under.
    pub(crate) fn load(&self, spot: Spot) -> u64 {
        self.filed[spot as usize].unwrap_or_default()
    }

    /// The smallest load in a region.
    pub(crate) fn least(&self, region: u16) -> Option<u64> {
        self.by_region[usize::from(region)].first().map(|(load, _)| *load)
    }

    /// The classes of a region, the one with the least loaded node first.
    pub(crate) fn classes(&self, region: u16) -> impl Iterator<Item = u32> + '_ {
        self.by_region[usize::from(region)].iter().map(|(_, class)| *class)
    }

    /// The nodes of a class, the least loaded first.
    pub(crate) fn nodes(&self, class: u32) -> impl Iterator<Item = Spot> + '_ {
        self.by_class[class as usize].iter().map(|(_, spot)| *spot)
    }

    /// The most loaded of those that may still give something.
    pub(crate) fn hottest(&self) -> Option<Spot> {
        self.givers.last().map(|(_, spot)| *spot)
    }

    /// A node has nothing to give.
    pub(crate) fn retire(&mut self, spot: Spot) {
        self.is_retired[spot as usize] = true;
        if let Some(load) = self.filed[spot as usize] {
            self.givers.remove(&(load, spot));
        }
    }

    /// What a node of the region bears on the whole.
    pub(crate) fn mean_of(&self, region: u16) -> u64 {
        self.means[usize::from(region)]
    }

    /// What a node of the cell bears on the whole.
    pub(crate) fn mean(&self) -> u64 {
        self.mean
    }
}
