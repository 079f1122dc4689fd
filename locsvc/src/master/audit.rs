//! The master's table read again from memory: for nodes that compare theirs with it, and for its own sake.
//! It decides nothing about what it finds.
//!
//! Everything here runs on the thread of the table's writer, between batches: nothing changes meanwhile, so a
//! contradiction is one of memory, never of timing.

use locus_proto::v1::AuditSums;
use locus_proto::{Change, Key, Position, Root};
use locus_table::{Reason, ScanError, Scrubbed};

use super::Master;

/// The master's memory is not what locsvc wrote there; the process has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryFault {
    /// A partition whose records do not have its sum.
    #[error("partition {partition:04x} of the table holds other records than were written")]
    Partition {
        /// Which.
        partition: u16,
    },
    /// A partition that cannot be read.
    #[error("partition {partition:04x} of the table cannot be read ({reason})")]
    Unreadable {
        /// Which.
        partition: u16,
        /// Why.
        reason: Reason,
    },
    /// Sums that do not add up.
    #[error("the sums of the table's partitions add up to {found}, not to {root}")]
    Root {
        /// The root.
        root: Root,
        /// What they add up to.
        found: Root,
    },
    /// A table that stands elsewhere than the log on disk.
    #[error("the table stands at {table}, the log on disk ends at {log}")]
    Log {
        /// Where the table stands.
        table: Position,
        /// Where the log ends.
        log: Position,
    },
}

impl Master {
    /// Reads the records of a partition again; returns whether there was anything to read.
    ///
    /// # Errors
    /// [`MemoryFault`]: they are not what was written.
    pub(crate) fn verify_partition(&mut self, partition: u16) -> Result<bool, MemoryFault> {
        // Records do not come from nowhere: one that strays here is missed where it belongs.
        if self.reader.partition_sum(partition.into()) == Root::EMPTY {
            return Ok(false);
        }
        match self
            .reader
            .scrub_consistent(partition.into(), &mut self.buffer)
        {
            Scrubbed::Agrees => Ok(true),
            Scrubbed::Differs { .. } => Err(MemoryFault::Partition { partition }),
            Scrubbed::Busy => Err(MemoryFault::Unreadable {
                partition,
                reason: Reason::Busy,
            }),
            Scrubbed::Unreadable(reason) => Err(MemoryFault::Unreadable { partition, reason }),
        }
    }

    /// Reads the partition of a key again.
    ///
    /// # Errors
    /// As [`Self::verify_partition`].
    pub(crate) fn verify_key(&mut self, key: &Key) -> Result<(), MemoryFault> {
        let partition = self.reader.partition_of(key.as_bytes());
        self.verify_partition(partition).map(drop)
    }

    /// Checks that the sums of all partitions add up to the root.
    ///
    /// # Errors
    /// [`MemoryFault::Root`].
    pub(crate) fn verify_root(&self) -> Result<(), MemoryFault> {
        let sums = self.reader.group_sums().into_iter();
        let found = sums.fold(Root::EMPTY, Root::plus);
        let root = self.position().root;
        if found == root {
            Ok(())
        } else {
            Err(MemoryFault::Root { root, found })
        }
    }

    /// Returns the sums of all groups, or of the partitions of one, at the present level.
    pub(crate) fn audit_sums(&self, group: Option<u8>) -> AuditSums {
        AuditSums {
            level: self.position().level,
            group,
            sums: match group {
                None => self.reader.group_sums(),
                Some(group) => self.reader.partition_sums(group),
            },
        }
    }

    /// Returns the records of a partition at the present level, each a put at its own.
    ///
    /// # Errors
    /// [`MemoryFault`]: they are not what was written.
    pub(crate) fn audit_records(&mut self, partition: u16) -> Result<Vec<Change>, MemoryFault> {
        let mut records = Vec::new();
        let read = self
            .reader
            .partition_records(partition, &mut self.buffer, &mut records);
        match read {
            Ok(sum) if sum == self.reader.partition_sum(partition.into()) => Ok(records),
            Ok(_) | Err(ScanError::Key { .. }) => Err(MemoryFault::Partition { partition }),
            Err(ScanError::Unavailable { reason, .. }) => {
                Err(MemoryFault::Unreadable { partition, reason })
            }
        }
    }
}

#[cfg(test)]
impl Master {
    pub(crate) fn partition_of(&self, key: &Key) -> u16 {
        self.reader.partition_of(key.as_bytes())
    }

    /// Flips a bit of the record of `key`, in the word so many words behind the beginning of its key: as memory that rots.
    pub(crate) fn rot(&self, key: &Key, (word, bit): (isize, u32)) {
        use std::sync::atomic::Ordering::Relaxed;
        let words: &[std::sync::atomic::AtomicU64] = self.writer.memory().as_ref();
        let mut bytes = key.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let wanted: Vec<u64> = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|chunk| u64::from_le_bytes(*chunk))
            .collect();
        let is_key = |at: &usize| {
            words[*at].load(Relaxed) == wanted[0]
                && words[*at..]
                    .iter()
                    .map(|word| word.load(Relaxed))
                    .take(wanted.len())
                    .eq(wanted.iter().copied())
        };
        // The arena lies behind the journal.
        let at = (0..words.len() - wanted.len()).rev().find(is_key);
        let at = at.expect("the record is there").checked_add_signed(word);
        words[at.unwrap()].fetch_xor(1 << bit, Relaxed);
    }
}
