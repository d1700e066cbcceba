//! Exact percentiles: every sample is kept.

/// Microseconds of everything that was measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    micros: Vec<u32>,
    sorted: bool,
}

impl Samples {
    pub(crate) fn push(&mut self, took: std::time::Duration) {
        // What takes longer than 71 minutes reads as 71 minutes.
        self.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        self.sorted = false;
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.micros.len() as u64
    }

    /// Those of somebody else beside these.
    pub(crate) fn append(&mut self, mut other: Samples) {
        self.micros.append(&mut other.micros);
        self.sorted = false;
    }

    /// The value that `share` (0 to 1) of the samples do not exceed, milliseconds; 0 without samples.
    pub(crate) fn percentile_ms(&mut self, share: f64) -> f64 {
        if !self.sorted {
            self.micros.sort_unstable();
            self.sorted = true;
        }
        // Nearest rank.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let rank = (share * self.micros.len() as f64).ceil() as usize;
        self.micros.get(rank.max(1) - 1).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nearest_rank() {
        let mut samples = Samples::default();
        assert!(samples.percentile_ms(0.5).abs() < f64::EPSILON);
        for ms in (1..=100).rev() {
            samples.push(Duration::from_millis(ms));
        }
        for (share, expected) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)] {
            assert!((samples.percentile_ms(share) - expected).abs() < 0.001, "{share}");
        }
    }
}
