//! The master's clock as heard in heartbeats; it reads no clock.

use std::collections::VecDeque;

use locus_proto::{MasterTime, Timestamp};

use super::CLOCK_WINDOW;

/// Estimates kept at most; a flood of heartbeats drops the oldest.
const ESTIMATES_MAX: usize = 16;

/// Service time less the node's own time, from heartbeats.
///
/// The rule: **the largest estimate of the last [`CLOCK_WINDOW`] (2 s) stands**. A heartbeat that was
/// delayed on its way gives too small an estimate, never too large a one, so time does not step back
/// because of a queue. A master that holds its clock or steps back gives small estimates only, and is
/// followed as the larger ones grow older than 2 s: the node is never further ahead. Between heartbeats
/// nothing is forgotten.
#[derive(Debug, Default)]
pub(super) struct MasterClock {
    /// When heard, and service time less own time in milliseconds; largest estimate first.
    estimates: VecDeque<(Timestamp, i64)>,
}

impl MasterClock {
    /// Takes a service time that was true at `now` or shortly before.
    pub(super) fn handle_time(&mut self, now: Timestamp, time: MasterTime) {
        let estimate = signed(time.0).saturating_sub(own_ms(now));
        let old = |heard: Timestamp| now.since(heard) > CLOCK_WINDOW;
        while self.estimates.front().is_some_and(|(at, _)| old(*at)) {
            self.estimates.pop_front();
        }
        // Whatever is smaller and older can never stand again.
        while self.estimates.back().is_some_and(|(_, e)| *e <= estimate) {
            self.estimates.pop_back();
        }
        if self.estimates.len() == ESTIMATES_MAX {
            self.estimates.pop_front();
        }
        self.estimates.push_back((now, estimate));
    }

    /// Returns service time at `now`; `None` if none was ever heard.
    pub(super) fn at(&self, now: Timestamp) -> Option<MasterTime> {
        let (_, offset) = self.estimates.front()?;
        let ms = own_ms(now).saturating_add(*offset);
        Some(MasterTime(u64::try_from(ms).unwrap_or(0)))
    }
}

fn own_ms(now: Timestamp) -> i64 {
    signed(now.0 / 1_000_000)
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000_000)
    }

    #[test]
    fn a_delayed_heartbeat_moves_nothing_and_a_held_clock_is_followed() {
        let mut clock = MasterClock::default();
        assert_eq!(clock.at(ms(5)), None);
        // (own time, service time heard, service time believed)
        for (own, heard, believed) in [
            (1_000, 50_000, 50_000),
            (1_500, 50_500, 50_500),
            (2_400, 51_000, 51_400), // 400 ms in a queue
            (2_500, 51_500, 51_500),
            (3_000, 51_500, 52_000), // the master holds its clock …
            (3_500, 51_500, 52_500),
            (4_000, 51_500, 53_000),
            (4_501, 51_500, 53_001), // … the running estimates grow older than 2 s one by one
            (5_001, 51_500, 53_001),
            (5_501, 51_500, 53_001), // so it stands still, less than 2 s ahead
            (6_001, 40_000, 53_000), // a step back …
            (8_600, 42_599, 42_599), // … is followed
            (8_700, 60_000, 60_000), // forward at once
        ] {
            clock.handle_time(ms(own), MasterTime(heard));
            let now = clock.at(ms(own));
            assert_eq!(now, Some(MasterTime(believed)), "at {own}");
        }
        // It runs on without heartbeats, for ever.
        assert_eq!(clock.at(ms(108_700)), Some(MasterTime(160_000)));
    }

    #[test]
    fn no_time_overflows_and_no_flood_fills_memory() {
        let mut clock = MasterClock::default();
        for i in 0..1_000 {
            clock.handle_time(ms(i / 100), MasterTime(u64::MAX / 2 - i));
        }
        assert!(clock.estimates.len() <= ESTIMATES_MAX);
        clock.handle_time(Timestamp(u64::MAX), MasterTime(0));
        clock.handle_time(Timestamp(u64::MAX), MasterTime(u64::MAX));
        assert!(clock.at(Timestamp(u64::MAX)).is_some());
    }
}
