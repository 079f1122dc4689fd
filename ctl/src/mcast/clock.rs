//! The only place of the test that reads a clock or waits for one.

use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "this is the test's clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test's datagrams have a pace, nothing is awaited"
)]
pub(super) fn pause(length: Duration) {
    std::thread::sleep(length);
}
