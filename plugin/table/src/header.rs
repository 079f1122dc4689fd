//! The header's changing words: the batch sequence and where the table stands; it changes no record.
//!
//! ```text
//! begin, done   a batch numbered n is applied iff done = n; it may be half applied iff begin = n, done = n - 1
//! marks[2]      where the table stands after batch n is in marks[n mod 2], written before begin = n
//! ```
//! So the position switches with the one store of `done`, and a batch that died half-way has its outcome
//! beside its journal.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use locus_proto::{Epoch, EpochId, Level, Position, Root};

use crate::Word;
use crate::audit::Account;
use crate::layout::{AT_BEGIN, AT_DONE, AT_MARKS};

/// Bounds the reading of a position; each repetition means that two batches ended meanwhile.
const TRIES_MAX: usize = 1000;
const MARK_WORDS: usize = 8;

/// Where a table stands and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) position: Position,
    pub(crate) records: u64,
    /// Bytes of all keys and values.
    pub(crate) bytes: u64,
}

impl Mark {
    /// Returns the mark of a table that holds this and stands otherwise where this mark says.
    pub(crate) fn with(self, account: Account) -> Self {
        let position = Position {
            root: account.sum,
            ..self.position
        };
        Self {
            position,
            records: account.records,
            bytes: account.bytes,
        }
    }

    /// Returns what the table holds.
    pub(crate) fn account(self) -> Account {
        Account {
            sum: self.position.root,
            records: self.records,
            bytes: self.bytes,
        }
    }
}

#[inline]
fn load<W: Word>(words: &[W], at: usize) -> u64 {
    words.get(at).map_or(0, Word::load)
}

/// Returns the number of the last batch that was begun.
#[inline]
pub(crate) fn begin<W: Word>(words: &[W]) -> u64 {
    load(words, AT_BEGIN)
}

/// Returns the number of the last batch that is done.
#[inline]
pub(crate) fn done<W: Word>(words: &[W]) -> u64 {
    load(words, AT_DONE)
}

/// Returns the number of the last batch if none is being applied.
#[inline]
pub(crate) fn quiet<W: Word>(words: &[W]) -> Option<u64> {
    let done = done(words);
    W::fence_acquire();
    let quiet = begin(words) == done;
    W::fence_acquire();
    quiet.then_some(done)
}

fn mark_at(sequence: u64) -> usize {
    if sequence & 1 == 0 {
        AT_MARKS
    } else {
        AT_MARKS.saturating_add(MARK_WORDS)
    }
}

/// Returns where the table stands after the batch `sequence`.
pub(crate) fn mark<W: Word>(words: &[W], sequence: u64) -> Mark {
    let mut line = [0; MARK_WORDS];
    let from = words.get(mark_at(sequence)..).unwrap_or(&[]);
    for (to, word) in line.iter_mut().zip(from) {
        *to = word.load();
    }
    let [level, counter, low, high, root0, root1, records, bytes] = line;
    let id = u128::from(low) | u128::from(high) << 64;
    Mark {
        position: Position {
            epoch: Epoch {
                counter,
                id: EpochId(id.to_le_bytes()),
            },
            level: Level(level),
            root: Root([root0, root1]),
        },
        records,
        bytes,
    }
}

/// Returns where the table stands, whole, beside a writer.
pub(crate) fn current_mark<W: Word>(words: &[W]) -> Mark {
    let mut found = Mark::default();
    for _ in 0..TRIES_MAX {
        let sequence = done(words);
        W::fence_acquire();
        found = mark(words, sequence);
        W::fence_acquire();
        // Batch `sequence + 2` overwrites the mark, and begins only after `sequence + 1` is done.
        if done(words) == sequence {
            break;
        }
    }
    found
}

/// Stores where the table will stand after the batch `sequence`.
pub(crate) fn store_mark<W: Word>(words: &[W], sequence: u64, mark: Mark) {
    // Whoever sees a word of it also sees that batch `sequence - 1` is done, and reads again.
    W::fence_release();
    let Position { epoch, level, root } = mark.position;
    let id = u128::from_le_bytes(epoch.id.0).to_le_bytes();
    let mut halves = id
        .as_chunks::<8>()
        .0
        .iter()
        .copied()
        .map(u64::from_le_bytes);
    let (low, high) = (halves.next().unwrap_or(0), halves.next().unwrap_or(0));
    let Root([root0, root1]) = root;
    let line = [
        level.0,
        epoch.counter,
        low,
        high,
        root0,
        root1,
        mark.records,
        mark.bytes,
    ];
    let to = words.get(mark_at(sequence)..).unwrap_or(&[]);
    for (word, value) in to.iter().zip(line) {
        word.store(value);
    }
}

/// Marks the batch as begun: its journal and mark are whole, none of its changes is visible yet.
pub(crate) fn store_begin<W: Word>(words: &[W], sequence: u64) {
    if let Some(word) = words.get(AT_BEGIN) {
        word.store_release(sequence);
    }
    // Whoever sees one of its changes also sees that it began.
    W::fence_release();
}

/// Marks the batch as done: all of its changes are visible.
pub(crate) fn store_done<W: Word>(words: &[W], sequence: u64) {
    if let Some(word) = words.get(AT_DONE) {
        word.store_release(sequence);
    }
}
