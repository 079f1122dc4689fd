//! Times as numbers: a process's own and the master's; only a daemon's `clock.rs` reads a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds since the process started; serialisable, so that recordings replay.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the time `later` from this one; saturates after 584 years.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// Returns the time that passed since `earlier`; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Service time in milliseconds: the master's clock, by which bindings expire (rules 2.1 to 2.3).
///
/// It starts as Unix time when the data folder is made and advances only while the service accepts
/// registrations: an outage ages no binding, so none expires because of it. It therefore trails the
/// wall clock by the sum of all outages and is good for differences only.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct MasterTime(pub u64);

impl MasterTime {
    /// As an expiry: never.
    pub const NEVER: Self = Self(0);

    /// Returns the time `ms` milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Returns the milliseconds since `earlier`; zero if it is not earlier.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the whole seconds from `now` until this time, rounded up; zero if it has passed.
    pub fn seconds_from(self, now: Self) -> u32 {
        u32::try_from(self.ms_since(now).div_ceil(1000)).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for MasterTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
