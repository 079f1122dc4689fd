//! One audit as it goes from groups to partitions to records: what differs, and what to ask next.
//!
//! It sends nothing and touches no table.

use std::collections::{BTreeSet, VecDeque};

use locus_proto::v1::{
    AUDIT_RANGES_MAX, AUDIT_SUMS, AuditOrder, AuditRecords, AuditReport, AuditScope, AuditSums,
    AuditVerdict,
};
use locus_proto::{Change, Level};

use super::{AUDIT_MISSES_MAX, AUDIT_ROUNDS_MAX, AuditCause, BAD_PARTITIONS_MAX, MasterError};
use crate::audit::{PARTITION_BYTES_MAX, record_bytes};

/// An audit under way.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) cause: AuditCause,
    /// Memory was doubted when it began to compare: not to be forgotten if it comes to nothing.
    pub(super) memory_doubted: bool,
    order: Option<AuditOrder>,
    pub(super) stage: Stage,
    rounds: u32,
    /// Answers in a row whose level had passed.
    misses: u32,
    /// What was asked last.
    scope: AuditScope,
    /// Groups that differ and are still to be looked into.
    groups: VecDeque<u8>,
    /// Partitions that differ and are still to be compared.
    partitions: VecDeque<u16>,
    pub(super) found: Found,
}

/// What an audit has found so far, in all its rounds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Partitions that differed; at most a group more than [`BAD_PARTITIONS_MAX`].
    partitions: BTreeSet<u16>,
    pub(super) differing: u64,
    pub(super) repaired: u64,
    /// Level of the last comparison.
    pub(super) level: Level,
}

/// What an audit waits for.
#[derive(Debug)]
pub(super) enum Stage {
    /// The table's owner reads all memory again.
    Scrubbing,
    /// The master's answer.
    Asked(Parts),
    /// The level at which this answer is true.
    Held(Answer),
    /// The table's answer.
    Owed,
    /// The heartbeat that shows whether it helped.
    Settling,
}

/// Records of the partition asked for, as far as they have come; at most [`PARTITION_BYTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Parts {
    level: Option<Level>,
    records: Vec<Change>,
    bytes: usize,
}

/// What the master has answered.
#[derive(Debug)]
pub(super) enum Answer {
    Sums(AuditSums),
    Records {
        level: Level,
        partition: u16,
        records: Vec<Change>,
    },
}

impl Answer {
    /// Returns the level at which it is true.
    pub(super) fn level(&self) -> Level {
        match self {
            Self::Sums(sums) => sums.level,
            Self::Records { level, .. } => *level,
        }
    }
}

impl Walk {
    /// Returns an audit; one that was ordered begins with a reading of all memory.
    pub(super) fn new(cause: AuditCause, order: Option<AuditOrder>) -> Self {
        Self {
            cause,
            memory_doubted: false,
            order,
            stage: Stage::Scrubbing,
            rounds: 1,
            misses: 0,
            scope: AuditScope::Groups,
            groups: VecDeque::new(),
            partitions: VecDeque::new(),
            found: Found::default(),
        }
    }

    /// Returns whether what differs is to be repaired.
    pub(super) fn repairs(&self) -> bool {
        self.order.is_none_or(|order| order.repair)
    }

    /// Takes note that `scope` is being asked.
    pub(super) fn ask(&mut self, scope: AuditScope) {
        self.scope = scope;
        self.stage = Stage::Asked(Parts::default());
    }

    /// Returns what to ask next; `None` at the end of the walk.
    pub(super) fn next(&mut self) -> Option<AuditScope> {
        let group = self.groups.pop_front().map(AuditScope::Group);
        group.or_else(|| self.partitions.pop_front().map(AuditScope::Partition))
    }

    /// Begins another round; returns whether there may be one.
    pub(super) fn again(&mut self) -> bool {
        self.rounds += 1;
        self.rounds <= AUDIT_ROUNDS_MAX
    }

    /// Takes note of an answer whose level has passed; returns what to ask again, unless that happens all
    /// the time.
    pub(super) fn missed(&mut self) -> Option<AuditScope> {
        self.misses += 1;
        (self.misses <= AUDIT_MISSES_MAX).then_some(self.scope)
    }

