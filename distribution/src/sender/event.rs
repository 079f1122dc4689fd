//! Inputs, outputs and limits of the sender; it holds no state.

use std::sync::Arc;
use std::time::Duration;

use locus_proto::{FrameHeader, Level, NodeId, NodeName, Position, v1};
use serde::{Deserialize, Serialize};

/// Most connections at once; a cluster is planned for 256 nodes.
pub const PEERS_MAX: usize = 1024;
/// Most snapshots served at once: a cluster that starts cold must not stampede the master.
pub const SNAPSHOTS_MAX: usize = 4;
/// Bytes in flight to one node by default: 80 ms of a 100 Mbit/s link.
pub const WINDOW_BYTES: usize = 1024 * 1024;
/// Time between heartbeats.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// Longest time from connection to Hello.
pub const GREETING_MAX: Duration = Duration::from_secs(5);
/// Longest silence of a node, which reports each second.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Longest time in which a node takes no byte while some wait: it would hold a snapshot's place for ever.
pub const STALL_MAX: Duration = Duration::from_secs(30);
/// Heads named in heartbeats that are remembered, so that what a node held at one can be told from what the
/// master held: eight minutes of an idle cluster.
pub const HEADS_MAX: usize = 1024;
/// Time between a node's first question about content that differs and its answer: others may say the same.
pub const CONFER: Duration = Duration::from_secs(1);
/// Time after the sender's start before any such question is answered: all nodes may be on their way back,
/// which takes them [`crate::RECONNECT_MAX`] and a greeting.
pub const REUNION: Duration = Duration::from_secs(6);
/// Time after a node in doubt was last heard in which its doubt counts though it is not connected: when a
/// network comes back, its nodes return one by one.
pub const RETURN_MAX: Duration = Duration::from_secs(10);
/// A log tail up to this many bytes is always sent as it is, however small the table.
pub const RELOAD_COST_MIN: u64 = 64 * 1024;

/// Number of a connection, chosen by the edge and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer(pub u64);

/// What a sender is told once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderConfig {
    /// The cluster; nodes of others are sent away.
    pub cluster: NodeName,
    /// Secret of the cluster's tables, handed to each node.
    pub table_key: [u8; 16],
    /// A node more levels behind than this reloads, whatever it costs; `None` leaves it to the cost.
    pub reload_above: Option<u64>,
    /// Bytes in flight to one node, usually [`WINDOW_BYTES`].
    pub window_bytes: usize,
}

impl std::fmt::Debug for SenderConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SenderConfig") // without the key, which is a secret
            .field("cluster", &self.cluster)
            .field("reload_above", &self.reload_above)
            .field("window_bytes", &self.window_bytes)
            .finish_non_exhaustive()
    }
}

/// What bringing a node up to date would cost; asked once, when it greets.
pub trait Costs {
    /// Returns the bytes of log after `level`; `None` if the log no longer reaches back that far.
    fn log_bytes_after(&self, level: Level) -> Option<u64>;
    /// Returns the bytes of all keys and values.
    fn table_bytes(&self) -> u64;
    /// Returns the number of records.
    fn table_records(&self) -> u64;
}

/// One frame of the log, encoded once for all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFrame {
    /// Its header.
    pub header: FrameHeader,
    /// The whole message, envelope included.
    pub message: Arc<[u8]>,
}

/// What is being sent to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sending {
    /// Nothing yet: it has not said who it is.
    Greeting,
    /// Nothing yet: it waits for its turn to load the table.
    Waiting,
    /// The table.
    Snapshotting,
    /// The changes made while the table was being sent.
    Replaying,
    /// The log as it grows.
    Streaming,
}

impl Sending {
    /// Returns the word that operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Waiting => "waiting",
            Self::Snapshotting => "snapshotting",
            Self::Replaying => "replaying",
            Self::Streaming => "streaming",
        }
    }
}

/// Most nodes agree with each other against the master (rules 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disagreement {
    /// Level at which the last of them stood when it saw that.
    pub level: Level,
    /// How many they are.
    pub nodes: usize,
    /// Of how many that follow the log.
    pub of: usize,
}

