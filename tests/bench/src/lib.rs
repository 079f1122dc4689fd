//! What the benches share: subscribers, load, watchers, the CPU of a process, and honest averages.
//! Knows no figure by name.

#![forbid(unsafe_code)]
#![expect(clippy::panic, reason = "a bench that cannot measure says so and ends")]

mod append;
mod client;
mod cpu;
mod generator;
mod look_up;
mod random;
mod rounds;
mod subscriber;
mod watcher;

pub use append::{Appends, folder_bytes};
pub use client::{Client, Sent};
pub use cpu::{cpu_time, load_averages};
pub use generator::{Generator, WINDOW, header};
pub use look_up::{CHAIN, LookUp};
pub use random::Random;
pub use rounds::{Ratio, Rounds};
pub use subscriber::{Subscriber, provision};
pub use watcher::{Awaited, Sightings, Watcher};

/// Whether `QUICK` asks for a short look instead of a measurement.
pub fn is_quick() -> bool {
    std::env::var_os("QUICK").is_some_and(|value| !value.is_empty() && value != "0")
}

/// A count as a number to divide by.
pub fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
