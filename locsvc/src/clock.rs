//! The only file that reads clocks; it decides nothing by them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use locus_proto::Timestamp;

/// The process's own clock. Copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Returns a clock that begins at zero.
    #[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Returns the time since the start; monotonic.
    pub fn now(&self) -> Timestamp {
        Timestamp::default().plus(self.start.elapsed())
    }

    /// Returns Unix time in milliseconds by the host's wall clock, which may jump: it serves to measure
    /// how long the service was down, never to let a binding expire.
    #[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
    pub fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }
}
