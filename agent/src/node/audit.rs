//! Compares the table's content with the master's and mends it; it decides neither when nor what to ask.
//!
//! The table's stored sums are what its writer believes. A partition is *doubted* when something has spoken
//! against that: a frame that did not fit, memory that contradicts its sum. Doubted partitions are compared by
//! what memory holds now.

use std::collections::BTreeSet;

use locus_distribution::{BAD_PARTITIONS_MAX, Failure, Mended};
use locus_proto::{Change, Frame, Root, Timestamp};
use locus_table::{Memory, OwnRegions, Reader, RecordBuffer, RepairError};

use super::apply::failure_of;
use super::{Node, growth, standing};
use crate::core::Input;
use crate::edge::Populate;
use crate::event::{Event, with_causes};

/// Partitions that are read in one slice of work: a millisecond or two.
const PROVED_IN_A_ROW: u32 = 64;

impl<R: OwnRegions<Region: Populate>> Node<R> {
    /// Takes in that a partition's memory contradicts its sum.
    pub(super) fn doubt(&mut self, now: Timestamp, partition: u16) {
        self.doubted.insert(partition);
        if let Some(count) = self.doubts.count(now) {
            Event::MemoryDoubted { count, partition }.log();
        }
    }

    /// Takes in that a frame does not fit the content: that of its keys may be wrong.
    pub(super) fn doubt_keys(&mut self, frame: &Frame) {
        if let Some(table) = &self.table {
            let keys = frame.changes.iter().map(|change| change.key.as_bytes());
            let partitions: BTreeSet<u16> = keys.map(|key| table.partition_of(key)).collect();
            self.doubted.extend(&partitions);
            self.unproved.extend(partitions);
        }
    }

    /// Reads the memory of some partitions that a frame has put in doubt: where it is what the sums say,
    /// the doubt is over; the first where it is not is returned for the core.
    pub(super) fn prove(&mut self) -> Option<Input> {
        for _ in 0..PROVED_IN_A_ROW {
            let partition = self.unproved.pop_first()?;
            let reader = self.table.as_ref()?.reader();
            if !agrees(&reader, partition, &mut self.buffer) {
                return Some(Input::Doubted { partition });
            }
            self.doubted.remove(&partition);
        }
        None
    }

    /// Returns how often a partition's memory was found to contradict its sum.
    pub(crate) fn doubted_total(&self) -> u64 {
        self.doubts.total()
    }

    /// Returns the indexes of the master's sums that are not the table's, ascending: of the groups, or of
    /// the partitions of one.
    pub(super) fn compare(&mut self, group: Option<u8>, sums: &[Root]) -> Result<Vec<u8>, Failure> {
        let table = self.table.as_ref().ok_or(Failure::Broken)?;
        let reader = table.reader();
        // With so many the table is loaded anew whatever they hold: no time is spent on them.
        let rehash = self.doubted.len() <= BAD_PARTITIONS_MAX;
        let (mut differing, mut proved) = (Vec::new(), Vec::new());
        for index in 0..=u8::MAX {
            let theirs = sums.get(usize::from(index));
            let partitions = match group {
                None => partitions_of(index),
                Some(group) => {
                    let partition = u16::from(group) << 8 | u16::from(index);
                    partition..=partition
                }
            };
            let doubted: Vec<u16> = self.doubted.range(partitions.clone()).copied().collect();
            let ours = partitions.fold(Root::EMPTY, |sum, partition| {
                sum.plus(reader.partition_sum(partition.into()))
            });
            let holds = |p: &u16| rehash && agrees(&reader, *p, &mut self.buffer);
            if theirs == Some(&ours) && doubted.iter().all(holds) {
                proved.extend(doubted);
            } else {
                differing.push(index);
            }
        }
        for partition in proved {
            self.doubted.remove(&partition);
        }
        Ok(differing)
    }

    /// Compares all that the master holds in a partition with what memory holds, and installs what differs
    /// if `repair` says so.
    pub(super) fn mend(
        &mut self,
        now: Timestamp,
        partition: u16,
        records: &[Change],
        repair: bool,
    ) -> Result<Mended, Failure> {
        let mut outcome = self.try_mend(partition, records, repair);
        for _ in 0..growth::AT_ONCE_MAX {
            match outcome.as_ref().map_err(growth::short_of_repair) {
                Err(Some(short)) if self.grow_at_once(now, short) => {
                    outcome = self.try_mend(partition, records, repair);
                }
                Ok(_) | Err(_) => break,
            }
        }
        match outcome {
            Ok(mended) => {
                if let Some(count) = self.mends.count(now) {
                    let level = mended.standing.position.level;
                    let (differing, repaired) = (mended.differing, mended.repaired);
                    Event::Mended {
                        count,
                        partition,
                        level,
                        differing,
                        repaired,
                    }
                    .log();
                }
                Ok(mended)
            }
            Err(error) => {
                let failure = match &error {
                    RepairError::Prepare(error) => failure_of(error),
                    // The master's records are none of this partition.
                    RepairError::Content { .. } => Failure::RootMismatch,
                    RepairError::Loading | RepairError::Rotten { .. } => Failure::Broken,
                };
                self.say("a repair", failure, with_causes(&error));
                Err(failure)
            }
        }
    }

    fn try_mend(
        &mut self,
        partition: u16,
        records: &[Change],
        repair: bool,
    ) -> Result<Mended, RepairError> {
        let table = self.table.as_mut().ok_or(RepairError::Loading)?;
        if !repair {
            let differing = table.differences(partition, records)?;
            let standing = standing(table);
            return Ok(Mended {
                differing,
                repaired: 0,
                standing,
            });
        }
        self.snapshots.handover.void("the table was repaired");
        let differing = table.repair(partition, records)?.differed;
        let standing = standing(table);
        // Its sum was made from what memory holds now.
        self.doubted.remove(&partition);
        self.follow_growing(|growth| growth.follow_repair(partition, records));
        Ok(Mended {
            differing,
            repaired: differing,
            standing,
        })
    }
}

/// Returns whether a partition's memory is what its stored sum says.
fn agrees<M: Memory>(reader: &Reader<M>, partition: u16, buffer: &mut RecordBuffer) -> bool {
    let partition = usize::from(partition);
    let found = reader.scrub(partition, buffer);
    found.is_ok_and(|found| found == reader.partition_sum(partition))
}

/// Returns the partitions of a group.
fn partitions_of(group: u8) -> std::ops::RangeInclusive<u16> {
    let first = u16::from(group) << 8;
    first..=first | 0xff
}
