//! Masters and nodes in virtual time: transcripts to read, and a seeded simulation.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed step fails the test, and its seed must be seen"
)]

mod audits;
mod drive;
mod group;
mod machines;
mod model;
mod net;
mod simulation;
mod table;
mod transcripts;
mod wire;
mod words;
mod world;
