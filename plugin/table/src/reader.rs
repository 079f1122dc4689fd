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

use crate::layout::{ACCOUNTS_WORDS, AT_ACCOUNTS, AT_STATE, Layout};
use crate::view::{Probe, Reason, View};
use crate::writer::STATE_LIVE;
use crate::{
    GROUPS, Memory, OpenTableError, PARTITIONS, RECORD_BYTES_MAX, Word, audit, header, prefix,
};

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

/// What a partition's memory says to its stored sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scrubbed {
    /// The same.
    Agrees,
    /// Something else: memory has rotted, or a stray store hit it.
    Differs {
        /// The sum that its writer believes.
        stored: Root,
        /// The sum of what is there.
        found: Root,
    },
    /// Nothing: batches came in between each time. To be tried again later.
    Busy,
    /// A record in it cannot be read.
    Unreadable(Reason),
}

/// Tries of a scrub between batches; a partition takes some ten microseconds, a batch up to a millisecond.
const SCRUB_TRIES_MAX: usize = 64;

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

    /// Calls `fetch` with the first word of the line of the index in which `key` is at home.
    ///
    /// The caller brings the processor's prefetch instruction, which safe Rust has not. Called as soon as
    /// the key is known, the line comes while the rest of the message is looked at.
    #[inline]
    pub fn prefetch(&self, key: &[u8], fetch: impl FnOnce(&M::Word)) {
        let view = self.view();
        if let Some([first, ..]) = view.bucket(view.home(view.hashes.key(key))) {
            fetch(first);
        }
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

    /// Returns the partition of a key.
    pub fn partition_of(&self, key: &[u8]) -> u16 {
        u16::try_from(audit::partition_of(self.layout.hashes.key(key))).unwrap_or(u16::MAX)
    }

    /// Returns the stored sum of a partition, below [`crate::PARTITIONS`].
    pub fn partition_sum(&self, partition: usize) -> Root {
        audit::account(self.accounts(), partition).sum
    }

    /// Returns the 256 sums of the partitions of a group, as they are stored.
    pub fn partition_sums(&self, group: u8) -> Vec<Root> {
        let per_group = PARTITIONS / GROUPS;
        let first = usize::from(group).saturating_mul(per_group);
        (first..first.saturating_add(per_group))
            .map(|partition| self.partition_sum(partition))
            .collect()
    }

    /// Returns the sums of the 256 groups of partitions; they add up to the root.
    pub fn group_sums(&self) -> Vec<Root> {
        (0..=u8::MAX)
            .map(|group| {
                let sums = self.partition_sums(group).into_iter();
                sums.fold(Root::EMPTY, Root::plus)
            })
            .collect()
    }

    pub(crate) fn accounts(&self) -> &[M::Word] {
        let end = AT_ACCOUNTS.saturating_add(ACCOUNTS_WORDS);
        self.memory.words().get(AT_ACCOUNTS..end).unwrap_or(&[])
    }

    /// Reads a partition's records anew and returns their sum, to be compared with
    /// [`Self::partition_sum`] within [`Self::consistent`]: what sums cannot see is memory that rots.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn scrub(&self, partition: usize, buffer: &mut RecordBuffer) -> Result<Root, Reason> {
        let account = audit::rehash(self.memory.words(), &self.view(), partition, buffer.bytes())?;
        Ok(account.sum)
    }

    /// Reads a partition's records anew and compares them with its stored sum, beside a writer.
    ///
    /// A bounded number of tries: a batch that comes in between makes one void.
    pub fn scrub_consistent(&self, partition: usize, buffer: &mut RecordBuffer) -> Scrubbed {
        let words = self.memory.words();
        for _ in 0..SCRUB_TRIES_MAX {
            let Some(sequence) = header::quiet(words) else {
                continue;
            };
            let stored = self.partition_sum(partition);
            let read = self.scrub(partition, buffer);
            M::Word::fence_acquire();
            if header::begin(words) != sequence {
                continue;
            }
            return match read {
                Ok(found) if found == stored => Scrubbed::Agrees,
                Ok(found) => Scrubbed::Differs { stored, found },
                Err(reason) => Scrubbed::Unreadable(reason),
            };
        }
        Scrubbed::Busy
    }
}

impl<M> fmt::Debug for Reader<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("buckets", &self.layout.buckets)
            .finish_non_exhaustive()
    }
}
