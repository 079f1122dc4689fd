//! How a reader finds a record while a writer changes it; it stores nothing.
//!
//! A bucket's version is loaded, then its slots; a block is copied whole, and the copy counts only if
//! version and slot are still the same. What it holds is looked at afterwards, in the copy: nothing a
//! writer can do, dead or alive, makes a reader wait, and no bytes in the memory make it panic.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use locus_proto::Level;

use crate::arena::{BLOCK_HEAD_BYTES, Head, KEY_BYTES_MAX, class_for, class_words};
use crate::audit::Hashes;
use crate::layout::{BUCKET_SLOTS, BUCKET_WORDS, Layout, PROBE, index};
use crate::publish::REACH_MASK;
use crate::{Memory, Word};

/// Bounds a look-up: each repetition means that a record of the same bucket was changed meanwhile.
pub(crate) const RETRIES_MAX: usize = 1000;

const TAG_SHIFT: u32 = 48;
const TAG_MASK: u64 = 0xffff;
const CLASS_SHIFT: u32 = 40;
const CLASS_MASK: u64 = 0xff;
const OFFSET_MASK: u64 = (1 << CLASS_SHIFT) - 1;
/// Words of the unit that offsets count: 16 bytes.
const UNIT_WORDS: usize = 2;

/// Why a look-up cannot be answered; never the same as "there is no such record".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// There is no control region: no agent has run here.
    #[error("there is no agent's folder")]
    NoControl,
    /// There is no complete table yet.
    #[error("there is no table yet")]
    NoTable,
    /// The table cannot be mapped or is of an unknown format.
    #[error("the table cannot be read")]
    Unreadable,
    /// It changed under the reader too often.
    #[error("the table changes too fast")]
    Busy,
    /// Its memory contradicts itself.
    #[error("the table is corrupt")]
    Corrupt,
}

/// A record that was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) level: Level,
    pub(crate) check: u32,
    /// Where the value begins in the buffer, and its bytes.
    at: usize,
    len: usize,
}

impl Hit {
    /// Returns the value from the buffer that was copied to.
    #[inline]
    pub(crate) fn value(self, buffer: &[u8]) -> Option<&[u8]> {
        buffer.get(self.at..)?.get(..self.len)
    }
}

/// A slot of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) bucket: u64,
    pub(crate) slot: usize,
    pub(crate) word: u64,
}

/// Outcome of a look-up; the value lies in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    Found(Hit, Place),
    Absent,
    Unavailable(Reason),
}

/// What a block turned out to hold.
enum Looked {
    /// Another key with the same tag.
    Other,
    /// The record.
    Hit(Hit),
    /// Lengths that cannot be.
    Broken,
}

/// A record as a scan reads it: its block is in the buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scanned {
    pub(crate) head: Head,
    pub(crate) word: u64,
}

impl Scanned {
    /// Returns key and value from the buffer that was read into; `None` if they cannot be.
    pub(crate) fn split(self, buffer: &[u8]) -> Option<(&[u8], &[u8])> {
        let body = buffer.get(BLOCK_HEAD_BYTES..)?;
        let (keys, values) =
            body.split_at_checked(self.head.key_len.checked_next_multiple_of(8)?)?;
        let (key, rest) = keys.split_at_checked(self.head.key_len)?;
        // Look-ups compare whole words: a key that is not filled up with zeros is found by none.
        let is_filled_up = rest.iter().all(|byte| *byte == 0);
        is_filled_up.then_some((key, values.get(..self.head.value_len)?))
    }
}

/// The parts of a table that a look-up touches.
pub(crate) struct View<'a, W> {
    /// Buckets, with [`PROBE`] more behind the last home.
    pub(crate) index: &'a [W],
    pub(crate) arena: &'a [W],
    pub(crate) buckets: u64,
    pub(crate) hashes: &'a Hashes,
}

impl<W> Clone for View<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for View<'_, W> {}

