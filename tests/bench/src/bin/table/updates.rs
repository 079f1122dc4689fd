//! What an update costs the writer, and how many a second there can be while others read.
//! Knows the product's writer, and readers as something that keeps a rate.
//!
//! A frame says which content it leads to. That is worked out beforehand: every frame here changes
//! subscribers that no other frame changes, so what it adds to the root does not depend on the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use locus_agent::Mapping;
use locus_bench::{Random, Rounds, float};
use locus_lab::wait;
use locus_proto::{Frame, FrameHeader, FrameKind, MasterTime, Root};
use locus_table::Writer;

use crate::busy;
use crate::chain::Fetch as _;
use crate::clock::timed;
use crate::gate::Gate;
use crate::load::EPOCH;
use crate::population;
use crate::systems::{Query, Table};

/// Sizes of batches.
pub(crate) const SIZES: [usize; 3] = [1, 100, 1_000];
/// Updates of each size in one round.
const ROUND: usize = 4_000;
/// A prime that divides no power of ten: visits every subscriber once before one twice.
const STRIDE: usize = 7_368_787;
/// Behind all turns of the busy writer, so that every refresh changes something.
const TURN: u32 = 1 << 20;
/// Look-ups a second that each reader is to keep.
pub(crate) const LOOK_UPS_PER_SECOND: usize = 100_000;
/// A reader wakes this often and does what is due.
const TICK: Duration = Duration::from_millis(1);

/// Makes frames of refreshes, no subscriber twice.
pub(crate) struct Frames {
    count: usize,
    next: usize,
}

impl Frames {
    /// Refreshes subscribers `0..count`.
    pub(crate) fn new(count: usize) -> Self {
        Self { count, next: 0 }
    }

    /// Makes frames of these sizes, to be applied in this order to the table as it is now.
    ///
    /// # Panics
    /// When there are not as many subscribers left, or one does not fit.
    pub(crate) fn make(
        &mut self,
        writer: &Writer<Mapping>,
        sizes: impl IntoIterator<Item = usize>,
    ) -> Vec<Frame> {
        let now = writer.position();
        let mut position = now;
        let mut frames = Vec::new();
        for size in sizes {
            let (count, next) = (self.count, &mut self.next);
            let changes = busy::batch(position.level, size, TURN, || {
                *next += 1;
                *next * STRIDE % count
            });
            assert!(self.next <= count, "a subscriber would come twice");
            let prepared = writer
                .prepare(&changes)
                .unwrap_or_else(|error| panic!("a batch does not fit: {error}"));
            let added: Root = prepared.root_after().minus(now.root);
            let header = FrameHeader {
                kind: FrameKind::Changes,
                shard: 0,
                epoch: EPOCH,
                from: position.level,
                to: position
                    .level
                    .plus(u64::try_from(changes.len()).unwrap_or(0)),
                root_before: position.root,
                root_after: position.root.plus(added),
                time: MasterTime(0),
            };
            position = header.after();
            frames.push(Frame { header, changes });
        }
        frames
    }
}

/// CPU time of the writer for one update, in microseconds, by [`SIZES`]: `Writer::apply`, which checks,
/// hashes, writes the journal and the records, and sums.
///
/// # Panics
/// When a frame is refused.
pub(crate) fn cpu(writer: &mut Writer<Mapping>, frames: &mut Frames, rounds: usize) -> [Rounds; 3] {
    let of_round = || SIZES.iter().flat_map(|size| vec![*size; ROUND / size]);
    let all = frames.make(writer, (0..rounds).flat_map(|_| of_round()));
    let mut all = all.iter();
    let mut took: [Rounds; 3] = Default::default();
    for _ in 0..rounds {
        for (took, size) in took.iter_mut().zip(SIZES) {
            let (_, cpu) = timed(|| {
                for frame in all.by_ref().take(ROUND / size) {
                    apply(writer, frame);
                }
            });
            took.push(cpu.as_secs_f64() * 1e6 / float(ROUND));
        }
    }
    took
}

fn apply(writer: &mut Writer<Mapping>, frame: &Frame) {
    writer
        .apply(frame)
        .unwrap_or_else(|error| panic!("a frame is refused: {error}"));
}

/// What was reached.
#[derive(Debug, Clone)]
pub(crate) struct Reached {
    /// Updates a second.
    pub updates: f64,
    /// CPU time of the writer as a share of the time.
    pub writer_share: f64,
    /// Look-ups a second of each reader.
    pub look_ups: Vec<f64>,
    /// CPU time of each reader as a share of the time.
    pub reader_shares: Vec<f64>,
}

/// Applies `frames` at `updates_per_second`, or one behind the other if there is no such number, while
/// each of `readers` looks up [`LOOK_UPS_PER_SECOND`].
///
/// # Panics
/// When a frame is refused or an answer is wrong.
pub(crate) fn beside_readers(
    writer: &mut Writer<Mapping>,
    frames: &[Frame],
    readers: &mut [Table],
    count: usize,
    updates_per_second: Option<usize>,
) -> Reached {
    let stop = AtomicBool::new(false);
    let gate = Gate::new(readers.len() + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0_u64..)
            .zip(readers)
            .map(|(seed, table)| {
                let (party, stop) = (gate.party(), &stop);
                scope.spawn(move || {
                    party.wait();
                    read(table, count, seed, stop)
                })
            })
            .collect();
        let party = gate.party();
        party.wait();
        let start = wait::now();
        let (updates, cpu) = timed(|| {
            let mut updates = 0;
            for frame in frames {
                apply(writer, frame);
                updates += frame.changes.len();
                if let Some(rate) = updates_per_second {
                    let due = Duration::from_secs_f64(float(updates) / float(rate));
                    wait::pause(due.saturating_sub(start.elapsed()));
                }
            }
            updates
        });
        let took = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        let read: Vec<(f64, f64)> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect();
        Reached {
            updates: float(updates) / took.as_secs_f64(),
            writer_share: cpu.as_secs_f64() / took.as_secs_f64(),
            look_ups: read.iter().map(|(rate, _)| *rate).collect(),
            reader_shares: read.iter().map(|(_, share)| *share).collect(),
        }
    })
}

/// Looks up at the rate that is to be kept, what is late at once, until `stop`. Returns look-ups a second
/// and CPU time as a share.
fn read(table: &mut Table, count: usize, seed: u64, stop: &AtomicBool) -> (f64, f64) {
    let mut random = Random::new(seed);
    let start = wait::now();
    let (done, cpu) = timed(|| {
        let mut done = 0;
        while !stop.load(Ordering::Relaxed) {
            let due =
                start.elapsed().as_micros() * u128::try_from(LOOK_UPS_PER_SECOND).unwrap_or(0);
            let due = usize::try_from(due / 1_000_000).unwrap_or(0);
            while done < due {
                let query = Query::new(random.below(count));
                let found = table.fetch(&query);
                let right = found.is_some_and(|value| population::is_of(&query.key, value));
                assert!(right, "a wrong answer for subscriber {}", query.n);
                done += 1;
            }
            wait::pause(TICK);
        }
        done
    });
    let seconds = start.elapsed().as_secs_f64();
    (float(done) / seconds, cpu.as_secs_f64() / seconds)
}
