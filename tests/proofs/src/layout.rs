//! Where a few words of a table's memory stand, written down a second time: for observers who must not
//! ask the table. `plugin/table/src/layout.rs` draws the whole.

use std::sync::atomic::{AtomicU64, Ordering};

use locus_proto::Key;
use locus_table::{FORMAT, Geometry, Memory, PARTITIONS, PROBE, Reader};

use crate::model::index;

/// The format that this describes.
const DESCRIBED: u64 = 2;
const _: () = assert!(
    FORMAT == DESCRIBED,
    "look through tests/proofs/src/layout.rs"
);

/// Number of the last batch that was begun.
pub(crate) const AT_BEGIN: usize = 16;
/// Number of the last batch that is done.
pub(crate) const AT_DONE: usize = 17;
/// The partition that the journal's batch repairs, plus one; zero for a batch of a frame.
pub(crate) const AT_REPAIRS: usize = 26;
/// First word behind those of the header that change.
pub(crate) const HEADER_END: usize = 512;
/// First of three words for each partition.
pub(crate) const AT_ACCOUNTS: usize = HEADER_END;
/// Words of a partition's account.
pub(crate) const ACCOUNT_WORDS: usize = 3;
/// Lengths of prefixes in use.
pub(crate) const AT_LENGTHS: usize = AT_ACCOUNTS + PARTITIONS * ACCOUNT_WORDS;
/// The journal.
pub(crate) const AT_JOURNAL: usize = AT_LENGTHS + 1024;
/// The index.
pub(crate) const AT_INDEX: usize = 262_144;
/// Words of a bucket: version and reach, then seven slots.
pub(crate) const BUCKET_WORDS: usize = 8;

const HUGE_WORDS: usize = 256 * 1024;

/// Returns the end of the index.
pub(crate) fn index_end(geometry: Geometry) -> usize {
    AT_INDEX + index(geometry.buckets + PROBE) * BUCKET_WORDS
}

/// Returns the first word of the arena.
pub(crate) fn arena_start(geometry: Geometry) -> usize {
    index_end(geometry).next_multiple_of(HUGE_WORDS)
}

/// Returns the first word of the block that a slot names.
pub(crate) fn block_of(geometry: Geometry, slot: u64) -> usize {
    arena_start(geometry) + index(slot & ((1 << 40) - 1)) * 2
}

/// Loads a word.
pub(crate) fn load(words: &[AtomicU64], at: usize) -> u64 {
    words[at].load(Ordering::Relaxed)
}

/// Returns the first word of the record of `key`; `None` if there is none.
pub fn find_block<M: Memory<Word = AtomicU64>>(
    reader: &Reader<M>,
    words: &[AtomicU64],
    geometry: Geometry,
    key: &Key,
) -> Option<usize> {
    let mut home = AT_INDEX;
    reader.prefetch(key.as_bytes(), |word| {
        home = (std::ptr::from_ref(word).addr() - words.as_ptr().addr()) / size_of::<AtomicU64>();
    });
    let end = index_end(geometry).min(home + (index(PROBE) + 1) * BUCKET_WORDS);
    let slots = (home..end).filter(|at| at % BUCKET_WORDS != 0);
    let named = slots.map(|at| load(words, at)).filter(|slot| *slot != 0);
    named
        .map(|slot| block_of(geometry, slot))
        .find(|block| holds(words, *block, key.as_bytes()))
}

fn holds(words: &[AtomicU64], block: usize, key: &[u8]) -> bool {
    let [k0, k1, ..] = load(words, block).to_le_bytes();
    usize::from(u16::from_le_bytes([k0, k1])) == key.len()
        && key.chunks(8).zip(block + 2..).all(|(chunk, at)| {
            let bytes = load(words, at).to_le_bytes();
            chunk == &bytes[..chunk.len()]
        })
}

/// How a record rots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rot {
    /// A word of the value: look-ups return it until it is replaced.
    Value,
    /// The check word, which look-ups do not look at.
    Check,
    /// The length of the value: no look-up can answer.
    Length,
}

/// Spoils the record of which `block` is the first word, by a store that no writer of a table makes.
pub fn spoil(words: &[AtomicU64], block: usize, key: &Key, rot: Rot) {
    let value = block + 2 + key.as_bytes().len().div_ceil(8);
    let (at, bits) = match rot {
        Rot::Value => (value + crate::model::ROTTEN_WORD, u64::MAX),
        Rot::Check => (block, 1 << 40),
        Rot::Length => (block, 0x7000 << 16),
    };
    words[at].store(load(words, at) ^ bits, Ordering::Relaxed);
}
