//! The net under every entry from C: no panic crosses it.
//!
//! A panic that reaches `extern "C"` aborts the process, and one aborted child ends the whole SIP server. It
//! knows entries by name only.

use std::ffi::CStr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::counter::Counter;
use crate::log::{LogLevel, log};
use crate::process::clock_monotonic_ms;

/// Lines about panics that one process writes in [`WINDOW_MS`]: a peer that has found one must not drown the log.
const LINES_MAX: u32 = 20;
const WINDOW_MS: u64 = 10_000;

/// Panics caught since the server started.
pub(crate) static PANICS: Counter = Counter::new(
    c"panics_total",
    c"Panics that a guard caught; each is a bug to report",
);

static LINES: Lines = Lines::new();

/// Runs `f`; when it panics, counts that and returns `otherwise` to C.
///
/// The panic hook has logged the place by then. `f` may leave what it was changing half done; state that
/// outlives a request must therefore be replaced as a whole, or borrowed in a way that a panic releases.
pub fn guard<R>(entry: &CStr, otherwise: R, f: impl FnOnce() -> R) -> R {
    let caught = panic::catch_unwind(AssertUnwindSafe(|| {
        inject(entry);
        f()
    }));
    caught.unwrap_or_else(|payload| {
        // Dropping a payload could panic again; it is a message in practice, and leaking one is harmless.
        std::mem::forget(payload);
        PANICS.increment();
        report(format_args!(
            "{} failed and returned its error code",
            entry.to_string_lossy()
        ));
        otherwise
    })
}

/// Sends panics to Kamailio's log: what the default hook writes to stderr is lost in a daemon.
pub(crate) fn install_hook() {
    panic::set_hook(Box::new(|panic| report(format_args!("bug: {panic}"))));
}

fn report(line: std::fmt::Arguments<'_>) {
    if LINES.may_write(clock_monotonic_ms()) {
        log(LogLevel::Error, line);
    }
}

/// Counts lines in windows of time.
#[derive(Debug)]
struct Lines {
    window: AtomicU64,
    written: AtomicU32,
}

impl Lines {
    const fn new() -> Self {
        Self {
            window: AtomicU64::new(0),
            written: AtomicU32::new(0),
        }
    }

    /// Returns whether one more line may be written at `now_ms`, and counts it.
    fn may_write(&self, now_ms: u64) -> bool {
        let window = now_ms.div_euclid(WINDOW_MS);
        if self.window.swap(window, Ordering::Relaxed) != window {
            self.written.store(0, Ordering::Relaxed);
        }
        let written = self.written.load(Ordering::Relaxed);
        self.written
            .store(written.saturating_add(1), Ordering::Relaxed);
        written < LINES_MAX
    }
}

/// Panics when the file named by `LOCUS_INJECT` has a line that is the entry's name.
#[cfg(feature = "inject")]
#[expect(clippy::panic, reason = "the test build's purpose")]
fn inject(entry: &CStr) {
    let Some(path) = std::env::var_os("LOCUS_INJECT") else {
        return;
    };
    let wanted = std::fs::read_to_string(path).unwrap_or_default();
    if wanted
        .lines()
        .any(|line| line.as_bytes() == entry.to_bytes())
    {
        panic!("injected into {entry:?}");
    }
}

#[cfg(not(feature = "inject"))]
fn inject(_entry: &CStr) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_panics_is_a_few_lines_a_window() {
        let lines = Lines::new();
        let written = |now_ms: u64| (0..1000).filter(|_| lines.may_write(now_ms)).count();
        assert_eq!(written(WINDOW_MS), 20);
        assert_eq!(written(2 * WINDOW_MS - 1), 0);
        assert_eq!(written(2 * WINDOW_MS), 20);
    }

    #[test]
    fn a_panic_becomes_the_error_code_and_nothing_else_changes() {
        assert_eq!(guard(c"entry", -3, || 1), 1);
        assert_eq!(guard(c"entry", -3, || panic!("of the test")), -3);
        let cell = std::cell::RefCell::new(0);
        guard(c"entry", (), || {
            let _held = cell.borrow_mut();
            panic!("of the test");
        });
        assert!(
            cell.try_borrow_mut().is_ok(),
            "a panic releases what it had borrowed"
        );
    }
}
