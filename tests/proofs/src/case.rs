//! Small batches to be watched instruction by instruction, with what is true before and after each.

use std::sync::atomic::AtomicU64;

use locus_proto::{Digits, Key, Level, Position};
use locus_table::{Geometry, Memory, Writer};

use crate::expect::Model;
use crate::layout::{self, Rot};
use crate::model::{Dice, EPOCH, LEVELS_PER_BATCH, Op, PARTITION, SAME, Universe, aor_key, index};

/// By so much the lengths of values differ: sizes change, and each byte is hashed in single steps.
const VALUE_BYTES: u64 = 64;
const ORDINARY: u64 = 24;
const CHANGES: u64 = 8;
/// Keys of [`PARTITION`] that the table holds at first.
const SAME_HELD: usize = 12;

/// What the writer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Applies a frame's batch.
    Apply,
    /// Repairs a partition that differs and has rotted.
    Repair,
}

/// A table, an operation on it, and what is true before and after.
#[derive(Debug)]
pub struct Case {
    what: What,
    /// All keys.
    pub(crate) universe: Universe,
    first: Vec<Vec<Op>>,
    ops: Vec<Op>,
    /// Records that rot before the operation.
    pub(crate) rotten: Vec<(usize, Rot)>,
    /// What holds before it, but for the rot.
    pub(crate) before: Model,
    /// What holds afterwards.
    pub(crate) after: Model,
}

impl Case {
    /// Few buckets, so that keys are displaced and lines are shared.
    pub const GEOMETRY: Geometry = Geometry {
        buckets: 4,
        arena_bytes: 1 << 20,
    };
    /// Number of the last batch before the operation; the operation's is the next.
    pub(crate) const SEQUENCE: u64 = 2;
    /// A number of which some prefix always has a route.
    pub(crate) const DIALLED: &str = "493012345";

    /// Returns the case that follows from a seed.
    pub fn new(what: What, seed: u64) -> Self {
        let route = |digits| Key::route(Digits::parse(digits).expect("these are digits"));
        let keys = (0..ORDINARY).chain(SAME).map(aor_key);
        let keys = keys.chain(["49", "4930"].map(route)).collect();
        let universe = Universe::new(keys, VALUE_BYTES);
        let mut dice = Dice(seed);
        let ordinary = index(ORDINARY);
        let (shorter, longer) = (ordinary + SAME.len(), ordinary + SAME.len() + 1);
        let first = vec![
            puts((0..ordinary + SAME_HELD).chain([shorter]), 1),
            puts((0..ordinary).step_by(2), LEVELS_PER_BATCH + 1),
        ];
        let mut before = Model::with_sums(&universe);
        first.iter().for_each(|ops| before.apply(&universe, ops));
        let mut after = before.clone();
        let (mut ops, mut rotten) = (Vec::new(), Vec::new());
        match what {
            What::Apply => {
                let (start, step) = (dice.roll(ORDINARY), [1, 5, 7, 11][index(dice.roll(4))]);
                // Two of them are not there yet, or not any more.
                let frame = (0..CHANGES).map(|at| index((start + at * step) % ORDINARY));
                let frame = frame.chain([ordinary + SAME_HELD, ordinary + SAME_HELD + 1]);
                ops = puts(
                    frame.chain([longer, shorter]),
                    Self::SEQUENCE * LEVELS_PER_BATCH + 1,
                );
                for op in &mut ops {
                    op.delete = op.key == shorter
                        || op.key == ordinary + SAME_HELD + 1
                        || op.key < ordinary && dice.roll(4) == 0;
                }
                after.apply(&universe, &ops);
            }
            What::Repair => {
                let start = index(dice.roll(count_held()));
                let key = |number| ordinary + (start + number) % SAME_HELD;
                // Another level, one too many, one too few; and rot of three kinds.
                after.set(&universe, key(0), LEVELS_PER_BATCH + 50);
                after.set(&universe, key(1), 0);
                after.set(&universe, ordinary + SAME_HELD, LEVELS_PER_BATCH + 51);
                rotten = vec![
                    (key(2), Rot::Value),
                    (key(3), Rot::Check),
                    (key(4), Rot::Length),
                ];
            }
        }
        Self {
            what,
            universe,
            first,
            ops,
            rotten,
            before,
            after,
        }
    }

    /// Makes the table what it is before the operation.
    ///
    /// # Errors
    /// If the table refuses.
    pub fn prepare<M: Memory<Word = AtomicU64>>(
        &self,
        writer: &mut Writer<M>,
    ) -> Result<(), String> {
        for (ops, batch) in self.first.iter().zip(1..) {
            self.apply(writer, ops, batch)?;
        }
        for (key, rot) in &self.rotten {
            let (words, key) = (writer.memory().words(), &self.universe.keys()[*key]);
            let block = layout::find_block(&writer.reader(), words, Self::GEOMETRY, key);
            let block = block.ok_or("the record that is to rot is not there")?;
            layout::spoil(words, block, key, *rot);
        }
        Ok(())
    }

    /// Does the operation.
    ///
    /// # Errors
    /// If the table refuses.
    pub fn operate<M: Memory>(&self, writer: &mut Writer<M>) -> Result<(), String> {
        match self.what {
            What::Apply => self.apply(writer, &self.ops, Self::SEQUENCE + 1),
            What::Repair => {
                let content = self.after.content(&self.universe, PARTITION);
                let repaired = writer.repair(PARTITION, &content);
                let repaired = repaired.map_err(|error| error.to_string())?;
                if repaired.differed == 6 && repaired.batches == 1 {
                    Ok(())
                } else {
                    Err(format!("{repaired:?}, not 6 records in one batch"))
                }
            }
        }
    }

    fn apply<M: Memory>(
        &self,
        writer: &mut Writer<M>,
        ops: &[Op],
        batch: u64,
    ) -> Result<(), String> {
        let changes: Vec<_> = ops.iter().map(|op| self.universe.change(*op)).collect();
        let prepared = writer
            .prepare(&changes)
            .map_err(|error| error.to_string())?;
        let to = Position {
            epoch: EPOCH,
            level: Level(batch * LEVELS_PER_BATCH),
            root: prepared.root_after(),
        };
        writer.commit(prepared, &changes, to);
        Ok(())
    }
}

fn count_held() -> u64 {
    crate::model::count(SAME_HELD)
}

fn puts(keys: impl Iterator<Item = usize>, first: u64) -> Vec<Op> {
    keys.zip(first..)
        .map(|(key, level)| Op {
            key,
            level,
            delete: false,
        })
        .collect()
}
