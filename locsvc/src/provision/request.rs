//! What may be asked of the core through the API, and what it answers; it speaks no HTTP and no JSON.

use std::fmt;
use std::time::Duration;

use locus_proto::v1::{AuditReport, GroupLeftReason};
use locus_proto::{
    AddressOfRecord, AorRecord, Digits, Level, MasterTime, Methods, NodeId, NodeName, NodeStatus,
    Position, Q, Route, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::validate::InvalidRecord;

/// Most changes in one request: a batch is applied as a whole, and a frame holds no more.
pub const CHANGES_MAX: usize = locus_proto::FRAME_CHANGES_MAX;

/// One request of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The bindings of one address-of-record. Answer: [`Answer::Aor`].
    GetAor(AddressOfRecord),
    /// The route of exactly this prefix. Answer: [`Answer::Route`].
    GetRoute(Digits),
    /// These changes, all or none; 1 to [`CHANGES_MAX`]. Answer: [`Answer::Changed`].
    Change(Vec<ProvisionChange>),
    /// Where the database stands. Answer: [`Answer::Level`].
    Level,
    /// Every node that is or was connected. Answer: [`Answer::Nodes`].
    Nodes,
    /// Every node of the roster has applied `level`, or `deadline` has passed. Answer:
    /// [`Answer::Waited`].
    Wait {
        /// The level to wait for.
        level: Level,
        /// When to give up, by the clock of [`crate::ApiPort::now`].
        deadline: Timestamp,
    },
    /// A node is told to load the whole table anew. Answer: [`Answer::ReloadAsked`], at once.
    Reload {
        /// Which.
        node: NodeRef,
    },
    /// One node, or all of the roster, have read their memory again and compared it with the database, or
    /// `deadline` has passed. Answer: [`Answer::Audited`].
    Audit {
        /// Which; `None` for all.
        node: Option<NodeRef>,
        /// Whether what differs shall be repaired.
        repair: bool,
        /// When to give up, by the clock of [`crate::ApiPort::now`].
        deadline: Timestamp,
    },
}

/// A node as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRef {
    /// By its number.
    Number(NodeId),
    /// By its name, or by its number in digits.
    Name(NodeName),
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// One change of the provisioned data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProvisionChange {
    /// The address-of-record has exactly these contacts from now on.
    PutAor {
        /// Whose.
        aor: AddressOfRecord,
        /// 1 to 12 of them; the order breaks ties of `q`.
        contacts: Vec<ProvisionContact>,
    },
    /// The address-of-record has no contact any more.
    DeleteAor(AddressOfRecord),
    /// Calls to the prefix go there from now on.
    PutRoute {
        /// Leading digits.
        prefix: Digits,
        /// Where.
        route: Route,
    },
    /// The prefix has no route any more.
    DeleteRoute(Digits),
}

/// A contact as an operator writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionContact {
    /// SIP URI, 1 to 512 bytes.
    pub uri: String,
    /// Preference.
    pub q: Q,
    /// Life in seconds from now, at least one; `None` for a permanent contact.
    pub expires_s: Option<u32>,
    /// Path as in the header, or empty.
    pub path: String,
    /// Source address as a SIP URI, or empty.
    pub received: String,
    /// Accepted methods.
    pub methods: Methods,
    /// `+sip.instance`, or empty.
    pub instance: String,
    /// `reg-id`, or zero.
    pub reg_id: u16,
}

impl ProvisionContact {
    /// Returns a permanent contact without preference that accepts every method.
    pub fn permanent(uri: &str) -> Self {
        Self {
            uri: uri.to_owned(),
            q: Q::NONE,
            expires_s: None,
            path: String::new(),
            received: String::new(),
            methods: Methods::ALL,
            instance: String::new(),
            reg_id: 0,
        }
    }
}

