//! Proofs of the table that need other processes: death at any moment, and at every instruction.
//!
//! It sees a table as its readers and its heirs do, and knows where a few words stand. It refuses to
//! trust the table in anything that is to be proved: keys, hashes and sums are worked out here anew.
//!
//! * [`kill_loop`]: a writer is killed again and again beside readers;
//! * [`Run`]: a writer runs instruction by instruction, and its memory is watched between any two;
//! * [`Order`]: the same with the stores in a wrong order, which must be noticed;
//! * `proofs-writer`, this crate's program, is the writer; what it needs of here stands below these.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what is missing and what stays behind is told on the terminal"
)]

mod case;
mod expect;
mod kill;
mod layout;
mod life;
mod model;
mod plan;
mod room;
mod script;
mod step;
mod watch;
mod watcher;

pub use case::{Case, What};
pub use kill::{Kills, Work, kill_loop};
pub use layout::{Rot, find_block, spoil};
pub use model::{EPOCH, LEVELS_PER_BATCH, Op, PARTITION, TABLE_KEY, Universe, count};
pub use plan::{KILL_GEOMETRY, kill_content, kill_ops, kill_universe};
pub use room::{Room, ignored};
pub use script::{Order, script};
pub use step::{Run, StepError, UNTRACED};
pub use watch::Report;
