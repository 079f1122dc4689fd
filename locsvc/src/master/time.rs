//! Service time: the clock by which bindings expire, and which stands still while nobody could refresh them.
//! It reads no clock itself.

use std::time::Duration;

use locus_proto::{MasterTime, Timestamp};
use serde::{Deserialize, Serialize};

/// Longest hold after an outage: nodes answered refreshes with expiries of 60 to 120 s meanwhile
/// (rules 2.4), so by then every phone has come back.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(120);
/// An outage that seems longer is a wall clock that jumped, or makes no difference any more.
const OUTAGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the file `alive` says: service time and wall clock of the last second of the last life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// Service time.
    pub time: MasterTime,
    /// Unix time by the wall clock, in milliseconds.
    pub wall_ms: u64,
}

/// Service time as a function of the process's own time.
///
/// It resumes where the last life ended, so an outage ages no binding, and then holds for
/// min(outage, 120 s), so that what came back by a short expiry is not removed meanwhile. A disk that
/// takes nothing is an outage too: from the first refusal to the next success the clock stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceClock {
    base: MasterTime,
    runs_from: Timestamp,
    outage: Duration,
    stopped_at: Option<Timestamp>,
}

impl ServiceClock {
    /// Returns the clock of a service that starts at `now` and `wall_ms`.
    ///
    /// `alive` is what the last life wrote each second, `last_frame` the time of the last entry of its
    /// log. With neither, the data folder is new and service time begins as wall time. Without `alive`
    /// the length of the outage is unknown and the hold is the longest.
    pub fn start(
        now: Timestamp,
        wall_ms: u64,
        alive: Option<Alive>,
        last_frame: Option<MasterTime>,
    ) -> Self {
        let Some(base) = alive.map(|alive| alive.time).max(last_frame) else {
            return Self {
                base: MasterTime(wall_ms.max(1)), // zero means never
                runs_from: now,
                outage: Duration::ZERO,
                stopped_at: None,
            };
        };
        let outage = alive.map_or(HOLD_MAX, |alive| {
            Duration::from_millis(wall_ms.saturating_sub(alive.wall_ms)).min(OUTAGE_MAX)
        });
        Self {
            base,
            runs_from: now.plus(outage.min(HOLD_MAX)),
            outage,
            stopped_at: None,
        }
    }

    /// Stands still from `now` on: no change is accepted. Does nothing if it stands still already.
    pub fn stop(&mut self, now: Timestamp) {
        if self.stopped_at.is_none() {
            self.base = self.time(now);
            self.runs_from = self.runs_from.max(now);
            self.stopped_at = Some(now);
        }
    }

    /// Goes on, after a hold of its own: changes are accepted again. Does nothing if it was not stopped.
    pub fn go_on(&mut self, now: Timestamp) {
        if let Some(stopped_at) = self.stopped_at.take() {
            let hold = now.since(stopped_at).min(HOLD_MAX);
            self.runs_from = self.runs_from.max(now.plus(hold));
        }
    }

    /// Returns service time at `now`.
    pub fn time(&self, now: Timestamp) -> MasterTime {
        if self.stopped_at.is_some() {
            return self.base;
        }
        let run = now.since(self.runs_from).as_millis();
        self.base.plus_ms(u64::try_from(run).unwrap_or(u64::MAX))
    }

    /// Returns how long the service was down, at most seven days.
    pub fn outage(&self) -> Duration {
        self.outage
    }

    /// Returns for how long the clock still stands at `now`.
    pub fn hold(&self, now: Timestamp) -> Duration {
        self.runs_from.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_700_000_000_000;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(seconds))
    }

    fn alive(time: u64, wall_ms: u64) -> Option<Alive> {
        let time = MasterTime(time);
        Some(Alive { time, wall_ms })
    }

    #[test]
    fn begins_as_wall_time() {
        let clock = ServiceClock::start(at(1), WALL, None, None);
        assert_eq!(clock.time(at(1)), MasterTime(WALL));
        assert_eq!(clock.time(at(11)), MasterTime(WALL + 10_000));
    }

    #[test]
    fn an_outage_ages_nothing_and_is_followed_by_a_hold() {
        for (outage_s, hold_s) in [(0, 0), (30, 30), (120, 120), (3600, 120), (10_000_000, 120)] {
            let wall = WALL + outage_s * 1000;
            let clock =
                ServiceClock::start(at(5), wall, alive(WALL, WALL), Some(MasterTime(WALL - 5)));
            assert_eq!(clock.time(at(5)), MasterTime(WALL), "{outage_s}");
            assert_eq!(clock.time(at(5 + hold_s)), MasterTime(WALL), "{outage_s}");
            assert_eq!(
                clock.time(at(6 + hold_s)),
                MasterTime(WALL + 1000),
                "{outage_s}"
            );
            assert_eq!(clock.hold(at(5)), Duration::from_secs(hold_s));
        }
    }

    #[test]
    fn a_jump_of_the_wall_clock_moves_only_the_hold() {
        let back = ServiceClock::start(at(0), WALL - 3_600_000, alive(WALL, WALL), None);
        assert_eq!(back.time(at(0)), MasterTime(WALL));
        assert_eq!(back.hold(at(0)), Duration::ZERO);
        let ahead = ServiceClock::start(at(0), WALL * 2, alive(WALL, WALL), None);
        assert_eq!(ahead.time(at(0)), MasterTime(WALL));
        assert_eq!((ahead.outage(), ahead.hold(at(0))), (OUTAGE_MAX, HOLD_MAX));
    }

    #[test]
    fn a_stop_ages_nothing_and_is_followed_by_a_hold() {
        let mut clock = ServiceClock::start(at(0), WALL, None, None);
        clock.go_on(at(5));
        clock.stop(at(10));
        clock.stop(at(30));
        assert_eq!(clock.time(at(40)), MasterTime(WALL + 10_000));
        clock.go_on(at(40));
        for (second, run) in [(40, 10), (70, 10), (71, 11), (80, 20)] {
            assert_eq!(clock.time(at(second)), MasterTime(WALL + run * 1000));
        }
        // Within the hold it only lengthens it, and time never goes back.
        clock.stop(at(100));
        clock.go_on(at(1000));
        clock.stop(at(1010));
        clock.go_on(at(1011));
        assert_eq!(clock.time(at(1120)), MasterTime(WALL + 40_000));
        assert_eq!(clock.time(at(1121)), MasterTime(WALL + 41_000));
    }

    #[test]
    fn a_lost_file_is_replaced_by_the_log() {
        let clock = ServiceClock::start(at(0), WALL + 1, None, Some(MasterTime(WALL)));
        assert_eq!(clock.time(at(120)), MasterTime(WALL));
        assert_eq!(clock.time(at(121)), MasterTime(WALL + 1000));
        // The log may be newer than the last second that was written.
        let clock = ServiceClock::start(at(0), WALL, alive(WALL, WALL), Some(MasterTime(WALL + 7)));
        assert_eq!(clock.time(at(0)), MasterTime(WALL + 7));
    }
}
