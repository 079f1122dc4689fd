//! Durations in buckets, and figures: what people read, and the lines that are written; it measures nothing.

use std::fmt::Write as _;
use std::time::Duration;

/// Durations in logarithmic buckets, each at most 3 % wide.
#[derive(Debug, Clone, Default)]
pub(crate) struct Durations {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

const STEPS: u32 = 5; // 32 buckets for each doubling

impl Durations {
    pub(crate) fn add(&mut self, duration: Duration) {
        let bucket = bucket(u64::try_from(duration.as_nanos() / 1000).unwrap());
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.max = self.max.max(duration);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    /// Returns the upper edge of the bucket in which this quantile lies; zero of nothing.
    pub(crate) fn quantile(&self, percent: u64) -> Duration {
        let rank = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return Duration::from_micros(edge(bucket)).min(self.max);
            }
        }
        Duration::ZERO
    }
}

fn bucket(micros: u64) -> usize {
    let log = (micros | 1).ilog2();
    let index = match log.checked_sub(STEPS) {
        None => micros,
        Some(shift) => (u64::from(shift) << STEPS) + (micros >> shift),
    };
    usize::try_from(index).unwrap()
}

/// Returns the last value of a bucket.
fn edge(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap();
    let doublings = (bucket >> STEPS).saturating_sub(1);
    let step = bucket - (doublings << STEPS);
    ((step + 1) << doublings) - 1
}

/// One figure of a criterion.
#[derive(Debug, Clone)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// What it is compared with: theory, another run, or the limit.
    baseline: Option<f64>,
}

/// The figures of one criterion.
#[derive(Debug)]
pub(crate) struct Figures {
    criterion: &'static str,
    seed: u64,
    figures: Vec<Figure>,
}

impl Figures {
    pub(crate) fn new(criterion: &'static str, seed: u64) -> Self {
        Self {
            criterion,
            seed,
            figures: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(name.into(), value, unit, None);
    }

    /// Adds a figure beside what it is compared with.
    pub(crate) fn beside(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        baseline: f64,
    ) {
        self.push(name.into(), value, unit, Some(baseline));
    }

    fn push(&mut self, name: String, value: f64, unit: &'static str, baseline: Option<f64>) {
        self.figures.push(Figure {
            name,
            value,
            unit,
            baseline,
        });
    }

    /// Prints the figures; at full size writes them to `target/figures/sim-<criterion>.jsonl` too.
    pub(crate) fn publish(&self) {
        let mut text = format!("\n{}   SEED={}\n", self.criterion, self.seed);
        for figure in &self.figures {
            let Figure {
                name, value, unit, ..
            } = figure;
            write!(text, "  {name:<46} {value:>14.3} {unit:<10}").unwrap();
            if let Some(baseline) = figure.baseline {
                let ratio = value / baseline;
                write!(text, " beside {baseline:>12.3}, ratio {ratio:.3}").unwrap();
            }
            text.push('\n');
        }
        println!("{text}");
        if crate::size::is_full() {
            self.write();
        }
    }

    fn write(&self) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/figures");
        std::fs::create_dir_all(folder).unwrap();
        let line = |figure: &Figure| {
            let ratio = figure.baseline.map(|baseline| figure.value / baseline);
            let line = serde_json::json!({
                "name": figure.name, "value": figure.value, "unit": figure.unit,
                "baseline": figure.baseline, "ratio": ratio, "seed": self.seed,
            });
            format!("{line}\n")
        };
        let lines: String = self.figures.iter().map(line).collect();
        let path = format!("{folder}/sim-{}.jsonl", self.criterion);
        std::fs::write(path, lines).unwrap();
    }
}

/// Returns milliseconds with their fraction.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[test]
fn quantiles_are_within_a_bucket() {
    let mut durations = Durations::default();
    for n in 1..=100_000 {
        durations.add(Duration::from_micros(n));
    }
    let near = |d: Duration, micros: f64| (d.as_secs_f64() * 1e6 / micros - 1.0).abs() < 0.04;
    assert!(near(durations.quantile(50), 50_000.0));
    assert!(near(durations.quantile(99), 99_000.0));
    assert_eq!(durations.max(), Duration::from_millis(100));
    assert_eq!(Durations::default().quantile(99), Duration::ZERO);
}
