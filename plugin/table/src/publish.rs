//! The stores by which a record appears, changes and goes; it chooses neither block nor slot.
//!
//! Order, and what breaks without it (each shown by a model checker in `shared/proofs/table/loom.rs`):
//! 1. `fence(Release)` before a block is written: its new content is seen only by readers that also see
//!    the version which freed it;
//! 2. the slot, then the version: a reader with the new version has the new slot;
//! 3. a bucket's reach grows before a key lies that far out.

use crate::Word;
use crate::arena::{BLOCK_HEAD_WORDS, Head};
use crate::layout::{BUCKET_SLOTS, BUCKET_WORDS};

/// What one version is worth in a bucket's first word; below it lies the reach.
pub(crate) const VERSION: u64 = 256;
/// The reach of a bucket: how far behind it a key of its own may lie.
pub(crate) const REACH_MASK: u64 = 255;

/// Writes a record into a block that no slot names.
pub(crate) fn write_record<W: Word>(block: &[W], head: Head, key: &[u8], value: &[u8]) {
    W::fence_release();
    let (first, body) = block.split_at(BLOCK_HEAD_WORDS);
    for (word, value) in first.iter().zip(head.to_words()) {
        word.store(value);
    }
    let (keys, values) = body.split_at(key.len().div_ceil(8));
    store_bytes(keys, key);
    store_bytes(values, value);
}

/// Stores bytes, the last word filled up with zeros.
pub(crate) fn store_bytes<W: Word>(words: &[W], bytes: &[u8]) {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let (whole, last) = words.split_at(chunks.len());
    for (word, chunk) in whole.iter().zip(chunks) {
        word.store(u64::from_le_bytes(*chunk));
    }
    if !rest.is_empty() {
        let mut padded = [0; 8];
        padded[..rest.len()].copy_from_slice(rest);
        last[0].store(u64::from_le_bytes(padded));
    }
}

/// Puts `value` into a slot of a bucket: the one step that readers see.
pub(crate) fn publish<W: Word>(bucket: &[W; BUCKET_WORDS], slot: usize, value: u64) {
    debug_assert!(slot < BUCKET_SLOTS, "a bucket has seven slots");
    bucket[slot + 1].store_release(value);
    bump(bucket);
}

/// Raises a bucket's version: whatever a reader copied by it meanwhile is void.
pub(crate) fn bump<W: Word>(bucket: &[W; BUCKET_WORDS]) {
    bucket[0].store_release(bucket[0].load().wrapping_add(VERSION));
}

/// Lets readers of a home bucket look at least `distance` buckets far.
pub(crate) fn raise_reach<W: Word>(home: &[W; BUCKET_WORDS], distance: u64) {
    let version = home[0].load();
    if version & REACH_MASK < distance {
        home[0].store_release((version & !REACH_MASK).wrapping_add(VERSION) | distance);
    }
}
