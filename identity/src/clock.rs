//! Reads clocks, the only file of this crate that does; it decides nothing by them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time by which something must have happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// Returns the point in time `after` from now.
    #[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
    pub(crate) fn after(after: Duration) -> Self {
        Self(Instant::now() + after)
    }

    /// Returns the time that is left, `None` if it is over.
    #[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
    pub(crate) fn left(self) -> Option<Duration> {
        self.0
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }
}

/// Returns the time since 1970 by the host's wall clock, by which certificates are valid or not.
#[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
