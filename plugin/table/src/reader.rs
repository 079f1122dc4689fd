//! The side of a table that answers; it never waits, allocates, writes or panics.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fmt;

use locus_proto::{Digits, Level, Position, Root};

use crate::layout::{AT_STATE, AT_SUMS, Layout, SUMS_WORDS};
use crate::view::{Probe, Reason, View};
use crate::writer::STATE_LIVE;
use crate::{Memory, OpenTableError, RECORD_BYTES_MAX, Word, audit, header, prefix};

/// Where look-ups copy values to; made once per worker and used again for every look-up.
pub struct RecordBuffer {
    bytes: Box<[u8]>,
}

impl RecordBuffer {
    /// Returns a buffer that fits any record.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; RECORD_BYTES_MAX].into_boxed_slice(),
        }
    }

    #[inline]
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    #[inline]
    pub(crate) fn answer(&self, probe: Probe) -> Lookup<'_> {
        match probe {
            Probe::Found(hit, _) => match hit.value(&self.bytes) {
                Some(value) => Lookup::Found(Record {
                    level: hit.level,
                    flags: hit.flags,
                    value,
                }),
                None => Lookup::Unavailable(Reason::Corrupt),
            },
            Probe::Absent => Lookup::Absent,
            Probe::Unavailable(reason) => Lookup::Unavailable(reason),
        }
    }
}

impl Default for RecordBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RecordBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordBuffer")
    }
}

/// A record, copied out of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'b> {
    /// Level of its last change.
    pub level: Level,
    /// Flags; none is defined, zero.
    pub flags: u32,
    /// Value.
    pub value: &'b [u8],
}

/// Answer of a table; "absent" and "cannot say" are never folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup<'b> {
    /// The record.
    Found(Record<'b>),
    /// There is none.
    Absent,
    /// It cannot be said.
    Unavailable(Reason),
}

/// Reads one table beside its writer.
pub struct Reader<M> {
    pub(crate) memory: M,
    pub(crate) layout: Layout,
}

impl<M: Memory> Reader<M> {
    /// Opens a table that is completely loaded.
    ///
    /// Magic, format and bounds are checked here, once.
    ///
    /// # Errors
    /// [`OpenTableError`] if it is none, of another format, cut short, or still being loaded.
    pub fn open(memory: M) -> Result<Self, OpenTableError> {
        let words = memory.words();
        let layout = Layout::read(words)?;
        if words.get(AT_STATE).map(Word::load) != Some(STATE_LIVE) {
            return Err(OpenTableError::Loading);
        }
        M::Word::fence_acquire();
        Ok(Self { memory, layout })
    }

    #[inline]
    pub(crate) fn view(&self) -> View<'_, M::Word> {
        View::new(&self.memory, &self.layout)
    }

    /// Returns the record of `key`; the value lies in `buffer`.
    ///
    /// Whole and true at some moment during the call. Cost: one hash, one line of the index, the record.
    #[inline]
    pub fn lookup<'b>(&self, key: &[u8], buffer: &'b mut RecordBuffer) -> Lookup<'b> {
        let probe = self.probe(key, buffer.bytes());
        buffer.answer(probe)
    }

    #[inline]
    pub(crate) fn probe(&self, key: &[u8], out: &mut [u8]) -> Probe {
        self.view().probe(key, out)
    }

    /// Starts to fetch the line of the index in which `key` is at home.
    ///
    /// A plain load whose value nobody waits for: called as soon as the key is known, it overlaps with
    /// the rest of the message. (There is no prefetch in safe, stable Rust.)
    #[inline]
    pub fn prefetch(&self, key: &[u8]) {
        let view = self.view();
        let home = view.home(view.hashes.key(key));
        std::hint::black_box(view.bucket(home).map(|[version, ..]| version.load()));
    }

    /// Returns the route of the longest prefix of `digits`; the value lies in `buffer`.
    ///
    /// One probe for each length in use under the first three digits, longest first. While a batch
    /// replaces one prefix by another, one of the two answers, never a shorter one or none.
    pub fn route<'b>(&self, digits: Digits, buffer: &'b mut RecordBuffer) -> Lookup<'b> {
        let probe = self.probe_route(digits, buffer.bytes());
        buffer.answer(probe)
    }

    pub(crate) fn probe_route(&self, digits: Digits, out: &mut [u8]) -> Probe {
        prefix::probe(self.memory.words(), &self.view(), digits, out)
    }

    /// Calls `read` for several look-ups and says whether no batch came in between.
    ///
    /// Three tries; what the last returned is true key by key in any case.
    pub fn consistent<R>(&self, mut read: impl FnMut(&Self) -> R) -> (R, bool) {
        let words = self.memory.words();
        for _ in 0..2 {
            if let Some(sequence) = header::quiet(words) {
                let result = read(self);
                M::Word::fence_acquire();
                if header::begin(words) == sequence {
                    return (result, true);
                }
            }
        }
        let sequence = header::quiet(words);
        let result = read(self);
        M::Word::fence_acquire();
        let same = sequence == Some(header::begin(words));
        (result, same)
    }

    /// Returns where the table stands: everything up to this level is visible.
    pub fn position(&self) -> Position {
        header::current_mark(self.memory.words()).position
    }

    /// Returns the number of records.
    pub fn records(&self) -> u64 {
        header::current_mark(self.memory.words()).records
    }

    /// Returns the bytes of all keys and values.
    pub fn payload_bytes(&self) -> u64 {
        header::current_mark(self.memory.words()).bytes
    }

    /// Returns whether a batch is being applied, or was when its writer died.
    pub fn is_mid_batch(&self) -> bool {
        header::quiet(self.memory.words()).is_none()
    }

    /// Returns the stored sum of a partition, below [`crate::PARTITIONS`].
    pub fn partition_sum(&self, partition: usize) -> Root {
        audit::sum(self.sums(), partition)
    }

    pub(crate) fn sums(&self) -> &[M::Word] {
        let end = AT_SUMS.saturating_add(SUMS_WORDS);
        self.memory.words().get(AT_SUMS..end).unwrap_or(&[])
    }

    /// Reads a partition's records anew and returns their sum, to be compared with
    /// [`Self::partition_sum`] within [`Self::consistent`]: what sums cannot see is memory that rots.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn scrub(&self, partition: usize, buffer: &mut RecordBuffer) -> Result<Root, Reason> {
        audit::rehash(&self.view(), partition, buffer.bytes())
    }
}

impl<M> fmt::Debug for Reader<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("buckets", &self.layout.buckets)
            .finish_non_exhaustive()
    }
}
