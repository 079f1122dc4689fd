//! Look-ups in all systems, in rounds that alternate between them: what disturbs a round disturbs all.
//! Knows how rounds are run and added up, not what a figure is called.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use locus_agent::Mapping;
use locus_bench::{Random, Ratio, Rounds};
use locus_lab::wait;
use locus_table::Writer;

use crate::chain::{Chain, Fetch, Times};
use crate::draw::Draw;
use crate::gate::{Gate, Party};
use crate::systems::{Kit, Query, System};
use crate::{busy, population};

/// A limit whose p99 is so many times its p50 is none; undisturbed, it is two times.
const DISTURBED: f64 = 4.0;

/// What one system took, round by round, in nanoseconds, without clock and chain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Took {
    /// Median of single look-ups.
    pub p50: Rounds,
    /// 99th hundredth of single look-ups.
    pub p99: Rounds,
    /// Median of batches.
    pub batch: Rounds,
}

impl Took {
    /// Adds one round, from which `clock` is taken off.
    pub(crate) fn push(&mut self, round: &mut Round, clock: Clock) {
        self.p50.push(round.singles.quantile(50) - clock.single);
        self.p99.push(round.singles.quantile(99) - clock.single);
        self.batch.push(round.batches.quantile(50) - clock.batch);
    }

    /// Whether this cannot be the limit: one look-up in a hundred took so much longer than the median that
    /// memory cannot have been all there. Seen where the host of a virtual machine pages: the machine itself
    /// counts no fault then.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.p99.median() > self.p50.median() * DISTURBED
    }

    /// Ratios of the medians over rounds to those of `limit`: p50, p99, batch.
    pub(crate) fn ratios(&self, limit: &Self) -> [Ratio; 3] {
        [
            self.p50.ratio(&limit.p50),
            self.p99.ratio(&limit.p99),
            self.batch.ratio(&limit.batch),
        ]
    }
}

/// One situation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell<'s> {
    /// What is asked in turn.
    pub systems: &'s [System],
    /// Rounds of single look-ups, and as many of batches.
    pub rounds: usize,
    /// Tells the queries of one cell from those of another.
    pub seed: u64,
}

/// What a system took in one round, of one reader or of all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Round {
    pub singles: Times,
    pub batches: Times,
}

impl Round {
    /// What the two loops take without a look-up.
    pub(crate) fn of_clock<Q>(chain: &Chain<Q>) -> Self {
        let (singles, batches) = chain.clock();
        Self { singles, batches }
    }
}

/// What clock and chain take for one look-up in one round.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clock {
    single: f64,
    batch: f64,
}

impl Clock {
    /// What a round without look-ups says.
    pub(crate) fn of(round: &mut Round) -> Self {
        Self {
            single: round.singles.quantile(50),
            batch: round.batches.quantile(50),
        }
    }
}

impl Cell<'_> {
    /// Runs one thread for each kit, all at the same system at the same time. Returns what each of
    /// `systems` took, and what clock and chain took before they were taken off.
    ///
    /// # Panics
    /// When an answer is wrong, or Ctrl-C arrives.
    pub(crate) fn run(&self, kits: &mut [Kit<'_>], draw: &Draw) -> (Vec<Took>, Took) {
        let gate = Gate::new(kits.len());
        let per_reader: Vec<Vec<Vec<Round>>> = thread::scope(|scope| {
            let threads: Vec<_> = (0_u64..)
                .zip(kits.iter_mut())
                .map(|(reader, kit)| {
                    let party = gate.party();
                    scope.spawn(move || self.read(kit, draw, reader, &party))
                })
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        assert!(!wait::interrupted(), "interrupted");
        add_up(per_reader, self.systems.len())
    }

    /// One reader: by round and system, the empty loops first.
    fn read(
        &self,
        kit: &mut Kit<'_>,
        draw: &Draw,
        reader: u64,
        party: &Party<'_>,
    ) -> Vec<Vec<Round>> {
        let mut random = Random::new(self.seed << 8 | reader);
        let mut rounds = Vec::with_capacity(self.rounds);
        for round in 0..self.rounds {
            let mut took = vec![Round::default(); self.systems.len() + 1];
            for timing in [Timing::Singles, Timing::Batches] {
                let chain = Chain::new(|answer| {
                    let n = draw.next(&mut random);
                    answer.extend(population::value(n, 0));
                    Query::new(n)
                });
                for turn in 0..self.systems.len() {
                    // Each is as often the first, the second, the last.
                    let at = (turn + round) % self.systems.len();
                    party.wait();
                    kit.run(timing, &mut took[at + 1], self.systems[at], &chain);
                }
                took[0] = Round::of_clock(&chain);
            }
            rounds.push(took);
        }
        rounds
    }
}

/// Which of the two clocks runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Timing {
    /// Around each look-up.
    Singles,
    /// Around each batch.
    Batches,
}

impl Timing {
    /// Times one chain in one system.
    pub(crate) fn run<Q>(
        self,
        round: &mut Round,
        chain: &Chain<Q>,
        system: &mut impl Fetch<Q>,
        is_right: impl Fn(&Q, &[u8]) -> bool,
    ) {
        match self {
            Self::Singles => round.singles = chain.singles(system, is_right),
            Self::Batches => round.batches = chain.batches(system),
        }
    }
}

/// Adds up all readers of each round, and takes the harness off.
fn add_up(per_reader: Vec<Vec<Vec<Round>>>, systems: usize) -> (Vec<Took>, Took) {
    let mut readers = per_reader.into_iter();
    let mut all = readers.next().unwrap_or_default();
    for other in readers {
        for (round, other) in all.iter_mut().flatten().zip(other.into_iter().flatten()) {
            round.singles.join(other.singles);
            round.batches.join(other.batches);
        }
    }
    let (mut took, mut harness) = (vec![Took::default(); systems], Took::default());
    for round in &mut all {
        let Some((empty, round)) = round.split_first_mut() else {
            continue;
        };
        harness.push(empty, Clock::default());
        let clock = Clock::of(empty);
        for (took, round) in took.iter_mut().zip(round) {
            took.push(round, clock);
        }
    }
    (took, harness)
}

/// Calls `read` while a writer is busy in the table; returns what it returned and the updates a second.
///
/// # Panics
/// When a batch does not fit.
pub(crate) fn beside_writer<T>(
    writer: &mut Writer<Mapping>,
    count: usize,
    read: impl FnOnce() -> T,
) -> (T, f64) {
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let worker = scope.spawn(|| busy::write(writer, count, &stop, &done));
        let _stops = Stops(&stop);
        wait::until(
            "the first batch",
            std::time::Duration::from_secs(10),
            || done.load(Ordering::Relaxed) > 0 || worker.is_finished(),
        );
        let (start, before) = (wait::now(), done.load(Ordering::Relaxed));
        let result = read();
        let updates = done.load(Ordering::Relaxed) - before;
        let rate = locus_bench::float(updates) / start.elapsed().as_secs_f64();
        (result, rate)
    })
}

/// Stops a writer when it goes, also by a panic.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
