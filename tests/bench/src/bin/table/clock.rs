//! CPU time of the thread that asks, exact to the nanosecond. Knows nothing of what it is spent on.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What this thread has used so far, in user space and in the kernel.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Calls `work` and returns what it returned and the CPU time it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = thread_cpu();
    let result = work();
    (result, thread_cpu() - start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time_and_waiting_takes_none() {
        let (_, waited) = timed(|| locus_lab::wait::pause(Duration::from_millis(50)));
        let mut random = locus_bench::Random::new(1);
        let (_, worked) = timed(|| (0..50_000_000).map(|_| random.next_u64()).max());
        assert!(waited < worked, "{waited:?} against {worked:?}");
    }
}