/// What the caller of a [`crate::Sender`] has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderEvent {
    /// Read frames and answer with [`crate::Sender::handle_frames`]. One read per peer at a time.
    ReadLog {
        /// For whom.
        peer: Peer,
        /// Frames that follow this position: also an epoch's first frame at the same level.
        after: Position,
        /// Bytes of messages wanted; one frame at least, even if it is larger.
        bytes_max: usize,
    },
    /// Read the next part of the table and answer with [`crate::Sender::handle_records`].
    ReadTable {
        /// For whom.
        peer: Peer,
        /// Start anew; otherwise go on where this peer's last part ended.
        first: bool,
    },
    /// Read sums or records at the table's level and answer at once: with
    /// [`crate::Sender::handle_audit_sums`], [`crate::Sender::handle_audit_records`] or, if the records
    /// contradict their sum, [`crate::Sender::handle_audit_refused`].
    ReadAudit {
        /// For whom.
        peer: Peer,
        /// What.
        scope: v1::AuditScope,
    },
    /// Most nodes agree against the master: alarm, and verify the master's own table. Said once until it is
    /// over; meanwhile no node is repaired.
    Alarm(Disagreement),
    /// The answer to [`crate::Sender::handle_audit_order`].
    AuditReported {
        /// Who.
        node: NodeId,
        /// What it found.
        report: v1::AuditReport,
    },
    /// Close the connection, after what `poll_transmit` returned for it is written. The sender has
    /// forgotten the peer already.
    Close {
        /// Which.
        peer: Peer,
        /// Why.
        reason: CloseReason,
    },
    /// A node has greeted.
    NodeUp {
        /// Its connection.
        peer: Peer,
        /// Its number.
        node: NodeId,
        /// Its name.
        name: NodeName,
        /// Where it connected from.
        address: String,
        /// How it is brought up to date.
        plan: v1::Plan,
    },
    /// A node that had greeted is gone.
    NodeDown {
        /// Its connection.
        peer: Peer,
        /// Its number.
        node: NodeId,
        /// Its name.
        name: NodeName,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a connection to a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CloseReason {
    /// The other side, or the network.
    #[error("the connection was lost")]
    Lost,
    /// Too many connections.
    #[error("all {PEERS_MAX} connections are in use")]
    Full,
    /// No Hello in time.
    #[error("no greeting within {} s", GREETING_MAX.as_secs())]
    NotGreeted,
    /// Nothing was heard.
    #[error("silent for {} s", PEER_SILENCE_MAX.as_secs())]
    Silent,
    /// Nothing was taken.
    #[error("took no byte for {} s", STALL_MAX.as_secs())]
    Stalled,
    /// The same node has connected again.
    #[error("replaced by a newer connection of the same node")]
    Replaced,
    /// It belongs to another cluster.
    #[error("belongs to another cluster")]
    WrongCluster,
    /// It broke the protocol.
    #[error("broke the protocol")]
    Violation,
    /// The log has no frame that follows the node's position.
    #[error("the log has nothing that follows the node's position")]
    LogUnreadable,
    /// The operator asked that it loads the table anew.
    #[error("reload asked for by the operator")]
    ReloadAsked,
}

/// Why a node was not ordered to audit its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuditOrderError {
    /// It is not connected.
    #[error("node {0} is not connected")]
    NotConnected(NodeId),
    /// It has not reported on the last order yet.
    #[error("node {0} has not reported on the last order yet")]
    Busy(NodeId),
}

/// What a node did wrong. The sender has dropped it and asks to close it; count or log this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Another cluster's.
    #[error("node {node} is of cluster {theirs}, this is {ours}")]
    Cluster {
        /// Its number.
        node: NodeId,
        /// Its cluster.
        theirs: NodeName,
        /// Ours.
        ours: NodeName,
    },
    /// A message that a node must not send, or not at that point.
    #[error("unexpected {message} while {sending}", sending = .sending.as_str())]
    Unexpected {
        /// The message.
        message: &'static str,
        /// The state of its connection.
        sending: Sending,
    },
}
