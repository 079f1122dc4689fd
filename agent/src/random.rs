//! Numbers that look random and follow from a seed, so that a recording replays; nothing secret is made of them.

use serde::{Deserialize, Serialize};

/// A stream of numbers (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number of `low..=high`; `low` if that is empty.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = u128::from(high.saturating_sub(low)) + 1;
        // The upper half of a product: uniform to within 2^-64 times the span.
        let offset = (u128::from(self.next()) * span) >> 64;
        low.saturating_add(u64::try_from(offset).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bounds_and_reaches_both() {
        let mut random = Random::new(7);
        let drawn: Vec<_> = (0..1000).map(|_| random.between(60, 120)).collect();
        assert_eq!(drawn.iter().min(), Some(&60));
        assert_eq!(drawn.iter().max(), Some(&120));
        let mut again = Random::new(7);
        assert!(drawn.iter().all(|n| *n == again.between(60, 120)));
        assert_eq!(random.between(5, 5), 5);
        assert_eq!(random.between(5, 4), 5);
        random.between(0, u64::MAX);
    }
}
