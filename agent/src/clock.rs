//! Reads the clock, the only file of the agent that does; it decides nothing by it.

use std::time::Duration;

use locus_proto::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// The kernel's monotonic clock, and where on it this process began.
///
/// `CLOCK_MONOTONIC` itself rather than [`std::time::Instant`]: the workers in Kamailio read the same
/// clock, and what the agent writes for them must name a point on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin_ns: u64,
}

impl Clock {
    /// Returns a clock whose [`Timestamp`] zero is now.
    pub(crate) fn start() -> Self {
        Self {
            origin_ns: monotonic_ns(),
        }
    }

    /// Returns the time since [`Self::start`].
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(monotonic_ns().saturating_sub(self.origin_ns))
    }

    /// Returns the milliseconds of `CLOCK_MONOTONIC` at `at`.
    pub(crate) fn monotonic_ms(&self, at: Timestamp) -> u64 {
        self.origin_ns.saturating_add(at.0) / 1_000_000
    }
}

fn monotonic_ns() -> u64 {
    // Since boot, and therefore never negative.
    let time = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_its_start_on_the_kernels_clock() {
        let before = monotonic_ns() / 1_000_000;
        let clock = Clock::start();
        let now = clock.now();
        let after = monotonic_ns() / 1_000_000;
        assert!(now < Timestamp(10_000_000_000), "{now:?}");
        assert!((before..=after).contains(&clock.monotonic_ms(now)));
        assert!(clock.now() >= now);
    }
}
