//! The limit: what memory itself takes for a look-up that is told where everything lies.
//!
//! Two accesses that depend on each other: a 16-byte entry of an index says where the record is, then the
//! record is copied. No hash, no key, no version. The records lie as the table laid them: each in a block
//! of its size, at the same distance from the start of a cache line, in slabs of one size, in the order of
//! the load; as many bytes are copied as the table's record has, by the same loads and stores. File, mount
//! and pages are of the same kind and size.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use locus_agent::{Mapping, OwnedFolder};
use locus_table::{Generation, MapRegions, OwnRegions, RECORD_BYTES_MAX, RegionName};

use crate::chain::Fetch;
use crate::population::{self, KEY_BYTES};
use crate::systems::{Query, Table};

/// Words of an entry: where the record begins and its words, bytes of its value.
const ENTRY_WORDS: usize = 2;
/// Bytes of a record before its value: the head, the key filled up to a word.
const VALUE_AT: usize = 16 + KEY_BYTES.next_multiple_of(8);
const WORD_BYTES: usize = 8;
/// As in the table: what records of one size share.
const SLAB_WORDS: usize = 64 * 1024 / WORD_BYTES;
/// As in the table: the steps in which blocks grow, up to 1 KiB.
const BLOCK_WORDS_STEP: usize = 2;
const BLOCK_WORDS_MAX: usize = 1024 / WORD_BYTES;
const HUGE_WORDS: usize = 2 * 1024 * 1024 / WORD_BYTES;
/// The one file of the folder.
const NAME: RegionName = RegionName::Table(Generation(1));

/// The memory of the limit.
#[derive(Debug)]
pub(crate) struct LimitMemory {
    mapping: Mapping,
}

impl LimitMemory {
    /// Lays the records of subscribers `0..count` as `table` returns them, in a file of `bytes` bytes, as
    /// many as the table's.
    ///
    /// # Panics
    /// When a subscriber is not in the table, or the file cannot be had.
    pub(crate) fn lay(folder: &Path, bytes: u64, count: usize, table: &mut Table) -> Self {
        let own = OwnedFolder::lock(folder).unwrap_or_else(|error| panic!("{error}"));
        let mapping = own
            .create(NAME, bytes)
            .unwrap_or_else(|error| panic!("the limit's memory: {error}"));
        let words = mapping.as_ref();
        let mut slabs = Slabs::new((count * ENTRY_WORDS).next_multiple_of(HUGE_WORDS));
        for n in 0..count {
            let query = Query::new(n);
            let value = table
                .fetch(&query)
                .unwrap_or_else(|| panic!("subscriber {n} is not in the table"));
            let record_words = VALUE_AT / WORD_BYTES + value.len().div_ceil(WORD_BYTES);
            let at = slabs.place(record_words);
            store(&words[at + 2..], &query.key);
            store(&words[at + VALUE_AT / WORD_BYTES..], value);
            let entry = [at << 16 | record_words, value.len()];
            for (word, value) in words[n * ENTRY_WORDS..].iter().zip(entry) {
                word.store(u64::try_from(value).unwrap_or(0), Ordering::Relaxed);
            }
        }
        Self { mapping }
    }

    /// Opens what was laid before.
    ///
    /// # Panics
    /// When it is not there.
    pub(crate) fn open(folder: &Path) -> Self {
        let own = OwnedFolder::lock(folder).unwrap_or_else(|error| panic!("{error}"));
        let mapping = own
            .map(NAME)
            .unwrap_or_else(|error| panic!("the limit's memory: {error}"));
        Self { mapping }
    }
}

fn store(words: &[AtomicU64], bytes: &[u8]) {
    for (word, chunk) in words.iter().zip(bytes.chunks(WORD_BYTES)) {
        let mut filled = [0; WORD_BYTES];
        filled[..chunk.len()].copy_from_slice(chunk);
        word.store(u64::from_le_bytes(filled), Ordering::Relaxed);
    }
}

/// Gives out blocks as the table's arena does while it is loaded.
#[derive(Debug)]
struct Slabs {
    /// Where the next slab begins.
    end: usize,
    /// By the words of a block: where the next one lies, and how many more the slab has.
    open: HashMap<usize, (usize, usize)>,
}

impl Slabs {
    fn new(start: usize) -> Self {
        let open = HashMap::new();
        Self { end: start, open }
    }

    fn place(&mut self, record_words: usize) -> usize {
        let block = record_words.next_multiple_of(BLOCK_WORDS_STEP);
        assert!(
            block <= BLOCK_WORDS_MAX,
            "blocks above 1 KiB grow otherwise"
        );
        let (next, left) = self.open.entry(block).or_default();
        if *left == 0 {
            (*next, *left) = (self.end, SLAB_WORDS / block);
            self.end += SLAB_WORDS;
        }
        let at = *next;
        *next += block;
        *left -= 1;
        at
    }
}

/// One reader of the limit.
pub(crate) struct Limit<'m> {
    words: &'m [AtomicU64],
    buffer: Box<[u8]>,
}

impl<'m> Limit<'m> {
    /// Reads from `memory`.
    pub(crate) fn of(memory: &'m LimitMemory) -> Self {
        Self {
            words: memory.mapping.as_ref(),
            buffer: vec![0; RECORD_BYTES_MAX].into_boxed_slice(),
        }
    }

    /// Reads all records once, as the table is read.
    ///
    /// # Panics
    /// When one is another's.
    pub(crate) fn visit_all(&mut self, count: usize) {
        for n in 0..count {
            let query = Query::new(n);
            let found = self.fetch(&query);
            let right = found.is_some_and(|value| population::is_of(&query.key, value));
            assert!(right, "the limit has another record for subscriber {n}");
        }
    }
}

impl Fetch<Query> for Limit<'_> {
    #[inline]
    fn fetch(&mut self, query: &Query) -> Option<&[u8]> {
        let entry = self.words.get(query.n * ENTRY_WORDS..)?.first_chunk()?;
        let [place, len] = load(entry);
        let at = usize::try_from(place >> 16).ok()?;
        let record_words = usize::try_from(place & 0xffff).ok()?;
        let record = self.words.get(at..)?.get(..record_words)?;
        let chunks = self.buffer.as_chunks_mut::<WORD_BYTES>().0;
        let out = chunks.get_mut(..record.len())?;
        for (to, word) in out.iter_mut().zip(record) {
            *to = word.load(Ordering::Relaxed).to_le_bytes();
        }
        self.buffer
            .get(VALUE_AT..)?
            .get(..usize::try_from(len).ok()?)
    }
}

#[inline]
fn load(entry: &[AtomicU64; ENTRY_WORDS]) -> [u64; ENTRY_WORDS] {
    entry.each_ref().map(|word| word.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_as_in_the_arena() {
        let mut slabs = Slabs::new(HUGE_WORDS);
        assert_eq!(slabs.place(37), HUGE_WORDS);
        assert_eq!(slabs.place(38), HUGE_WORDS + 38);
        assert_eq!(slabs.place(41), HUGE_WORDS + SLAB_WORDS);
        for _ in 2..SLAB_WORDS / 38 {
            slabs.place(38);
        }
        assert_eq!(slabs.place(38), HUGE_WORDS + 2 * SLAB_WORDS);
    }
}
