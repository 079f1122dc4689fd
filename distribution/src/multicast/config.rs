//! What a sender is told once, and what it hands to the network; it knows no protocol.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locus_proto::NodeId;
use locus_proto::v1::GroupKey;
use serde::{Deserialize, Serialize};

/// Datagrams that are kept sealed for repair; four windows.
pub const RING_DATAGRAMS: usize = 16_384;
/// How far a datagram may be ahead of the slowest member, and the most a receiver holds.
pub const WINDOW_DATAGRAMS: u64 = 4096;
/// How long a member may make no progress though there is something to get.
pub const LAGGING_AFTER: Duration = Duration::from_millis(500);

/// What a [`super::GroupSender`] is told once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupConfig {
    /// This life of the sender, random.
    pub stream: u64,
    /// What all keys are drawn from: random, of this start of the process only (rules 7.1).
    pub seed: [u8; 32],
    /// Longest datagram, [`locus_proto::v1::DATAGRAM_BYTES_MIN`] to
    /// [`locus_proto::v1::DATAGRAM_BYTES_MAX`]; a value beyond is taken as the nearer limit.
    pub datagram_bytes: usize,
    /// Most bytes per second that leave, repairs included.
    pub rate_bytes_per_s: u64,
    /// New data is not slowed below this, however much has to be repaired.
    pub rate_floor_bytes_per_s: u64,
}

impl fmt::Debug for GroupConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows the seed is the master.
        f.debug_struct("GroupConfig")
            .field("stream", &self.stream)
            .field("datagram_bytes", &self.datagram_bytes)
            .field("rate_bytes_per_s", &self.rate_bytes_per_s)
            .field("rate_floor_bytes_per_s", &self.rate_floor_bytes_per_s)
            .finish_non_exhaustive()
    }
}

/// Where a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GroupTarget {
    /// To all: the group's address.
    Group,
    /// To one node, at the address from which it last proved itself.
    Node(SocketAddr),
}

/// One sealed datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDatagram {
    /// Where it goes.
    pub to: GroupTarget,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// What a [`super::GroupSender`] asks its owner to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupSenderEvent {
    /// Tell this key to every node that may hear the group, over its own connection, and answer with
    /// [`super::GroupSender::handle_key_held`].
    NewKey(GroupKey),
    /// This member is out: it made no progress for [`LAGGING_AFTER`].
    Lagging(NodeId),
    /// This member is out: it did not take the new key in time.
    Unrotated(NodeId),
}