/// Returns the slot word of a block.
pub(crate) fn slot_word(hash: u64, class: u8, offset: u64) -> u64 {
    (hash & TAG_MASK) << TAG_SHIFT | u64::from(class) << CLASS_SHIFT | (offset & OFFSET_MASK)
}

/// Returns size class and offset of the block that a slot names.
#[inline]
pub(crate) fn block_of(word: u64) -> (u8, u64) {
    let class = (word >> CLASS_SHIFT) & CLASS_MASK;
    (u8::try_from(class).unwrap_or(0), word & OFFSET_MASK)
}

impl<'a, W: Word> View<'a, W> {
    #[inline]
    pub(crate) fn new<M: Memory<Word = W>>(memory: &'a M, layout: &'a Layout) -> Self {
        let words = memory.words();
        Self {
            index: words.get(layout.index.0..layout.index.1).unwrap_or(&[]),
            arena: words.get(layout.arena.0..layout.arena.1).unwrap_or(&[]),
            buckets: layout.buckets,
            hashes: &layout.hashes,
        }
    }

    #[inline]
    pub(crate) fn home(&self, hash: u64) -> u64 {
        Layout::home(self.buckets, hash)
    }

    #[inline]
    pub(crate) fn bucket(&self, at: u64) -> Option<&'a [W; BUCKET_WORDS]> {
        let start = index(at).checked_mul(BUCKET_WORDS)?;
        self.index.get(start..)?.first_chunk()
    }

    /// Returns the block that a slot names, as long as its size class says; `None` if it cannot be.
    #[inline]
    pub(crate) fn block(&self, word: u64) -> Option<&'a [W]> {
        let (class, offset) = block_of(word);
        let start = index(offset).checked_mul(UNIT_WORDS)?;
        self.arena.get(start..)?.get(..class_words(class))
    }

    /// Looks up `key` and copies its record to the front of `out`.
    #[inline]
    pub(crate) fn probe(&self, key: &[u8], out: &mut [u8]) -> Probe {
        if key.len() > KEY_BYTES_MAX {
            return Probe::Absent;
        }
        self.probe_hashed(self.hashes.key(key), key, out)
    }

    /// Looks up a key of at most [`KEY_BYTES_MAX`] bytes with this hash.
    #[inline]
    pub(crate) fn probe_hashed(&self, hash: u64, key: &[u8], out: &mut [u8]) -> Probe {
        for _ in 0..RETRIES_MAX {
            if let Some(probe) = self.attempt(hash, key, out) {
                return probe;
            }
        }
        Probe::Unavailable(Reason::Busy)
    }

    /// Returns a number that changes with every change of a bucket where a key with this hash may lie.
    #[inline]
    pub(crate) fn versions(&self, hash: u64) -> u64 {
        let home = self.home(hash);
        let version = |at: u64| self.bucket(at).map_or(0, |[first, ..]| first.load());
        let first = version(home);
        let reach = (first & REACH_MASK).min(PROBE);
        (1..=reach).fold(first, |sum, distance| {
            sum.wrapping_add(version(home.wrapping_add(distance)))
        })
    }

    /// Looks once; `None` if a writer was in between.
    #[inline]
    fn attempt(&self, hash: u64, key: &[u8], out: &mut [u8]) -> Option<Probe> {
        let home = self.home(hash);
        let tag = hash & TAG_MASK;
        let mut distance: u64 = 0;
        let mut reach = 0;
        loop {
            let bucket = home.wrapping_add(distance);
            let Some([first, slots @ ..]) = self.bucket(bucket) else {
                return Some(Probe::Unavailable(Reason::Corrupt));
            };
            let version = first.load();
            W::fence_acquire();
            if distance == 0 {
                reach = (version & REACH_MASK).min(PROBE);
            }
            let mut matches = tagged(slots, tag);
            while matches != 0 {
                let slot = index(matches.trailing_zeros().into());
                matches &= matches.wrapping_sub(1);
                let Some(slot_word) = slots.get(slot) else {
                    break;
                };
                let word = slot_word.load();
                if word >> TAG_SHIFT != tag || word == 0 {
                    continue;
                }
                W::fence_acquire();
                let copied = self.block(word).and_then(|block| copy_block(block, out));
                W::fence_acquire();
                if first.load() != version || slot_word.load() != word {
                    return None;
                }
                match copied.map_or(Looked::Broken, |block| look(block, key)) {
                    Looked::Other => {}
                    Looked::Hit(hit) => {
                        return Some(Probe::Found(hit, Place { bucket, slot, word }));
                    }
                    Looked::Broken => return Some(Probe::Unavailable(Reason::Corrupt)),
                }
            }
            if distance >= reach {
                return Some(Probe::Absent);
            }
            distance = distance.wrapping_add(1);
        }
    }

    /// Reads the record in a slot into `out`, as its block is; `None` if the slot is empty.
    pub(crate) fn scan_slot(
        &self,
        bucket: u64,
        slot: usize,
        out: &mut [u8],
    ) -> Result<Option<Scanned>, Reason> {
        let [first, slots @ ..] = self.bucket(bucket).ok_or(Reason::Corrupt)?;
        let slot_word = slots.get(slot).ok_or(Reason::Corrupt)?;
        for _ in 0..RETRIES_MAX {
            let version = first.load();
            W::fence_acquire();
            let word = slot_word.load();
            if word == 0 {
                return Ok(None);
            }
            W::fence_acquire();
            let copied = self.block(word).and_then(|block| copy_block(block, out));
            W::fence_acquire();
            if first.load() == version && slot_word.load() == word {
                let block = copied.ok_or(Reason::Corrupt)?;
                let (head, _) = read_head(block).ok_or(Reason::Corrupt)?;
                let scanned = Scanned { head, word };
                let fits =
                    head.key_len <= KEY_BYTES_MAX && scanned.split(block.as_flattened()).is_some();
                return fits.then_some(Some(scanned)).ok_or(Reason::Corrupt);
            }
        }
        Err(Reason::Busy)
    }

    /// Calls `each` with every record in the buckets from `start` to before `end`.
    pub(crate) fn scan_buckets(
        &self,
        start: u64,
        end: u64,
        out: &mut [u8],
        mut each: impl FnMut(Place, Head, &[u8], &[u8]),
    ) -> Result<(), (u64, Reason)> {
        for bucket in start..end {
            for slot in 0..BUCKET_SLOTS {
                let scanned = self.scan_slot(bucket, slot, out).map_err(|r| (bucket, r))?;
                let Some(scanned) = scanned else { continue };
                let word = scanned.word;
                let (key, value) = scanned.split(out).ok_or((bucket, Reason::Corrupt))?;
                each(Place { bucket, slot, word }, scanned.head, key, value);
            }
        }
        Ok(())
    }

    /// Loads a word of the line in which a key with this hash is at home.
    #[inline]
    pub(crate) fn touch_bucket(&self, hash: u64) -> u64 {
        let home = self.bucket(self.home(hash));
        home.map_or(0, |[first, ..]| first.load())
    }

    /// Returns the slot that a look-up of a key with this hash will first look at, if it is one at home.
    #[inline]
    pub(crate) fn likely_slot(&self, hash: u64) -> Option<u64> {
        let [_, slots @ ..] = self.bucket(self.home(hash))?;
        let first = tagged(slots, hash & TAG_MASK).trailing_zeros();
        slots.get(index(first.into())).map(W::load)
    }

    /// Loads a word of each line of the block that a slot names.
    #[inline]
    pub(crate) fn touch_block(&self, word: u64) -> u64 {
        let lines = self.block(word).unwrap_or(&[]).iter().step_by(BUCKET_WORDS);
        lines.fold(0, |all, word| all | word.load())
    }

    /// Returns whether a look-up of a key with this hash would look at the block that a slot names, and
    /// whether the block is of the size class that a record with this head gets.
    pub(crate) fn is_in_place(&self, hash: u64, place: Place, head: Head) -> bool {
        let home = self.home(hash);
        let reach = self.bucket(home).map_or(0, |[first, ..]| first.load()) & REACH_MASK;
        let last = home.saturating_add(reach.min(PROBE));
        place.word >> TAG_SHIFT == hash & TAG_MASK
            && (home..=last).contains(&place.bucket)
            && class_for(head.record_words()) == Some(block_of(place.word).0)
    }

    /// Returns how many buckets there are, those behind the last home included.
    pub(crate) fn buckets_all(&self) -> u64 {
        self.buckets.saturating_add(PROBE)
    }
}

