//! Seeded random numbers for timers, so that a replay waits as long; never for a key.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number from zero to one.
    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from(u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }

    /// Returns a delay of at most `max`, most of them near `max`: RFC 5401 §3.2.2, `RandomBackoff`.
    ///
    /// With λ = ln(group size) + 1, of a group that all wait, about one is drawn in the first moments, and
    /// each further λ-th part of `max` brings e times as many: one early voice speaks for all.
    pub(super) fn backoff(&mut self, max: Duration, group: u16) -> Duration {
        let lambda = f64::from(group.max(1)).ln() + 1.0;
        // Where 0 ≤ u ≤ 1, ln(1 + u (e^λ − 1)) / λ runs from 0 to 1: the RFC's formula, solved.
        let share = (self.unit() * lambda.exp_m1()).ln_1p() / lambda;
        max.mul_f64(share.clamp(0.0, 1.0))
    }

    /// Returns one to two times `wait`.
    pub(super) fn one_to_two(&mut self, wait: Duration) -> Duration {
        wait + wait.mul_f64(self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_early_and_none_is_late() {
        let mut draw = Draw::new(7);
        let max = Duration::from_millis(10);
        let mut delays: Vec<Duration> = (0..1000).map(|_| draw.backoff(max, 1000)).collect();
        delays.sort();
        assert!(delays[999] <= max);
        // After the first voice a tenth of `max` brings e^(7.9/10) ≈ 2 as many; chance may bring more.
        let first = delays[0];
        let soon = delays.iter().filter(|d| **d < first + max / 10).count();
        assert!(
            soon <= 30,
            "{soon} of 1,000 speak within a tenth of {max:?}"
        );
        assert!(delays[500] > max / 2, "{:?}", delays[500]);
    }

    #[test]
    fn a_group_of_one_waits_too() {
        let mut draw = Draw::new(1);
        let max = Duration::from_millis(1);
        assert!((0..100).all(|_| draw.backoff(max, 0) <= max));
        assert!((0..100).all(|_| (max..=max * 2).contains(&draw.one_to_two(max))));
    }
}
