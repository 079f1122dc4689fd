//! Averages of interleaved rounds with a confidence interval. Knows no unit.

/// Measurements of the same thing.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    values: Vec<f64>,
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self {
            values: values.into_iter().collect(),
        }
    }
}

/// Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom; 1.96 beyond.
const T95: [f64; 30] = [
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
    2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04,
];

impl Sample {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    fn length(&self) -> f64 {
        u32::try_from(self.values.len()).map_or(f64::INFINITY, f64::from)
    }

    /// The mean; zero when there are none.
    pub fn mean(&self) -> f64 {
        if self.values.is_empty() {
            0.0
        } else {
            self.values.iter().sum::<f64>() / self.length()
        }
    }

    /// Half the width of the 95 % interval of the mean.
    pub fn interval(&self) -> f64 {
        let Some(freedom) = self.values.len().checked_sub(2) else {
            return f64::INFINITY;
        };
        let mean = self.mean();
        let squares: f64 = self.values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / (self.length() - 1.0)).sqrt();
        T95.get(freedom).copied().unwrap_or(1.96) * deviation / self.length().sqrt()
    }

    /// Round by round, this divided by `baseline`: what both have in common in a round falls out.
    pub fn ratios(&self, baseline: &Self) -> Self {
        self.values
            .iter()
            .zip(&baseline.values)
            .map(|(value, base)| value / base)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_textbook() {
        let sample: Sample = [1.0, 2.0, 3.0, 4.0, 5.0].into_iter().collect();
        assert!((sample.mean() - 3.0).abs() < 1e-9);
        // 2.78 · √2.5 / √5
        assert!(
            (sample.interval() - 1.9658).abs() < 1e-3,
            "{}",
            sample.interval()
        );
        let double: Sample = sample.values.iter().map(|value| value * 2.0).collect();
        let ratios = double.ratios(&sample);
        assert!((ratios.mean() - 2.0).abs() < 1e-9 && ratios.interval() < 1e-9);
    }
}
