//! Replication of the provisioning log: the [`Sender`] beside the log, the [`Receiver`] in each node.
//!
//! It refuses to know sockets, clocks, storage and the table: both ends are cores without I/O.
//!
//! ```text
//!  log ──ReadLog──► Sender ──Welcome, frames, snapshot, heartbeats──► Receiver ──Apply, Load…──► table
//!                     ▲ └──────── roster ◄──────── Hello, Status ────────┘
//! ```
//!
//! The contract of both: call one `handle_*`, then drain `poll_transmit` and `poll_event` until both
//! return `None`, then ask `poll_timeout` and wait for the next input. Transmits come first, so that a
//! last word leaves before its connection closes. The log is the only source of changes (rules 1.5).
#![forbid(unsafe_code)]

mod counters;
mod message;
mod receiver;
mod roster;
mod sender;

pub use counters::{ReceiverCounters, SenderCounters};
pub use receiver::{
    BEHIND_AFTER, CLOCK_WINDOW, DisconnectReason, Failure, GREETING_WAIT, MasterError, Pulse,
    RECONNECT_MAX, RECONNECT_MIN, RELOAD_PROVEN, RELOAD_RETRY_MAX, RELOAD_RETRY_MIN, Recalled,
    Receiver, ReceiverConfig, ReceiverEvent, SILENCE_MAX, SNAPSHOT_RECORDS_SLACK, STALE_AFTER,
    STATUS_EVERY, STATUS_SOON, Standing, StateReason,
};
pub use roster::{ROSTER_MAX, RosterEntry};
pub use sender::{
    CloseReason, Costs, GREETING_MAX, HEARTBEAT_EVERY, LogFrame, PEER_SILENCE_MAX, PEERS_MAX, Peer,
    PeerError, RELOAD_COST_MIN, SNAPSHOTS_MAX, STALL_MAX, Sender, SenderConfig, SenderEvent,
    Sending, WINDOW_BYTES,
};
