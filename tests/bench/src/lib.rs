//! What the benches share: a closed-loop UDP generator, the CPU of a process, and honest averages.
//! Knows no figure by name.

#![forbid(unsafe_code)]
#![expect(clippy::panic, reason = "a bench that cannot measure says so and ends")]

mod cpu;
mod generator;
mod random;
mod statistics;

pub use cpu::cpu_time;
pub use generator::{Generator, WINDOW};
pub use random::Random;
pub use statistics::Sample;
