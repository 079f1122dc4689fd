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
//! The stream of frames and heartbeats comes to a node over its own connection or, for many nodes at once, by
//! the group: LRM multicast, whose ends [`GroupSender`] and [`GroupReceiver`] stand inside the two. All nodes of
//! the group share one reader of the log ([`GROUP`]). The connection always stands beside it, carries everything
//! else, and the stream again when the group does not bring it.
//!
//! The contract of both: call one `handle_*`, then drain `poll_datagram`, `poll_transmit` and `poll_event` until
//! all return `None`, then ask `poll_timeout` and wait for the next input. Datagrams come first, because what was
//! gathered for them is closed there; transmits before events, so that a last word leaves before its connection
//! closes. The log is the only source of changes (rules 1.5).
#![forbid(unsafe_code)]

mod audit;
mod counters;
mod message;
mod multicast;
mod receiver;
mod roster;
mod seal;
mod sender;

pub use audit::PARTITION_BYTES_MAX;
pub use counters::{ReceiverCounters, SenderCounters};
pub use multicast::{
    GroupConfig, GroupDatagram, GroupReceiver, GroupReceiverCounters, GroupReceiverEvent,
    GroupSender, GroupSenderCounters, GroupSenderEvent, GroupTarget, LAGGING_AFTER, RING_DATAGRAMS,
    WINDOW_DATAGRAMS,
};
pub use receiver::{
    AUDIT_AGAIN, AUDIT_ANSWER_MAX, AUDIT_MISSES_MAX, AUDIT_ROUNDS_MAX, AuditCause,
    BAD_PARTITIONS_MAX, BEHIND_AFTER, CLOCK_WINDOW, DisconnectReason, Failure, GREETING_WAIT,
    GROUP_BEHIND_MAX, GROUP_HELD_MAX, MasterError, Mended, Pulse, RECONNECT_MAX, RECONNECT_MIN,
    REJOIN_EVERY, RELOAD_PROVEN, RELOAD_RETRY_MAX, RELOAD_RETRY_MIN, Recalled, Receiver,
    ReceiverConfig, ReceiverEvent, SILENCE_MAX, SNAPSHOT_RECORDS_SLACK, STALE_AFTER, STATUS_EVERY,
    STATUS_SOON, STOOD_STILL, Standing, StateReason,
};
pub use roster::{ROSTER_MAX, RosterEntry};
pub use sender::{
    AUTO_CALM, AUTO_NODES_MAX, Arrived, AuditOrderError, BACK_AFTER, BOARDING, Boat, BusSide,
    CONFER, CloseReason, Costs, Disagreement, GREETING_MAX, GROUP, GroupSetup, HEADS_MAX,
    HEARTBEAT_EVERY, HOLD_UP_MAX, LogFrame, Medium, NodeIdentity, PEER_SILENCE_MAX, PEERS_MAX,
    Path, PathReason, Peer, PeerError, RELOAD_COST_MIN, RETURN_MAX, REUNION, ROTATION_WAIT,
    SLOW_SNAPSHOTS_MAX, SNAPSHOTS_MAX, STALL_MAX, Sender, SenderConfig, SenderEvent, Sending,
    WINDOW_BYTES,
};
