//! CPU time of one process, and how busy the machine is. Knows nothing of what it is spent on.

use std::fs;
use std::time::Duration;

/// Time that the main thread of `pid` has been running, from `/proc/<pid>/schedstat`, whose resolution is
/// a nanosecond where `/proc/<pid>/stat` counts ticks of 10 ms.
///
/// # Panics
/// When the process is gone or the kernel keeps no such figure.
pub fn cpu_time(pid: u32) -> Duration {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(first.unwrap_or_else(|| panic!("{path} holds {text:?}")))
}

/// The machine's load averages as the kernel shows them: what else ran while something was measured.
pub fn load_averages() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
