//! Inputs, outputs and limits of the sender; it holds no state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locus_proto::v1::GroupLeftReason;
use locus_proto::{FrameHeader, Level, NodeId, NodeName, Position, Transport, v1};
use serde::{Deserialize, Serialize};

use super::{Boat, CloseReason, Path, PathReason};
use crate::multicast::GroupConfig;

/// Most connections at once; a cluster is planned for 256 nodes.
pub const PEERS_MAX: usize = 1024;
/// Most readings of the table that begin before another has ended: a cluster that starts cold must not stampede
/// the master. All nodes that wait when one begins share it.
pub const SNAPSHOTS_MAX: usize = 4;
/// Most readings for nodes that were too slow for one that they shared.
pub const SLOW_SNAPSHOTS_MAX: usize = 4;
/// Time that nodes are given to gather for the next reading of the table while one is under way.
pub const BOARDING: Duration = Duration::from_millis(250);
/// Longest time, in all, that one node lets the others of its reading wait.
pub const HOLD_UP_MAX: Duration = Duration::from_secs(1);
/// Time after a node with the group's keys has gone before they are changed, and between two such changes.
pub const ROTATION_WAIT: Duration = Duration::from_secs(10);
/// Shortest time between a node's leaving the group and its return: a node that comes and goes must not cost more
/// than that.
pub const BACK_AFTER: Duration = Duration::from_secs(1);
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

/// Number of a connection, chosen by the edge and never used twice; from 1, since 0 is [`GROUP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer(pub u64);

/// The reader of the log that stands for all nodes in the group.
pub const GROUP: Peer = Peer(0);

/// Where and how the group is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSetup {
    /// Its address.
    pub address: SocketAddr,
    /// Port on the master to which nodes send what they lack.
    pub reply_port: u16,
    /// Keys, size of datagrams, rate.
    pub config: GroupConfig,
}

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
    /// How nodes are to be served; combined with what each of them wishes.
    pub transport: Transport,
    /// The group; `None`: there is none, whatever anybody wishes.
    pub group: Option<GroupSetup>,
}

impl std::fmt::Debug for SenderConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SenderConfig") // without the key, which is a secret
            .field("cluster", &self.cluster)
            .field("reload_above", &self.reload_above)
            .field("window_bytes", &self.window_bytes)
            .field("transport", &self.transport)
            .field("group", &self.group)
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
    /// Read the next part of the table and answer with [`crate::Sender::handle_records`], or with
    /// [`crate::Sender::handle_unreadable`]. One read per boat at a time.
    ReadTable {
        /// For which reading of the table.
        boat: Boat,
        /// Start anew; otherwise go on where this boat's last part ended.
        first: bool,
    },
    /// From now on there are two readings of the table where there was one: both go on where `from` is.
    SplitScan {
        /// The one that was.
        from: Boat,
        /// The other.
        to: Boat,
    },
    /// Nobody wants the rest of this reading: forget where it is. Not said of one that has come to its end.
    EndScan {
        /// Which.
        boat: Boat,
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
    /// The log comes to a node by another way now.
    PathChanged {
        /// Its number.
        node: NodeId,
        /// Its name.
        name: NodeName,
        /// Which way it came.
        from: Path,
        /// Which way it comes.
        to: Path,
        /// Why.
        reason: PathReason,
    },
    /// Alarm: a node that is to be in the group does not hear it, or cannot trust it; it is served over its
    /// connection. Said once, until [`Self::MulticastBack`] or until it connects anew.
    MulticastLost {
        /// Its number.
        node: NodeId,
        /// Its name.
        name: NodeName,
        /// Why.
        reason: GroupLeftReason,
    },
    /// A node of which [`Self::MulticastLost`] was said is in the group again.
    MulticastBack {
        /// Its number.
        node: NodeId,
        /// Its name.
        name: NodeName,
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
