//! Reads the table again, a step at a time, and ends the process where memory contradicts itself; it mends
//! nothing: the log is the truth and makes a new table.
//!
//! All of it is read once in [`ROUND`], in steps of at most a millisecond. After an alarm, or where a record
//! could not be read, it is read at once, still in steps, and compared with the log on disk.

use std::time::Duration;

use locus_distribution::{Disagreement, Sender};
use locus_proto::{Key, Position, Timestamp};
use locus_table::PARTITIONS;

use super::{Core, Output};
use crate::event::Event;
use crate::master::MemoryFault;

/// Time in which the background reads the whole table once.
const ROUND: Duration = Duration::from_secs(600);
/// Records read in one step, with those of neighbouring partitions between them. Each costs some 0.3 us, so
/// that a step takes about half a millisecond.
const STEP_RECORDS: u64 = 2_000;
/// Records of its neighbours that are read with a partition: the last buckets of the index belong to both.
const PASSED_OVER: u64 = 20;
/// Most partitions in one step.
const STEP_PARTITIONS_MAX: u64 = 16;
/// Time between two steps when all is read at once: as much again for everything else.
const HURRY_PAUSE: Duration = Duration::from_millis(2);

/// How far the reading is.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// The partition that is read next.
    next: u16,
    pub(super) due: Timestamp,
    /// Read at once from beginning to end, then compare with the log.
    hurry: bool,
}

/// Most nodes agree against the master.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alarm {
    pub(super) disagreement: Disagreement,
    /// Whether the master's own table was read again since, and is what was written.
    pub(super) verified: bool,
}

impl Core {
    /// Returns what is wrong with the table's memory: nothing may be committed any more.
    pub fn fault(&self) -> Option<MemoryFault> {
        self.fault
    }

    /// Takes where the log on disk ends: the answer to [`Output::ReadLogEnd`].
    pub fn handle_log_end(&mut self, now: Timestamp, log: Position) {
        let table = self.master.position();
        if log == table {
            self.verified(now);
        } else {
            self.fault = Some(MemoryFault::Log { table, log });
        }
        self.pump(now);
    }

    pub(super) fn log_end_unreadable(&mut self, now: Timestamp, reason: String) {
        if let Some(suppressed) = self.limits.log.permit(now) {
            self.say(Event::LogEndUnreadable { reason, suppressed });
        }
        self.verified(now); // against itself, which is what can be said
    }

    fn verified(&mut self, now: Timestamp) {
        if let Some(alarm) = &mut self.alarm {
            alarm.verified = true;
        }
        let verified = Event::TableVerified {
            position: self.master.position(),
            records: self.master.records(),
            alarm: self.alarm.is_some(),
        };
        self.say_alarm(now, verified);
    }

    /// Nodes can bring an alarm about and end it as often as they like; `alarms_total` counts each.
    fn say_alarm(&mut self, now: Timestamp, event: Event) {
        if self.limits.alarms.permit(now).is_some() {
            self.say(event);
        }
    }

    /// Takes the word that most nodes agree against the master (rules 3.2).
    pub(super) fn alarm(&mut self, now: Timestamp, disagreement: Disagreement) {
        self.counters.alarms_total += 1;
        self.say_alarm(now, Event::Alarm(disagreement));
        self.alarm = Some(Alarm {
            disagreement,
            verified: false,
        });
        self.verify_all(now);
    }

    /// Takes note that most nodes do not agree against the master any more, if so.
    pub(super) fn end_alarm(&mut self, now: Timestamp) {
        let lasts = self.sender.as_ref().is_some_and(Sender::is_alarmed);
        if self.alarm.is_some() && !lasts {
            self.alarm = None;
            self.say_alarm(now, Event::AlarmOver);
        }
    }

    /// Begins to read all of the table at once, unless that is under way: whoever asks for it again and again
    /// does not keep it from its end.
    pub(super) fn verify_all(&mut self, now: Timestamp) {
        if self.scrub.hurry {
            return;
        }
        self.scrub = Scrub {
            next: 0,
            due: now.plus(HURRY_PAUSE),
            hurry: true,
        };
    }

    /// A record could not be read, or made no sense: says so, unless memory is found to be wrong.
    pub(super) fn doubt(&mut self, now: Timestamp, key: &Key, reason: String) {
        match self.master.verify_key(key) {
            Ok(()) => self.say_inconsistent(now, reason),
            Err(fault) => self.fault = Some(fault),
        }
    }

    /// Reads everything before the first epoch is opened: what was recovered contradicts the log.
    pub(super) fn verify_recovered(&mut self) -> Result<(), MemoryFault> {
        for partition in 0..=u16::MAX {
            self.master.verify_partition(partition)?;
        }
        self.master.verify_root()
    }

    /// Reads the next step if it is due.
    pub(super) fn scrub(&mut self, now: Timestamp) {
        if self.sender.is_none() || now < self.scrub.due || self.fault.is_some() {
            return;
        }
        let (partitions, pause) = pace(self.master.records());
        let pause = if self.scrub.hurry { HURRY_PAUSE } else { pause };
        self.scrub.due = now.plus(pause);
        if let Err(fault) = self.scrub_step(partitions) {
            self.fault = Some(fault);
        }
    }

    fn scrub_step(&mut self, partitions: u64) -> Result<(), MemoryFault> {
        let mut left = partitions;
        while left > 0 {
            let partition = self.scrub.next;
            let read = self.master.verify_partition(partition)?;
            // Empty ones cost next to nothing; in the background they take their turn nevertheless.
            left -= u64::from(read || !self.scrub.hurry);
            let Some(next) = partition.checked_add(1) else {
                return self.scrubbed();
            };
            self.scrub.next = next;
        }
        Ok(())
    }

    /// The last partition was read.
    fn scrubbed(&mut self) -> Result<(), MemoryFault> {
        self.scrub.next = 0;
        self.master.verify_root()?;
        self.counters.scrubs_total += 1;
        if std::mem::take(&mut self.scrub.hurry) {
            self.outputs.push_back(Output::ReadLogEnd);
        }
        Ok(())
    }
}

/// Returns how many partitions are read in one step of a table with so many records, and the time from one
/// step to the next.
fn pace(records: u64) -> (u64, Duration) {
    let all = u64::try_from(PARTITIONS).unwrap_or(u64::MAX);
    let each = records / all + PASSED_OVER;
    let partitions = (STEP_RECORDS / each).clamp(1, STEP_PARTITIONS_MAX);
    let steps = u32::try_from(all / partitions).unwrap_or(u32::MAX);
    (partitions, ROUND / steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_takes_ten_minutes_in_short_steps_whatever_the_table() {
        for (records, partitions) in [(0, 16), (1_000_000, 16), (10_000_000, 11), (100_000_000, 1)]
        {
            let (each, pause) = pace(records);
            assert_eq!(each, partitions, "{records}");
            let steps = 65_536_u32.div_ceil(u32::try_from(each).unwrap());
            let round = pause * steps;
            let close = Duration::from_secs(599)..Duration::from_secs(601);
            assert!(close.contains(&round), "{records}: {round:?}");
        }
    }
}
