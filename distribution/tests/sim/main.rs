//! Up to a thousand nodes and their masters in one process and in virtual time: what `distribution.md` section 5.7
//! demands, one named test each.
//!
//! It refuses to know how the cores decide: it plays the network, the tables and the log, and judges what comes out.
//! `make sim` runs the full size; `SEED=n` runs one seed again.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a failed step fails the test, and its seed must be seen"
)]

mod attack;
mod cold;
mod hostile;
mod keys;
mod log;
mod master;
mod network;
mod node;
mod overload;
mod parts;
mod queue;
mod random;
mod repair;
mod safety;
mod silence;
mod size;
mod statistics;
mod stopped;
mod table;
mod takeover;
mod theory;
mod v1;
mod wire;
mod world;
