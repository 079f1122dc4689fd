//! Medians of interleaved rounds and the 95 % interval of their ratio. Knows no unit.

use crate::Random;

/// Times the rounds are drawn anew for an interval; its ends then move by less than their own noise.
const DRAWS: usize = 10_000;

/// One way's measurements, round by round.
#[derive(Debug, Clone, Default)]
pub struct Rounds {
    values: Vec<f64>,
}

/// A ratio of medians with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The ratio.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl FromIterator<f64> for Rounds {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self {
            values: values.into_iter().collect(),
        }
    }
}

impl Rounds {
    /// Adds the measurement of one more round.
    pub fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// The median; not a number when there are none.
    pub fn median(&self) -> f64 {
        median(self.values.clone())
    }

    /// The smallest.
    pub fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Median of this divided by the median of `baseline`.
    ///
    /// The interval is a bootstrap over rounds: whole rounds are drawn, with both ways in them, so that
    /// what disturbed a round disturbs both (Efron, Tibshirani: "An Introduction to the Bootstrap",
    /// section 13.3, percentile interval).
    pub fn ratio(&self, baseline: &Self) -> Ratio {
        let rounds = self.values.len().min(baseline.values.len());
        let mut random = Random::new(20_260_101);
        let mut ratios: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let drawn: Vec<usize> = (0..rounds).map(|_| random.below(rounds)).collect();
                let of = |values: &[f64]| median(drawn.iter().map(|at| values[*at]).collect());
                of(&self.values) / of(&baseline.values)
            })
            .collect();
        ratios.sort_unstable_by(f64::total_cmp);
        Ratio {
            value: self.median() / baseline.median(),
            low: ratios[DRAWS / 40],
            high: ratios[DRAWS - DRAWS / 40 - 1],
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_those_of_the_textbook() {
        let odd: Rounds = [3.0, 1.0, 2.0].into_iter().collect();
        let even: Rounds = [4.0, 1.0, 3.0, 2.0].into_iter().collect();
        assert_eq!((odd.median(), even.median()), (2.0, 2.5));
        assert_eq!((odd.count(), odd.min()), (3, 1.0));
        assert!(Rounds::default().median().is_nan());
    }

    #[test]
    fn the_interval_holds_the_ratio_and_is_narrow_when_rounds_agree() {
        let baseline: Rounds = (0..45).map(|n| 10.0 + f64::from(n % 5)).collect();
        let same: Rounds = baseline.values.iter().map(|value| value * 1.1).collect();
        let exact = same.ratio(&baseline);
        assert!(exact.high - exact.low < 1e-9 && (exact.value - 1.1).abs() < 1e-9);
        let noisy: Rounds = (0..45).map(|n| 11.0 + f64::from(n * 7 % 5)).collect();
        let ratio = noisy.ratio(&baseline);
        assert!(ratio.low < ratio.value && ratio.value < ratio.high);
    }
}
