//! Where everything stands in a table's memory; it reads and writes no record.
//!
//! ```text
//! word       0  magic "LOCUSTBL" | format | buckets | words of the arena | key, two words     (constant)
//!            8  state: 1 being loaded, 2 live
//!           16  begin | done: number of the last batch that was begun, that is done
//!           24  words and changes in the journal | partition it repairs, plus one; zero for a batch
//!           32  two marks of eight words: level | epoch counter | epoch id | root | records | bytes
//!          512  65,536 partitions of three words: sum, two words | records << 40 | bytes     (1.5 MiB)
//!      197,120  lengths of number prefixes in use under each three leading digits
//!      198,144  journal of one batch                                                       (500 KiB)
//!      262,144  index: buckets of eight words, PROBE more than the header says; to a multiple of 2 MiB
//!               bucket = version << 8 | reach, then seven slots
//!               slot   = tag u16 | size class u8 | offset u40 in units of 16 bytes; zero if empty
//!       behind  arena: slabs of 64 KiB, each of blocks of one size class
//! ```
//! Words are little-endian where they hold bytes. The order in which a change stores them stands in the
//! crate's documentation.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use crate::audit::Hashes;
use crate::{OpenTableError, PARTITIONS, TableKey, Word};

/// Version of the layout; a reader refuses any other.
pub const FORMAT: u64 = 2;

/// Buckets behind its home in which a key may lie.
///
/// Forty: with 8, an index of 200,000 buckets at fill 0.68 overflowed; a run of nine full buckets is a
/// three-sigma event per window, not a rarity.
pub const PROBE: u64 = 40;

/// First word of every table.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"LOCUSTBL");

/// Words of a bucket: one cache line.
pub(crate) const BUCKET_WORDS: usize = 8;
/// Its bytes.
pub(crate) const BUCKET_BYTES: usize = BUCKET_WORDS * 8;
/// Slots of a bucket: the line without its version.
pub(crate) const BUCKET_SLOTS: usize = 7;
/// Words of one partition's account.
pub(crate) const ACCOUNT_WORDS: usize = 3;

// The header: one page. Each group of eight words is a cache line; readers of the first two never meet
// a line that the writer touches per batch.
pub(crate) const HEADER_WORDS: usize = 512;
pub(crate) const AT_MAGIC: usize = 0;
pub(crate) const AT_FORMAT: usize = 1;
pub(crate) const AT_BUCKETS: usize = 2;
pub(crate) const AT_ARENA_WORDS: usize = 3;
pub(crate) const AT_KEY: usize = 4; // two words
pub(crate) const AT_STATE: usize = 8;
pub(crate) const AT_BEGIN: usize = 16;
pub(crate) const AT_DONE: usize = 17;
pub(crate) const AT_JOURNAL_WORDS: usize = 24;
pub(crate) const AT_JOURNAL_CHANGES: usize = 25;
pub(crate) const AT_JOURNAL_REPAIRS: usize = 26;
pub(crate) const AT_MARKS: usize = 32; // two lines of eight words

pub(crate) const AT_ACCOUNTS: usize = HEADER_WORDS;
pub(crate) const ACCOUNTS_WORDS: usize = PARTITIONS * ACCOUNT_WORDS;
pub(crate) const AT_LENGTHS: usize = AT_ACCOUNTS + ACCOUNTS_WORDS;
/// One word for each of the thousand leading three digits.
pub(crate) const LENGTHS_WORDS: usize = 1000;
pub(crate) const AT_JOURNAL: usize = AT_LENGTHS + 1024;
/// 500 KiB, up to the next huge page: a frame of the largest size and count, each change padded to whole
/// words, has 368 KiB.
pub(crate) const JOURNAL_WORDS: usize = 64_000;

/// 2 MiB: index and arena each begin at a huge page.
const HUGE_WORDS: usize = 256 * 1024;
pub(crate) const AT_INDEX: usize = (AT_JOURNAL + JOURNAL_WORDS).div_ceil(HUGE_WORDS) * HUGE_WORDS;

/// Bytes of one slab of the arena; all its blocks are of one size class.
pub(crate) const SLAB_BYTES: u64 = 64 * 1024;

const WORD_BYTES: u64 = 8;
/// Offsets in a slot have forty bits and count 16 bytes.
const ARENA_BYTES_MAX: u64 = 1 << 44;
const BUCKETS_MAX: u64 = 1 << 40;

/// Size of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Buckets of the index, seven slots each.
    pub buckets: u64,
    /// Bytes for records.
    pub arena_bytes: u64,
}

