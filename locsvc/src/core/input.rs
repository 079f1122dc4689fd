//! What can happen to the core and what it asks for: closed lists, the inputs serialisable.

use std::net::SocketAddr;
use std::sync::Arc;

use locus_distribution::{Arrived, GroupSetup, LogFrame, Peer, SenderCounters};
use locus_proto::{EpochId, Frame, MasterTime, Message, NodeId, NodeName, Position, Transport};
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::master::Alive;
use crate::provision::{Answer, RegistrarLimits, Request};

/// What the core is told once; first line of a recording.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreConfig {
    /// The cluster.
    pub cluster: NodeName,
    /// Secret of the cluster's tables.
    pub table_key: [u8; 16],
    /// Records that the table is sized for.
    pub records_max: u64,
    /// Expiries that are granted.
    pub registrar: RegistrarLimits,
    /// Levels above which a node reloads, if fixed.
    pub reload_above: Option<u64>,
    /// How nodes get what is live.
    pub transport: Transport,
    /// The group, if there is one.
    pub group: Option<GroupSetup>,
}

impl std::fmt::Debug for CoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoreConfig") // without the key, which is a secret
            .field("cluster", &self.cluster)
            .field("records_max", &self.records_max)
            .field("registrar", &self.registrar)
            .field("reload_above", &self.reload_above)
            .field("transport", &self.transport)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// Something that happened. The order in which the core sees them is all that its state follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A frame of the log, before [`Input::Start`].
    Recovered(Frame),
    /// The log is read; become its writer: a new epoch (rules 1.2).
    Start {
        /// Random identity of the new epoch.
        epoch: EpochId,
        /// Wall clock, Unix time in milliseconds.
        wall_ms: u64,
        /// The last second of the last life.
        alive: Option<Alive>,
    },
    /// A request of the API.
    Api {
        /// Returned with the answer.
        ticket: u64,
        /// The request.
        request: Request,
    },
    /// A node's agent has connected.
    Connected {
        /// Number of the connection.
        peer: Peer,
        /// Where it came from, over what, and who it is by its certificate.
        arrived: Arrived,
    },
    /// A message of it.
    Message {
        /// Number of the connection.
        peer: Peer,
        /// The message.
        message: Box<Message>,
    },
    /// Bytes of counted [`Transmit`]s were written.
    Sent {
        /// Number of the connection.
        peer: Peer,
        /// How many.
        bytes: usize,
    },
    /// The connection has ended.
    Closed {
        /// Number of the connection.
        peer: Peer,
    },
    /// Datagrams came to the group's reply port: where from, and what. Anybody can send some.
    Datagrams(Vec<(SocketAddr, Vec<u8>)>),
    /// The certificate of a node was revoked, or its CA was; its connections are being closed.
    Removed {
        /// Which.
        node: NodeId,
    },
    /// No more requests wait: close the batch that was gathered.
    Flush,
    /// The frame of [`Output::Append`] is durable.
    Committed,
    /// The frame was refused, the log is as before.
    CommitFailed {
        /// Why, for people.
        reason: String,
    },
    /// Frames that [`Output::ReadLog`] asked for cannot be read.
    LogUnreadable {
        /// For whom.
        peer: Peer,
        /// Why, for people.
        reason: String,
    },
    /// The last frame of the log, for [`Output::ReadLogEnd`], cannot be read.
    LogEndUnreadable {
        /// Why, for people.
        reason: String,
    },
    /// The time that [`super::Core::poll_timeout`] named has come.
    Tick,
}

/// What the core asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Make this frame durable, then say [`Input::Committed`] or [`Input::CommitFailed`] before anything
    /// else.
    Append(LogFrame),
    /// Read frames and answer with [`super::Core::handle_frames`] or [`Input::LogUnreadable`].
    ReadLog {
        /// For whom.
        peer: Peer,
        /// Those that follow this position.
        after: Position,
        /// At most this many bytes, but at least one frame.
        bytes_max: usize,
    },
    /// Read the last frame from the disk, not from what is kept of it in memory, and answer with
    /// [`super::Core::handle_log_end`] or [`Input::LogEndUnreadable`].
    ReadLogEnd,
    /// Answer a request of the API.
    Answer {
        /// Its ticket.
        ticket: u64,
        /// The answer.
        answer: Answer,
    },
    /// Close a connection, behind what was transmitted to it.
    Close {
        /// Number of the connection.
        peer: Peer,
    },
    /// Note the service time, once a second.
    Alive(MasterTime),
    /// Say this to the operator.
    Event(Event),
}

/// Bytes for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Number of the connection.
    pub peer: Peer,
    /// Whole messages.
    pub bytes: Arc<[u8]>,
    /// Whether they count against the window: report them by [`Input::Sent`].
    pub counted: bool,
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CoreCounters {
    /// Changes made durable.
    pub changes_total: u64,
    /// Batches made durable.
    pub batches_total: u64,
    /// Batches that the disk refused.
    pub batches_refused_total: u64,
    /// Requests of the API refused, for whatever reason.
    pub requests_refused_total: u64,
    /// Registrations accepted.
    pub registrations_total: u64,
    /// Registrations refused, for whatever reason.
    pub registrations_refused_total: u64,
    /// Records from which expired bindings were removed.
    pub expired_total: u64,
    /// Requests refused because too many were waiting.
    pub backlog_full_total: u64,
    /// Messages that nodes must not send.
    pub peer_errors_total: u64,
    /// Frames of the log that say another content than follows from them.
    pub frames_contradicted_total: u64,
    /// Times that the whole table was read again and found to be what was written.
    pub scrubs_total: u64,
    /// Times that most nodes agreed with each other against the master.
    pub alarms_total: u64,
    /// Audits ordered by operators.
    pub audits_total: u64,
    /// Reloads of nodes ordered by operators.
    pub reloads_asked_total: u64,
    /// Times that the group stopped to reach a node.
    pub multicast_lost_total: u64,
}

/// Where the core stands: what a replay has to reproduce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndState {
    /// Counter of the epoch.
    pub epoch: u64,
    /// Identity of the epoch.
    pub epoch_id: EpochId,
    /// Level.
    pub level: u64,
    /// Content, as hex digits.
    pub root: String,
    /// Records in the table.
    pub records: u64,
    /// Totals of the core.
    pub counters: CoreCounters,
    /// Totals of distribution.
    pub distribution: SenderCounters,
}
