//! A writer that is busy while others read: a batch each millisecond. Knows subscribers and how a batch is
//! applied, measures nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use locus_agent::Mapping;
use locus_bench::Random;
use locus_lab::wait;
use locus_proto::{Change, Level, Position};
use locus_table::Writer;

use crate::population;

/// Updates in one batch.
pub(crate) const BATCH: usize = 100;
/// One batch in this time: 100,000 updates a second are asked for.
const EVERY: Duration = Duration::from_millis(1);

/// Keeps a writer to one batch in [`EVERY`]; one that is late does not catch up.
pub(crate) struct Pace {
    due: Instant,
}

impl Pace {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self { due: wait::now() }
    }

    /// Waits until the next batch is due.
    pub(crate) fn wait(&mut self) {
        let now = wait::now();
        self.due = (self.due + EVERY).max(now);
        wait::pause(self.due - now);
    }
}

/// Applies batches of refreshes of random subscribers until `stop`; counts the updates in `done`.
///
/// # Panics
/// When a batch does not fit.
pub(crate) fn write(
    writer: &mut Writer<Mapping>,
    count: usize,
    stop: &AtomicBool,
    done: &AtomicUsize,
) {
    let mut random = Random::new(4_242);
    let mut pace = Pace::new();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        apply(
            writer,
            &batch(writer.position().level, BATCH, turn, || random.below(count)),
        );
        done.fetch_add(BATCH, Ordering::Relaxed);
        pace.wait();
    }
}

/// A batch of refreshes behind `level`; a subscriber that `draw` gives twice comes once.
pub(crate) fn batch(
    level: Level,
    size: usize,
    turn: u32,
    mut draw: impl FnMut() -> usize,
) -> Vec<Change> {
    let mut drawn: Vec<usize> = (0..size).map(|_| draw()).collect();
    drawn.sort_unstable();
    drawn.dedup();
    let changes = drawn.into_iter().zip(1_u64..);
    changes
        .map(|(n, number)| population::change(n, turn, level.plus(number)))
        .collect()
}

/// Applies changes as a master does: prepared, then committed.
///
/// # Panics
/// When they do not fit.
fn apply(writer: &mut Writer<Mapping>, changes: &[Change]) {
    let prepared = writer
        .prepare(changes)
        .unwrap_or_else(|error| panic!("a batch does not fit: {error}"));
    let position = writer.position();
    let to = Position {
        level: position
            .level
            .plus(u64::try_from(changes.len()).unwrap_or(0)),
        root: prepared.root_after(),
        ..position
    };
    writer.commit(prepared, changes, to);
}