    /// Takes sums.
    ///
    /// # Errors
    /// [`MasterError`] if they were not asked for.
    pub(super) fn handle_sums(&mut self, sums: AuditSums) -> Result<(), MasterError> {
        let asked = match self.scope {
            AuditScope::Groups => sums.group.is_none(),
            AuditScope::Group(group) => sums.group == Some(group),
            AuditScope::Partition(_) => false,
        };
        if !asked || sums.sums.len() != AUDIT_SUMS || !self.is_asked() {
            return Err(refused("other sums than it wanted"));
        }
        self.stage = Stage::Held(Answer::Sums(sums));
        Ok(())
    }

    /// Takes some or the last of a partition's records.
    ///
    /// # Errors
    /// [`MasterError`] if they were not asked for, are of different levels, or too many.
    pub(super) fn handle_records(&mut self, part: AuditRecords) -> Result<(), MasterError> {
        let Stage::Asked(parts) = &mut self.stage else {
            return Err(refused("records that it did not want"));
        };
        if self.scope != AuditScope::Partition(part.partition) {
            return Err(refused("records of another partition"));
        }
        if *parts.level.get_or_insert(part.level) != part.level {
            return Err(refused("records of one partition at two levels"));
        }
        if part.records.is_empty() && !part.last {
            return Err(refused("no records, and more to come"));
        }
        parts.bytes += part.records.iter().map(record_bytes).sum::<usize>();
        if parts.bytes > PARTITION_BYTES_MAX {
            return Err(refused("far too many records"));
        }
        parts.records.extend(part.records);
        if part.last {
            self.stage = Stage::Held(Answer::Records {
                level: part.level,
                partition: part.partition,
                records: std::mem::take(&mut parts.records),
            });
        }
        Ok(())
    }

    /// Returns what was asked last.
    #[cfg(test)]
    pub(super) fn scope(&self) -> AuditScope {
        self.scope
    }

    /// Returns whether a question is with the master.
    pub(super) fn is_asked(&self) -> bool {
        match self.stage {
            Stage::Asked(_) => true,
            Stage::Scrubbing | Stage::Held(_) | Stage::Owed | Stage::Settling => false,
        }
    }

    /// Takes which of the sums differ.
    pub(super) fn handle_compared(&mut self, differ: &[u8], level: Level) {
        self.misses = 0;
        self.found.level = level;
        match self.scope {
            AuditScope::Groups => self.groups = differ.iter().copied().collect(),
            AuditScope::Group(group) => {
                let partition = |index: &u8| u16::from(group) << 8 | u16::from(*index);
                self.partitions.extend(differ.iter().map(partition));
                self.found.partitions.extend(differ.iter().map(partition));
            }
            AuditScope::Partition(_) => {}
        }
    }

    /// Takes what became of a partition.
    pub(super) fn handle_mended(&mut self, differing: u64, repaired: u64, level: Level) {
        self.misses = 0;
        self.found.level = level;
        self.found.differing += differing;
        self.found.repaired += repaired;
    }

    /// Returns whether more differs than an audit repairs.
    pub(super) fn too_many(&self) -> bool {
        self.found.partitions.len() > BAD_PARTITIONS_MAX
    }

    /// Returns what to tell the operator, if one has ordered it.
    pub(super) fn report(&self, verdict: AuditVerdict, records: u64) -> Option<AuditReport> {
        let ticket = self.order?.ticket;
        Some(AuditReport {
            ticket,
            verdict,
            level: self.found.level,
            records,
            partitions: self.found.count(),
            ranges: self.found.ranges(),
            differing: self.found.differing,
            repaired: self.found.repaired,
        })
    }
}

impl Found {
    /// Returns whether every partition was the master's.
    pub(super) fn nothing(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Returns how many partitions differed.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// Returns the first partitions that differed, neighbours as one range.
    fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for partition in &self.partitions {
            let full = ranges.len() == AUDIT_RANGES_MAX;
            match ranges.last_mut() {
                Some((_, to)) if to.checked_add(1) == Some(*partition) => *to = *partition,
                _ if full => break,
                _ => ranges.push((*partition, *partition)),
            }
        }
        ranges
    }
}

fn refused(what: &'static str) -> MasterError {
    MasterError::Audit { what }
}
