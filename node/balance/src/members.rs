//! The nodes of one shard, in place: a million of these are looked at in every plan.

/// Replicas of one shard: what placement takes (`REPLICAS_MAX` of its rules).
pub(crate) const MEMBERS_MAX: usize = 7;

/// A node's place in the cell.
pub(crate) type Spot = u32;

/// Up to [`MEMBERS_MAX`] nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Members {
    at: [Spot; MEMBERS_MAX],
    len: u8,
}

impl Members {
    pub(crate) fn as_slice(&self) -> &[Spot] {
        &self.at[..usize::from(self.len)]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Spot> + Clone + '_ {
        self.as_slice().iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(crate) fn contains(&self, spot: Spot) -> bool {
        self.as_slice().contains(&spot)
    }

    /// Whoever adds keeps to [`MEMBERS_MAX`]: a view has no more, and a policy wants no more.
    pub(crate) fn push(&mut self, spot: Spot) {
        self.at[usize::from(self.len)] = spot;
        self.len += 1;
    }

    /// The same without one; the others stay in their order.
    pub(crate) fn without(&self, spot: Spot) -> Self {
        self.iter().filter(|other| *other != spot).collect()
    }

    /// The same with one more.
    pub(crate) fn with(&self, spot: Spot) -> Self {
        self.iter().chain([spot]).collect()
    }
}

impl FromIterator<Spot> for Members {
    fn from_iter<I: IntoIterator<Item = Spot>>(spots: I) -> Self {
        let mut members = Self::default();
        for spot in spots {
            members.push(spot);
        }
        members
    }
}

/// How many of so many members have to agree.
pub(crate) fn majority(members: usize) -> usize {
    members / 2 + 1
}
