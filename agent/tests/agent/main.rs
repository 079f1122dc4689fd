//! The whole agent as a process, between a hand-written master and a worker's socket; needs /dev/shm.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]
#![expect(clippy::panic, reason = "a failed step fails the test")]
#![expect(clippy::print_stderr, reason = "a failed test shows the agent's log")]

mod audit;
mod faults;
mod group;
mod growth;
mod identity;
mod paths;
mod snapshot;
mod story;
mod support;
