//! When which partition of a table is read again; it reads none.

use std::time::Duration;

use locus_proto::Timestamp;
use locus_table::PARTITIONS;

/// Longest time between two looks at what has changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Shortest sleep between partitions; those that are due by then are read in a row.
const SLEEP_MIN: Duration = Duration::from_millis(20);

/// When which partition is due: evenly over the time of a pass.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Time of one partition; `None`: none is ever due.
    step: Option<Duration>,
    /// When the pass began.
    began: Timestamp,
    next: u64,
}

impl Schedule {
    /// Returns a pass that begins now and takes `every`; zero: none ever begins.
    pub(super) fn new(now: Timestamp, every: Duration) -> Self {
        let partitions = u32::try_from(PARTITIONS).unwrap_or(u32::MAX);
        Self {
            step: Some(every / partitions).filter(|step| !step.is_zero()),
            began: now,
            next: 0,
        }
    }

    /// Returns how long to sleep.
    pub(super) fn rest(&self, now: Timestamp) -> Duration {
        let Some(step) = self.step else {
            return LOOK_EVERY;
        };
        let at = step.saturating_mul(u32::try_from(self.next + 1).unwrap_or(u32::MAX));
        at.saturating_sub(now.since(self.began))
            .clamp(SLEEP_MIN, LOOK_EVERY)
    }

    /// Returns the partitions that have become due, at most to the end of the pass.
    pub(super) fn due(&mut self, now: Timestamp) -> impl Iterator<Item = u16> + use<> {
        let all = u64::try_from(PARTITIONS).unwrap_or(u64::MAX);
        let due = self.step.map_or(0, |step| {
            let steps = now.since(self.began).as_nanos() / step.as_nanos();
            u64::try_from(steps).unwrap_or(u64::MAX)
        });
        let (from, to) = (self.next, due.clamp(self.next, all));
        self.next = to;
        if to == all {
            (self.began, self.next) = (now, 0);
        }
        (from..to).filter_map(|partition| u16::try_from(partition).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_partitions_are_due_once_in_each_pass() {
        let every = Duration::from_secs(600);
        let mut now = Timestamp(5_000_000_000);
        let mut schedule = Schedule::new(now, every);
        for _ in 0..2 {
            let began = now;
            let mut read = Vec::new();
            while read.last() != Some(&u16::MAX) {
                now = now.plus(schedule.rest(now));
                let due: Vec<_> = schedule.due(now).collect();
                assert!(due.len() < 10, "{} at once", due.len());
                read.extend(due);
            }
            assert!(read.iter().copied().eq(0..=u16::MAX));
            let took = now.since(began);
            assert!(
                took <= every + SLEEP_MIN && took > every - LOOK_EVERY,
                "{took:?}"
            );
        }
        // A machine that slept goes on with what is left, not with passes that it missed.
        now = now.plus(every * 5);
        assert_eq!(schedule.due(now).count(), PARTITIONS);
        assert_eq!(schedule.due(now).count(), 0);
    }

    #[test]
    fn switched_off_nothing_is_due() {
        let mut schedule = Schedule::new(Timestamp(0), Duration::ZERO);
        assert_eq!(schedule.due(Timestamp(u64::MAX)).count(), 0);
        assert_eq!(schedule.rest(Timestamp(u64::MAX)), LOOK_EVERY);
    }
}
