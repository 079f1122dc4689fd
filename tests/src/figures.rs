//! Figures that are reported: quantiles, and one JSON line for each figure of a bench.
//! Knows nothing of what was measured.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::lab::root;

/// Durations with their quantiles.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    sorted: Vec<Duration>,
}

impl FromIterator<Duration> for Durations {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        let mut sorted: Vec<Duration> = durations.into_iter().collect();
        sorted.sort_unstable();
        Self { sorted }
    }
}

impl Durations {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The smallest duration that `per_cent` of all do not exceed; zero when there are none.
    pub fn quantile(&self, per_cent: usize) -> Duration {
        let rank = (self.sorted.len() * per_cent)
            .div_ceil(100)
            .saturating_sub(1);
        self.sorted.get(rank).copied().unwrap_or_default()
    }

    /// The largest.
    pub fn max(&self) -> Duration {
        self.sorted.last().copied().unwrap_or_default()
    }
}

/// A duration in milliseconds with its fraction.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// One figure of a bench.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its name, stable over time.
    pub name: &'static str,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it is compared with, in the same unit.
    pub baseline: Option<f64>,
}

/// Writes `target/figures/<bench>.jsonl` anew, one line for each figure, and returns its path.
///
/// # Panics
/// When the file cannot be written.
pub fn write_figures(bench: &str, figures: &[Figure]) -> PathBuf {
    let folder = root().join("target/figures");
    fs::create_dir_all(&folder).expect("target/ can be written");
    let path = folder.join(format!("{bench}.jsonl"));
    let mut file = fs::File::create(&path).expect("target/figures can be written");
    for figure in figures {
        let ratio = figure.baseline.map(|baseline| figure.value / baseline);
        let line = serde_json::json!({
            "name": figure.name, "value": figure.value, "unit": figure.unit,
            "baseline": figure.baseline, "ratio": ratio,
        });
        writeln!(file, "{line}").expect("target/figures can be written");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_members() {
        let durations: Durations = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(durations.quantile(50), Duration::from_millis(100));
        assert_eq!(durations.quantile(99), Duration::from_millis(198));
        assert_eq!(durations.max(), Duration::from_millis(200));
        assert_eq!(Durations::default().quantile(99), Duration::ZERO);
        let one: Durations = [Duration::from_millis(7)].into_iter().collect();
        assert_eq!(one.quantile(50), Duration::from_millis(7));
    }
}
