//! What runs in the world: masters, nodes and the connections between them; nothing here moves.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locus_distribution::{Boat, Path, PathReason, Receiver, Sender};
use locus_proto::v1::{GroupLeftReason, Plan};
use locus_proto::{Key, MasterTime, Message, NodeId, Timestamp, Transport};

use crate::log::{Log, Op};
use crate::network::Port;
use crate::table::Table;

/// How the group is set up at a master.
#[derive(Debug, Clone)]
pub(crate) struct GroupPlan {
    pub(crate) datagram_bytes: usize,
    pub(crate) rate_bytes_per_s: u64,
    pub(crate) rate_floor_bytes_per_s: u64,
}

impl Default for GroupPlan {
    fn default() -> Self {
        Self {
            datagram_bytes: 1_400,
            rate_bytes_per_s: 25_000_000, // 200 Mbit/s
            rate_floor_bytes_per_s: 250_000,
        }
    }
}

/// Commits that come by themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Time between two, on average: each is half to one and a half of it.
    pub(crate) every: Duration,
    pub(crate) records: usize,
    pub(crate) value_bytes: usize,
    /// Records are drawn from so many keys.
    pub(crate) keys: usize,
}

/// A machine with the service. Its log survives the process.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) name: &'static str,
    pub(crate) log: Log,
    pub(crate) sender: Option<Sender>,
    pub(crate) group: GroupPlan,
    pub(crate) transport: Transport,
    pub(crate) reload_above: Option<u64>,
    pub(crate) window_bytes: usize,
    pub(crate) load: Option<Load>,
    pub(crate) load_number: u64,
    /// Service time less virtual time.
    pub(crate) time_base: MasterTime,
    /// How far its host's clock is ahead.
    pub(crate) ahead: Duration,
    /// Starts of the process.
    pub(crate) life: u64,
    pub(crate) stream: u64,
    pub(crate) cursors: HashMap<Boat, Key>,
    pub(crate) parts_read: u64,
    pub(crate) boats: usize,
    pub(crate) boats_max: usize,
    pub(crate) uplink_free: Timestamp,
    /// Connections that have something to send, in turn.
    pub(crate) turn: VecDeque<usize>,
    pub(crate) sending: bool,
    pub(crate) armed: Option<Timestamp>,
    /// NACK datagrams that arrived.
    pub(crate) nacks_heard: u64,
    pub(crate) during_snapshot: VecDeque<Vec<Op>>,
}

/// A machine with an agent. Its table survives the process unless a test takes it away.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) receiver: Option<Receiver>,
    pub(crate) table: Option<Table>,
    pub(crate) loading: Option<Table>,
    pub(crate) transport: Transport,
    /// Masters to dial, in turn.
    pub(crate) dials: Vec<usize>,
    pub(crate) dialled: usize,
    pub(crate) connection: Option<usize>,
    pub(crate) boot: u64,
    /// Whole tables that it has loaded.
    pub(crate) loads_total: u64,
    /// The process stands still.
    pub(crate) stopped: bool,
    /// Its connection takes nothing.
    pub(crate) stalled: bool,
    /// How far its host's clock is ahead.
    pub(crate) ahead: Duration,
    pub(crate) armed: Option<Timestamp>,
    pub(crate) joined: Option<SocketAddr>,
    /// The master whose group that is.
    pub(crate) reply_to: usize,
    pub(crate) port: Port,
    /// Which statistics it counts in.
    pub(crate) class: usize,
}

/// What travels on a connection.
#[derive(Debug)]
pub(crate) enum Item {
    /// With whether the master knows that it was taken.
    ToNode(Arc<[u8]>, bool),
    ToMaster(Box<Message>),
    Closed,
}

/// One connection: two ordered streams.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) master: usize,
    pub(crate) node: usize,
    pub(crate) master_open: bool,
    pub(crate) node_open: bool,
    /// What the master wrote and the uplink has not taken.
    pub(crate) outbox: VecDeque<Arc<[u8]>>,
    /// Close it once the outbox is empty.
    pub(crate) closing: bool,
    /// What has arrived, or is held up, at either end: to the node, to the master.
    pub(crate) held: [VecDeque<Item>; 2],
    /// Of what is held for the node, how many bytes its kernel has taken.
    pub(crate) buffered: usize,
    /// Last delivery in each direction: a connection keeps the order.
    pub(crate) last: [Timestamp; 2],
}

/// What happened that tests ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    Path(Path, PathReason),
    Lost(GroupLeftReason),
    Back,
    Up(Plan),
    Down,
    Rejoin,
}
