//! Waiting for real conditions with a deadline: the lab's only clock and its only pause.
//! Knows nothing of what is awaited.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How often a condition is looked at. 5 ms: finer than anything the lab asserts, and 200 looks a
/// second cost no measurable CPU.
const POLL: Duration = Duration::from_millis(5);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Makes Ctrl-C and TERM end the next wait with a panic, so that every guard's `Drop` runs. A second
/// Ctrl-C ends the process at once.
pub fn catch_signals() {
    INTERRUPTED.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .expect("signal handlers can be installed");
        }
        flag
    });
}

/// Whether Ctrl-C or TERM has arrived since [`catch_signals`].
pub fn interrupted() -> bool {
    INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// The monotonic clock, for deadlines and for durations that are reported.
#[expect(
    clippy::disallowed_methods,
    reason = "the lab watches real processes in real time"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Gives the processor away for `duration` inside a loop that looks at a condition again afterwards.
#[expect(
    clippy::disallowed_methods,
    reason = "the one pause of the lab, inside polling loops only"
)]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Waits until `look` gives a value and returns it.
///
/// # Panics
/// After `deadline` with "waited … for {what}", or when Ctrl-C arrives.
#[track_caller]
pub fn value<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(!interrupted(), "interrupted while waiting for {what}");
        assert!(
            start.elapsed() < deadline,
            "waited {deadline:?} in vain for {what}"
        );
        pause(POLL);
    }
}

/// Waits until `condition` holds; see [`value`].
///
/// # Panics
/// As [`value`].
#[track_caller]
pub fn until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    value(what, deadline, || condition().then_some(()));
}

/// Asserts that `condition` keeps holding for `duration`.
///
/// # Panics
/// As soon as it does not hold, or when Ctrl-C arrives.
#[track_caller]
pub fn holds(what: &str, duration: Duration, mut condition: impl FnMut() -> bool) {
    let start = now();
    while start.elapsed() < duration {
        assert!(!interrupted(), "interrupted while watching {what}");
        assert!(
            condition(),
            "{what} did not hold after {:?}",
            start.elapsed()
        );
        pause(POLL);
    }
}