impl Geometry {
    /// Returns the size for `records_max` records whose key and value take `record_bytes_mean` on average.
    ///
    /// The index is then at most 0.65 full. The arena has a tenth to spare for the ends of blocks and
    /// slabs, and one slab for each size class twice over.
    pub fn for_records(records_max: u64, record_bytes_mean: u64) -> Self {
        let slots = records_max.saturating_mul(100).div_ceil(65);
        // Head and key end at a word, the block at 16 bytes: 16 + up to 7 + 7 + 15, half of the latter.
        let block = record_bytes_mean.saturating_add(32);
        let records = records_max.saturating_mul(block);
        Self {
            buckets: slots.div_ceil(7).max(1),
            arena_bytes: records
                .saturating_add(records.div_ceil(10))
                .saturating_add(SLAB_BYTES * 256),
        }
    }

    /// Returns the bytes of the whole table, a multiple of 2 MiB.
    pub fn file_bytes(self) -> u64 {
        Layout::words(self)
            .map_or(u64::MAX, |[.., total]| total)
            .saturating_mul(WORD_BYTES)
    }
}

/// The places in one table, checked once.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Buckets in which a key may be at home; [`PROBE`] more follow.
    pub(crate) buckets: u64,
    /// First word and end of the index.
    pub(crate) index: (usize, usize),
    /// First word and end of the arena.
    pub(crate) arena: (usize, usize),
    /// The hash functions.
    pub(crate) hashes: Hashes,
}

impl Layout {
    /// Returns the words of the index, where the arena starts, its words, and the total; `None` if they
    /// do not fit 64 bits.
    fn words(geometry: Geometry) -> Option<[u64; 4]> {
        let huge = u64::try_from(HUGE_WORDS).ok()?;
        let index = geometry
            .buckets
            .checked_add(PROBE)?
            .checked_mul(u64::try_from(BUCKET_WORDS).ok()?)?;
        let arena_start = u64::try_from(AT_INDEX)
            .ok()?
            .checked_add(index)?
            .checked_next_multiple_of(huge)?;
        let arena = geometry
            .arena_bytes
            .checked_next_multiple_of(SLAB_BYTES)?
            .checked_div(WORD_BYTES)?
            .checked_next_multiple_of(huge)?;
        let total = arena_start.checked_add(arena)?;
        Some([index, arena_start, arena, total])
    }

    /// Returns the places in a new table.
    pub(crate) fn new(geometry: Geometry, key: TableKey) -> Result<Self, OpenTableError> {
        let fits = (1..=BUCKETS_MAX).contains(&geometry.buckets)
            && (1..=ARENA_BYTES_MAX).contains(&geometry.arena_bytes);
        let words = Self::words(geometry)
            .filter(|_| fits)
            .map(|words| words.map(index));
        let Some([index, arena_start, _, total]) = words else {
            return Err(OpenTableError::Geometry { geometry });
        };
        Ok(Self {
            buckets: geometry.buckets,
            index: (AT_INDEX, AT_INDEX.saturating_add(index)),
            arena: (arena_start, total),
            hashes: Hashes::new(key.to_words()),
        })
    }

    /// Reads and checks the places in an existing table.
    pub(crate) fn read<W: Word>(words: &[W]) -> Result<Self, OpenTableError> {
        let word = |at: usize| words.get(at).map_or(0, Word::load);
        if words.len() < HEADER_WORDS {
            return Err(OpenTableError::TooSmall {
                words: words.len(),
                need: HEADER_WORDS,
            });
        }
        if word(AT_MAGIC) != MAGIC {
            return Err(OpenTableError::Magic(word(AT_MAGIC)));
        }
        W::fence_acquire();
        if word(AT_FORMAT) != FORMAT {
            return Err(OpenTableError::Format {
                found: word(AT_FORMAT),
                spoken: FORMAT,
            });
        }
        let geometry = Geometry {
            buckets: word(AT_BUCKETS),
            arena_bytes: word(AT_ARENA_WORDS).saturating_mul(WORD_BYTES),
        };
        let mut layout = Self::new(geometry, TableKey([0; 16]))?;
        layout.hashes = Hashes::new([word(AT_KEY), word(AT_KEY.saturating_add(1))]);
        layout.check(words.len())?;
        Ok(layout)
    }

    /// Checks that the table fits memory of so many words.
    pub(crate) fn check(&self, words: usize) -> Result<(), OpenTableError> {
        let need = self.arena.1;
        if words < need {
            return Err(OpenTableError::TooSmall { words, need });
        }
        Ok(())
    }

    /// Returns the bucket where a key with this hash is at home; rises with the hash.
    #[inline]
    pub(crate) fn home(buckets: u64, hash: u64) -> u64 {
        hash.carrying_mul(buckets, 0).1
    }

    /// Returns the slots at the homes of keys; those behind the last home are for keys that are displaced.
    pub(crate) fn slots(&self) -> u64 {
        let per_bucket = u64::try_from(BUCKET_SLOTS).unwrap_or(u64::MAX);
        self.buckets.saturating_mul(per_bucket)
    }

    /// Returns the words of the arena, for the header.
    pub(crate) fn arena_words(&self) -> usize {
        self.arena.1.saturating_sub(self.arena.0)
    }
}

/// Returns `value` as an index; a value that is none is out of every range.
#[inline]
pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
