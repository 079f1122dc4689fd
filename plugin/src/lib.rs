//! How a node answers: which contacts of an address-of-record, in which order, and whether it may say so.
//!
//! It runs inside a process that carries calls: no allocation on the look-up path, no panic, no wait. It
//! refuses to know C, SIP messages, sockets and where the table's bytes come from.
//!
//! * [`Answerer`]: look-up and number route from a node's table, one per worker;
//! * [`Judge`]: whether a binding has expired, by service time (rules 2.1, 2.2);
//! * [`EmergencySet`]: the local file that answers emergency calls whatever the table's state (rules 4.7).
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod answer;
mod contacts;
mod emergency;
mod judge;
mod readiness;
mod routed;
mod stats;

pub use answer::{Answer, Answerer, Query, RouteAnswer};
pub use contacts::Contacts;
pub use emergency::{
    EMERGENCY_BYTES_MAX, EMERGENCY_ENTRIES_MAX, EmergencySet, ParseEmergencyError,
};
pub use judge::Judge;
// A host maps the files and reads the agent's report; it needs nothing else of the table.
pub use locus_table::{Generation, MapRegions, Pulse, Reason, RegionName};
pub use readiness::{PULSE_SILENCE_MS, Readiness, Unready};
pub use routed::{NUMBER_BYTES_MAX, Number, Routed};
pub use stats::{Stat, Stats};
