//! How long to wait before the next connection; it connects nothing.

use std::time::Duration;

use super::{AUDIT_AGAIN, RECONNECT_MAX, RECONNECT_MIN, RELOAD_RETRY_MAX, RELOAD_RETRY_MIN};

/// Doubles the wait with each failure in a row, and, apart from that, with each reload in a row.
///
/// Each wait is drawn from the upper half of its range, so that the nodes of a cluster do not return in
/// one moment. The draw is seeded: a replay waits as long.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    reloads: u32,
    seed: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            reloads: 0,
            seed,
        }
    }

    /// The master does not want this node, or the node not this master: no hurry to come again.
    pub(super) fn handle_refused(&mut self) {
        self.failures = u32::MAX;
    }

    /// A whole table begins to come.
    pub(super) fn handle_reload(&mut self) {
        self.reloads = self.reloads.saturating_add(1);
    }

    /// The node is at the master's level.
    pub(super) fn handle_success(&mut self) {
        self.failures = 0;
    }

    /// The loaded table has held.
    pub(super) fn handle_proven(&mut self) {
        self.reloads = 0;
    }

    /// Takes the end of a connection, or of an attempt; returns the time until the next.
    pub(super) fn handle_closed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let connect = doubled(RECONNECT_MIN, RECONNECT_MAX, self.failures);
        let reload = match self.reloads {
            0 => Duration::ZERO,
            reloads => doubled(RELOAD_RETRY_MIN, RELOAD_RETRY_MAX, reloads),
        };
        let wait = connect.max(reload);
        wait / 2 + wait.mul_f64(self.draw() / 2.0)
    }

    /// Takes the end of an audit that was in vain; returns the time until the next.
    pub(super) fn handle_refused_audit(&mut self) -> Duration {
        AUDIT_AGAIN + AUDIT_AGAIN.mul_f64(self.draw() / 2.0)
    }

    /// Returns a number from zero to one; SplitMix64.
    fn draw(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from(u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

/// Returns `first`, doubled for each time after the first, at most `max`.
fn doubled(first: Duration, max: Duration, times: u32) -> Duration {
    let factor = 1u32 << times.saturating_sub(1).min(16);
    first.saturating_mul(factor).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit_and_start_anew_after_success() {
        let mut backoff = Backoff::new(1);
        let upper_half = |wait: Duration, of: Duration| wait >= of / 2 && wait <= of;
        for ms in [200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.handle_closed();
            assert!(
                upper_half(wait, Duration::from_millis(ms)),
                "{wait:?} of {ms}"
            );
        }
        backoff.handle_success();
        assert!(upper_half(backoff.handle_closed(), RECONNECT_MIN));
        backoff.handle_refused();
        assert!(upper_half(backoff.handle_closed(), RECONNECT_MAX));
        backoff.handle_success();
        for s in [1, 2, 4, 8, 16, 32, 60, 60] {
            backoff.handle_reload();
            backoff.handle_success();
            let wait = backoff.handle_closed();
            assert!(
                upper_half(wait, Duration::from_secs(s)),
                "{wait:?} of {s} s"
            );
        }
        backoff.handle_proven();
        backoff.handle_success();
        assert!(upper_half(backoff.handle_closed(), RECONNECT_MIN));
    }
}