/// Returns which slots may hold a key with this tag, the first in the lowest bit.
///
/// Without a branch for each slot: where a key lies cannot be predicted, and the block is fetched at once.
#[inline]
fn tagged<W: Word>(slots: &[W; BUCKET_SLOTS], tag: u64) -> u32 {
    let tagged = slots
        .each_ref()
        .map(|slot| u32::from(slot.load() >> TAG_SHIFT == tag));
    let [a, b, c, d, e, f, g] = tagged;
    (a | b << 1 | (c << 2 | d << 3)) | (e << 4 | f << 5 | g << 6)
}

/// Copies a block to the front of `out` and returns the copy; `None` if it is too long.
///
/// All of it, before anything in it is looked at: its length is known from the slot, so that no line of
/// it waits for another.
#[inline]
fn copy_block<'b, W: Word>(block: &[W], out: &'b mut [u8]) -> Option<&'b [[u8; 8]]> {
    let out = out.as_chunks_mut::<8>().0.get_mut(..block.len())?;
    for (to, word) in out.iter_mut().zip(block) {
        *to = word.load().to_le_bytes();
    }
    Some(out)
}

/// Compares the key in a copied block, word by word, and returns where its value lies.
#[inline]
fn look(block: &[[u8; 8]], key: &[u8]) -> Looked {
    let Some((head, body)) = read_head(block) else {
        return Looked::Broken;
    };
    if head.key_len != key.len() {
        return Looked::Other;
    }
    let (chunks, rest) = key.as_chunks::<8>();
    let Some((whole, values)) = body.split_at_checked(chunks.len()) else {
        return Looked::Broken;
    };
    let differs = |(word, chunk): (&[u8; 8], &[u8; 8])| {
        u64::from_le_bytes(*word) != u64::from_le_bytes(*chunk)
    };
    if whole.iter().zip(chunks).any(differs) {
        return Looked::Other;
    }
    let values = if rest.is_empty() {
        values
    } else {
        let Some((last, values)) = values.split_first() else {
            return Looked::Broken;
        };
        if u64::from_le_bytes(*last) != padded(key, rest) {
            return Looked::Other;
        }
        values
    };
    if head.value_len.div_ceil(8) > values.len() {
        return Looked::Broken;
    }
    Looked::Hit(Hit {
        level: head.level,
        check: head.check,
        at: block.len().wrapping_sub(values.len()).wrapping_mul(8),
        len: head.value_len,
    })
}

/// Returns the last, incomplete word of a key, filled up with zeros.
#[inline]
fn padded(key: &[u8], rest: &[u8]) -> u64 {
    if let Some(last) = key.last_chunk::<8>() {
        let spare = 8_u32.wrapping_sub(u32::try_from(rest.len()).unwrap_or(0));
        return u64::from_le_bytes(*last).wrapping_shr(spare.wrapping_mul(8));
    }
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}

#[inline]
fn read_head(block: &[[u8; 8]]) -> Option<(Head, &[[u8; 8]])> {
    let [first, second, body @ ..] = block else {
        return None;
    };
    let words = [first, second].map(|word| u64::from_le_bytes(*word));
    Some((Head::from_words(words), body))
}