/// The core's answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::GetAor`].
    Aor {
        /// Level of the database at the answer.
        level: Level,
        /// Service time at the answer: expiries count from it ([`MasterTime::seconds_from`]).
        now: MasterTime,
        /// Level of the record's last change, and its bindings that have not expired; `None` if there
        /// is none.
        record: Option<(Level, AorRecord)>,
    },
    /// To [`Request::GetRoute`].
    Route {
        /// Level of the database at the answer.
        level: Level,
        /// Level of the record's last change, and the route; `None` if there is none.
        record: Option<(Level, Route)>,
    },
    /// To [`Request::Change`]: all changes are on disk.
    Changed {
        /// The level that the request created: the highest of its changes; the level of the database
        /// if nothing was to be changed.
        level: Level,
        /// What each change did, in order of the request.
        outcomes: Vec<Outcome>,
    },
    /// To [`Request::Level`].
    Level {
        /// Epoch, level and root of the database.
        position: Position,
        /// Service time.
        time: MasterTime,
        /// Records in the table.
        records: u64,
    },
    /// To [`Request::Nodes`].
    Nodes {
        /// Epoch, level and root of the database.
        position: Position,
        /// Most nodes agree with each other against the database.
        alarm: Option<AlarmView>,
        /// The roster, by node id.
        nodes: Vec<NodeView>,
    },
    /// To [`Request::Wait`].
    Waited {
        /// Level of the database at the answer.
        level: Level,
        /// Nodes that have not applied the level; empty if all have. With no node in the roster it is
        /// empty as soon as the database itself has the level.
        behind: Vec<NodeName>,
        /// Whether the level was reached by all.
        reached: bool,
    },
    /// To [`Request::Audit`].
    Audited {
        /// Level of the database at the answer.
        level: Level,
        /// What became of it, by node id.
        nodes: Vec<NodeAudit>,
    },
    /// To [`Request::Reload`]: the node begins, or will when it comes back.
    ReloadAsked {
        /// Its number.
        node: NodeId,
        /// Its name.
        name: NodeName,
        /// Whether it is connected.
        connected: bool,
    },
    /// To any: nothing was changed.
    Refused(RequestError),
}

/// What one change of a request did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There was no such record before.
    Created,
    /// There was another.
    Replaced,
    /// The record was the same already; no level was spent.
    Unchanged,
    /// It is gone now.
    Deleted,
    /// There was none to delete; no level was spent.
    Absent,
}

/// What became of the audit of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAudit {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// What became of it.
    pub outcome: Audited,
}

/// See [`NodeAudit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audited {
    /// The node has reported.
    Reported(AuditReport),
    /// The node has not reported on an earlier order yet.
    Busy,
    /// No report in time, or the node has gone meanwhile.
    NoAnswer,
    /// The node was not connected.
    NotConnected,
}

/// Most nodes agree with each other against the master (rules 3.2): nothing is repaired meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmView {
    /// Level at which the last of them stood when it saw that.
    pub level: Level,
    /// How many they are.
    pub nodes: usize,
    /// Of how many that follow the log.
    pub of: usize,
    /// Whether the master has read its own table again since and found it to be what was written.
    pub verified: bool,
}

/// One node as the master sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Where its agent connects from, `address:port`.
    pub address: String,
    /// SIP URI at which other nodes reach it, or empty.
    pub sip: String,
    /// Whether its agent is connected now.
    pub connected: bool,
    /// Its last report.
    pub status: Option<NodeStatus>,
    /// Levels that it is behind the master, by its last report.
    pub behind: u64,
    /// What the master is sending it: one word.
    pub sending: &'static str,
    /// How what is live comes to it: one word.
    pub path: &'static str,
    /// Version of the wire that both speak.
    pub version: u8,
    /// Bytes of frames sent over its own connection since it greeted.
    pub connection_frame_bytes_total: u64,
    /// The group does not reach it though it should.
    pub multicast_lost: Option<LostView>,
}

/// The group does not reach a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostView {
    /// For how long already.
    pub lasts: Duration,
    /// Why, as the node says.
    pub reason: GroupLeftReason,
}

/// Why a request was refused; the text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A change that no record can hold. HTTP 400.
    #[error("change {index}: {source}")]
    Invalid {
        /// Which change of the request, from zero.
        index: usize,
        /// What is wrong with it.
        source: InvalidRecord,
    },
    /// No change, more than [`CHANGES_MAX`], or more bytes than one frame holds. HTTP 413.
    #[error("a request has 1 to {CHANGES_MAX} changes and at most {bytes_max} bytes of records")]
    TooLarge {
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The disk under the log is full or refuses writes; the log is as before. HTTP 507.
    #[error("the log cannot be written: {0}; nothing was changed")]
    Disk(String),
    /// The table has no room for the records; raise `records_max`. HTTP 507.
    #[error("the table is full; raise records_max; nothing was changed")]
    TableFull,
    /// The master's memory contradicts itself. HTTP 500.
    #[error("the table contradicts itself; restart locsvc: it is made anew from the log")]
    Inconsistent,
    /// No node of the roster is called so. HTTP 404.
    #[error(
        "no node {0} has connected since locsvc started; GET /v1/nodes and `locusctl nodes` show those \
         that have"
    )]
    NoSuchNode(NodeRef),
    /// One audit at a time. HTTP 429.
    #[error("another audit is under way; it ends within {} s: order this one then", .left.as_secs() + 1)]
    AuditUnderWay {
        /// Time until it ends at the latest.
        left: Duration,
    },
    /// More requests wait than the core takes, or the service is stopping; try again. HTTP 429.
    #[error("too many requests are waiting, or the service is stopping")]
    Busy,
}
