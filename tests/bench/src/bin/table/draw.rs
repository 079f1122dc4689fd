//! Which subscriber is asked for next: all alike, or few much more often. Knows no key.

use locus_bench::Random;

/// Exponent of the distribution that the field's benchmarks use.
const THETA: f64 = 0.99;
/// A prime that divides no power of ten: spreads the ranks over the subscribers.
const SPREAD: u64 = 2_654_435_761;

/// How subscribers are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Law {
    /// Each as often as any other.
    Uniform,
    /// Zipf, exponent 0.99.
    Zipf,
}

/// Draws subscribers `0..count`.
#[derive(Debug, Clone)]
pub(crate) struct Draw {
    law: Law,
    count: usize,
    zipf: Zipf,
}

/// What is computed once.
#[derive(Debug, Clone)]
struct Zipf {
    zeta: f64,
    eta: f64,
}

impl Draw {
    /// Prepares for both laws.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            law: Law::Uniform,
            count,
            zipf: Zipf::new(count),
        }
    }

    /// The same under another law.
    pub(crate) fn by(&self, law: Law) -> Self {
        Self {
            law,
            ..self.clone()
        }
    }

    /// Draws one.
    pub(crate) fn next(&self, random: &mut Random) -> usize {
        match self.law {
            Law::Uniform => random.below(self.count),
            Law::Zipf => self.spread(self.zipf.rank(self.count, random)),
        }
    }

    /// Puts neighbours in rank far apart: who is called often was not provisioned together.
    fn spread(&self, rank: usize) -> usize {
        let count = u64::try_from(self.count).unwrap_or(u64::MAX);
        let place = u64::try_from(rank).unwrap_or(0) * SPREAD % count;
        usize::try_from(place).unwrap_or(0)
    }
}

impl Zipf {
    fn new(count: usize) -> Self {
        let term = |rank: usize| locus_bench::float(rank).powf(-THETA);
        let zeta = (1..=count).map(term).sum::<f64>();
        let two = term(1) + term(2);
        let n = locus_bench::float(count);
        let eta = (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - two / zeta);
        Self { zeta, eta }
    }

    /// Draws a rank from zero, the lowest most often.
    ///
    /// Gray et al., "Quickly generating billion-record synthetic databases" (SIGMOD 1994), section 3, as
    /// the YCSB benchmark does it.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank lies between zero and the count"
    )]
    fn rank(&self, count: usize, random: &mut Random) -> usize {
        let u = unit(random);
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let share = (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        ((locus_bench::float(count) * share) as usize).min(count - 1)
    }
}

/// A number from zero to below one, of 32 random bits.
fn unit(random: &mut Random) -> f64 {
    f64::from(u32::try_from(random.next_u64() >> 32).unwrap_or(0)) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn zipf_prefers_few_and_reaches_all_over() {
        let draw = Draw::new(100_000).by(Law::Zipf);
        let mut random = Random::new(1);
        let mut seen: HashMap<usize, u32> = HashMap::new();
        for _ in 0..200_000 {
            *seen.entry(draw.next(&mut random)).or_default() += 1;
        }
        // One in the sum of 1/rank^0.99 over 100,000 ranks, which is 12.8.
        let most = seen[&0];
        assert!((14_000..17_500).contains(&most), "{most}");
        assert!(seen.keys().all(|n| *n < 100_000) && seen.len() > 20_000);
    }

    #[test]
    fn spreading_loses_nobody() {
        let draw = Draw::new(10_000);
        let mut places: Vec<usize> = (0..10_000).map(|rank| draw.spread(rank)).collect();
        places.sort_unstable();
        assert!(places.into_iter().eq(0..10_000));
    }

    #[test]
    fn uniform_is_uniform() {
        let draw = Draw::new(10);
        let mut random = Random::new(1);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[draw.next(&mut random)] += 1;
        }
        assert!(
            seen.iter().all(|times| (850..1_150).contains(times)),
            "{seen:?}"
        );
    }
}
