//! What a process of the server may ask of the machine: its number, a random number, the monotonic clock.
//!
//! It knows no message and keeps no state.

use std::ffi::c_int;

use crate::bindings;

/// Which process runs `child_init`, as the core numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// The main process, once before any other is forked.
    Init,
    /// The main process, after the workers.
    Main,
    /// A process that handles SIP messages, counted from 1.
    Worker(u32),
    /// Timers, RPC, TCP main and other helpers, by the core's (negative) number.
    Helper(i32),
}

impl Rank {
    const INIT: c_int = -127;

    pub(crate) fn from_number(rank: c_int) -> Self {
        match u32::try_from(rank) {
            Ok(0) => Self::Main,
            Ok(number) => Self::Worker(number),
            Err(_) if rank == Self::INIT => Self::Init,
            Err(_) => Self::Helper(rank),
        }
    }
}

/// Returns this process's number in the core's table.
#[must_use]
pub fn process_number() -> i32 {
    // SAFETY: reads one int of this process.
    unsafe { bindings::shim_process_number() }
}

/// Returns a pseudo-random number of 31 bits; each process has its own sequence.
#[must_use]
pub fn random() -> u32 {
    // SAFETY: libc's own generator, which the core seeds in each process after the fork.
    unsafe { bindings::shim_random() }
}

/// Returns CLOCK_MONOTONIC in milliseconds; read through the vDSO, no system call.
#[must_use]
pub fn clock_monotonic_ms() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a timespec of ours, and CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1000)
        .saturating_add(nanoseconds / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_told_apart() {
        assert_eq!(Rank::from_number(-127), Rank::Init);
        assert_eq!(Rank::from_number(0), Rank::Main);
        assert_eq!(Rank::from_number(3), Rank::Worker(3));
        assert_eq!(Rank::from_number(-4), Rank::Helper(-4));
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let first = clock_monotonic_ms();
        assert!(first > 0 && clock_monotonic_ms() >= first);
    }
}
