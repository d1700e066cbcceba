//! How much may move at once, and how uneven a cell may be before anything moves.

/// Bounds of one plan. What is running already counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Replicas that a node receives at a time, and that it sends at a time.
    pub moves_per_node: u32,
    /// Replicas that are on their way at a time from one region to another.
    pub moves_per_link: u32,
    /// Replicas that are on their way at a time altogether.
    pub moves_per_cluster: u32,
    /// Homes of shards that change at a time: each is a pause of some hundred milliseconds for the shard's users.
    pub homes_per_cluster: u32,
    /// Two nodes are even when they differ by at most this much of the mean, thousandths: bytes.
    pub bytes_band_permille: u32,
    /// The same for writes. Wider: they change from hour to hour.
    pub writes_band_permille: u32,
    /// The same for leads.
    pub leads_band_permille: u32,
    /// A node gets nothing that would fill it beyond this, thousandths of its capacity.
    pub fill_permille_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            moves_per_node: 4,
            moves_per_link: 32,
            moves_per_cluster: 128,
            homes_per_cluster: 64,
            bytes_band_permille: 80,
            writes_band_permille: 250,
            leads_band_permille: 80,
            fill_permille_max: 900,
        }
    }
}

impl Limits {
    /// The same bands, and no bound on what moves at once: the whole way in one plan, to show it or to measure it.
    #[must_use]
    pub fn unbounded(self) -> Self {
        Self {
            moves_per_node: u32::MAX,
            moves_per_link: u32::MAX,
            moves_per_cluster: u32::MAX,
            homes_per_cluster: u32::MAX,
            ..self
        }
    }
}
