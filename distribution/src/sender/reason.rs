//! Why connections end, and what nodes do wrong; it ends none.

use locus_proto::{NodeId, NodeName};
use serde::{Deserialize, Serialize};

use super::{
    GREETING_MAX, NodeIdentity, PEER_SILENCE_MAX, PEERS_MAX, SLOW_SNAPSHOTS_MAX, STALL_MAX, Sending,
};

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
    /// Its certificate says that it is another one.
    #[error("says that it is another node than its certificate says")]
    WrongIdentity,
    /// Its certificate does not count any more.
    #[error("its certificate was revoked")]
    Revoked,
    /// It broke the protocol.
    #[error("broke the protocol")]
    Violation,
    /// It takes the table more slowly than the others, and there are enough of those already.
    #[error("takes the table too slowly, as {SLOW_SNAPSHOTS_MAX} others do")]
    TooSlow,
    /// The table could not be read.
    #[error("the master's table could not be read")]
    TableUnreadable,
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
    /// Its certificate says something else.
    #[error(
        "node {node} ({name}) of cluster {cluster}, whose certificate is for node {} ({}) of cluster {}",
        .certified.node, .certified.name, .certified.cluster
    )]
    Identity {
        /// The number that it gives.
        node: NodeId,
        /// The name that it gives.
        name: NodeName,
        /// The cluster that it gives.
        cluster: NodeName,
        /// What its certificate says.
        certified: Box<NodeIdentity>,
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
