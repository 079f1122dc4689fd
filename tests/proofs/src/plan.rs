//! The batches of the kill loop: each follows from a seed and its number alone, so that whoever is
//! killed forgets nothing.

use locus_proto::Change;
use locus_table::Geometry;

use crate::model::{Dice, LEVELS_PER_BATCH, Op, PARTITION, SAME, Universe, aor_key, index, mix};

/// Keys that frames change.
const KEYS: u64 = 4096;
/// Changes of a batch.
const CHANGES: u64 = 60;
/// Each so many batches, one also changes all keys of [`PARTITION`].
const ROUND: u64 = 16;
/// Deletions among a hundred changes.
const DELETES_PERCENT: u64 = 20;
/// By so much the lengths of values differ.
const VALUE_BYTES: u64 = 500;
/// A quarter full, with slabs for all size classes.
pub const KILL_GEOMETRY: Geometry = Geometry {
    buckets: 1200,
    arena_bytes: 8 << 20,
};

/// Returns all keys: those that only frames change, then those of [`PARTITION`].
pub fn kill_universe() -> Universe {
    Universe::new((0..KEYS).chain(SAME).map(aor_key).collect(), VALUE_BYTES)
}

/// Returns whether key `number` may rot.
pub(crate) fn may_rot(number: usize) -> bool {
    number >= index(KEYS)
}

/// Returns the operations of batch `number`, each of another key.
pub fn kill_ops(seed: u64, number: u64) -> Vec<Op> {
    let mut dice = Dice(mix(seed ^ number));
    // An odd step walks all of a power of two.
    let (start, step) = (dice.roll(KEYS), 2 * dice.roll(KEYS / 2) + 1);
    let frame = (0..CHANGES).map(|at| (start + at * step) % KEYS);
    let special = is_special(number);
    let partition = (KEYS..).take(if special { SAME.len() } else { 0 });
    let first = (number - 1) * LEVELS_PER_BATCH + 1;
    frame
        .chain(partition)
        .zip(first..)
        .map(|(key, level)| Op {
            key: index(key),
            level,
            delete: dice.roll(100) < DELETES_PERCENT,
        })
        .collect()
}

fn is_special(number: u64) -> bool {
    number % ROUND == ROUND - 1
}

/// Returns what [`PARTITION`] holds after batch `number`: the last one that changed it said so.
pub fn kill_content(universe: &Universe, seed: u64, number: u64) -> Vec<Change> {
    debug_assert_eq!(universe.partition(index(KEYS)), PARTITION);
    let last = (number + 1) / ROUND * ROUND;
    let Some(last) = last.checked_sub(1) else {
        return Vec::new();
    };
    kill_ops(seed, last)
        .into_iter()
        .filter(|op| may_rot(op.key) && !op.delete)
        .map(|op| universe.change(op))
        .collect()
}
