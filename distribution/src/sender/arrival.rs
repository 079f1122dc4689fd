//! How a node's connection comes in, and who its certificate says it is; it checks no certificate.

use locus_proto::{NodeId, NodeName};
use serde::{Deserialize, Serialize};

/// One of the two sockets of the bus between boards of one chassis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BusSide {
    /// The first.
    A,
    /// The second.
    B,
}

/// What carries a node's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    /// A network.
    Tcp,
    /// A socket of the bus.
    Bus(BusSide),
}

/// Who a node's certificate says it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// Its cluster.
    pub cluster: NodeName,
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
}

/// A connection as it comes in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrived {
    /// Where it comes from, a text for people.
    pub address: String,
    /// What carries it.
    pub medium: Medium,
    /// Who is behind it; its Hello must say the same. `None` where there are no certificates: then Hello is
    /// believed.
    pub identity: Option<NodeIdentity>,
}
