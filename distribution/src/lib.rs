//! Replication of the provisioning log: the [`Sender`] beside the log, the [`Receiver`] in each node.
//!
//! It refuses to know sockets, clocks, storage and the table: both ends are cores without I/O.
//!
//! ```text
//!  log ──ReadLog──► Sender ──Welcome, frames, snapshot, heartbeats──► Receiver ──Apply, Load…──► table
//!                     ▲ └──────── roster ◄──────── Hello, Status ────────┘
//! ```
//!
//! A node whose content differs from the master's is not sent the whole table: the two compare sums, from
//! coarse to fine, and the node installs the records that differ (rules 3.2). The table's owner at either
//! end is asked to read, compare and mend; here it is only decided what to ask next.
//!
//! The contract of both: call one `handle_*`, then drain `poll_transmit` and `poll_event` until both
//! return `None`, then ask `poll_timeout` and wait for the next input. Transmits come first, so that a
//! last word leaves before its connection closes. The log is the only source of changes (rules 1.5).
#![forbid(unsafe_code)]

mod audit;
mod counters;
mod message;
mod receiver;
mod roster;
mod sender;

pub use audit::PARTITION_BYTES_MAX;
pub use counters::{ReceiverCounters, SenderCounters};
pub use receiver::{
    AUDIT_AGAIN, AUDIT_ANSWER_MAX, AUDIT_MISSES_MAX, AUDIT_ROUNDS_MAX, AuditCause,
    BAD_PARTITIONS_MAX, BEHIND_AFTER, CLOCK_WINDOW, DisconnectReason, Failure, GREETING_WAIT,
    MasterError, Mended, Pulse, RECONNECT_MAX, RECONNECT_MIN, RELOAD_PROVEN, RELOAD_RETRY_MAX,
    RELOAD_RETRY_MIN, Recalled, Receiver, ReceiverConfig, ReceiverEvent, SILENCE_MAX,
    SNAPSHOT_RECORDS_SLACK, STALE_AFTER, STATUS_EVERY, STATUS_SOON, Standing, StateReason,
};
pub use roster::{ROSTER_MAX, RosterEntry};
pub use sender::{
    AuditOrderError, CONFER, CloseReason, Costs, Disagreement, GREETING_MAX, HEADS_MAX,
    HEARTBEAT_EVERY, LogFrame, PEER_SILENCE_MAX, PEERS_MAX, Peer, PeerError, RELOAD_COST_MIN,
    RETURN_MAX, REUNION, SNAPSHOTS_MAX, STALL_MAX, Sender, SenderConfig, SenderEvent, Sending,
    WINDOW_BYTES,
};
