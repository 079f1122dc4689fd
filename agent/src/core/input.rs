//! What goes into the core and what comes out of it; serialisable where it goes in, so that it replays.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use locus_distribution::{Failure, Mended, Recalled, ReceiverConfig, Standing};
use locus_proto::v1::SnapshotBegin;
use locus_proto::{
    AddressOfRecord, AorRecord, Change, Frame, Message, Position, Registration, Root, TableHealth,
    WireVersion,
};
use serde::{Deserialize, Serialize};

use super::Address;

/// Number of a connection to a master, or of the attempt at one; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Connection(pub u64);

/// Number of a membership in the master's group; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Membership(pub u64);

/// Both ends of a connection over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// This node's.
    pub local: SocketAddr,
    /// The master's.
    pub remote: SocketAddr,
}

/// Where a worker waits for the answer to its registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Client {
    /// A socket with a file.
    Path(PathBuf),
    /// A socket in the abstract name space, as a worker's is.
    Abstract(Vec<u8>),
}

/// What a core is told once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Who this node is.
    pub node: ReceiverConfig,
    /// Ways to a master, the best first, at least one.
    pub masters: Vec<Address>,
    /// Longest wait for the master's answer to a registration.
    pub save_timeout: Duration,
    /// Longest grace of a binding while the master is out of reach.
    pub max_grace: Duration,
    /// Where the table stands that was found.
    pub standing: Option<Standing>,
    /// What was known of the master's clock.
    pub recalled: Option<Recalled>,
    /// Makes the jitter differ between nodes and lives.
    pub seed: u64,
}

/// Everything that can happen to a core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// The connection asked for stands.
    Connected {
        /// Which.
        connection: Connection,
        /// Its ends; `None` over a bus.
        ends: Option<Ends>,
    },
    /// A message of the master.
    Received {
        /// Over which connection.
        connection: Connection,
        /// The message.
        message: Message,
    },
    /// The connection asked for came to nothing, or has ended.
    Closed {
        /// Which.
        connection: Connection,
        /// Why, for people.
        reason: String,
    },
    /// Answer to [`Order::Probe`].
    Probed {
        /// Number of the order.
        probe: u64,
        /// The first of its ways that is open.
        open: Option<Address>,
    },
    /// What came for the group, in the order in which it came.
    Datagrams {
        /// By which membership.
        membership: Membership,
        /// As they are on the wire.
        datagrams: Vec<Vec<u8>>,
        /// How many more were none of the master's, since the last such input.
        refused: u64,
    },
    /// The group asked for cannot be joined, or is no longer heard for a cause in this machine.
    GroupFailed {
        /// Which membership.
        membership: Membership,
        /// Why, and what to change.
        reason: String,
    },
    /// A worker hands in a registration.
    Registration {
        /// Who waits for the answer.
        client: Client,
        /// The worker's number for it.
        ticket: u64,
        /// What is asked.
        registration: Registration,
    },
    /// Answer to [`Order::Apply`].
    Applied(Result<Standing, Failure>),
    /// Answer to [`Order::FinishLoad`], or a failure at any earlier point of the load.
    Loaded(Result<Standing, Failure>),
    /// Answer to [`Order::Compare`]: the indexes that differ, ascending.
    Compared(Result<Vec<u8>, Failure>),
    /// Answer to [`Order::Mend`].
    Mended(Result<Mended, Failure>),
    /// Answer to [`Order::Scrub`].
    Scrubbed(Result<(), Failure>),
    /// A partition's memory contradicts its sum.
    Doubted {
        /// Which.
        partition: u16,
    },
    /// What the master sends waits, since the table cannot take it yet.
    Held,
    /// The table takes it again.
    Released,
    /// What is known of the table's memory has changed.
    Health(TableHealth),
    /// Answer to [`Order::Find`].
    Found {
        /// The ticket of the order.
        ticket: u64,
        /// What the table holds, if it can be read.
        record: Option<AorRecord>,
    },
    /// [`super::Core::poll_timeout`] has come.
    Timeout,
}

/// What the edges have to do; those that name an answer are answered before the next input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Connect; answered by [`Input::Connected`] or [`Input::Closed`], sometime.
    Connect {
        /// Number of the attempt.
        connection: Connection,
        /// Where to.
        master: Address,
    },
    /// See which of these ways is open: connect, with all that proves who is there, and go. Answered by
    /// [`Input::Probed`], sometime.
    Probe {
        /// Number of the order.
        probe: u64,
        /// The ways, the best first.
        addresses: Vec<Address>,
    },
    /// Close the connection; no answer is needed.
    Disconnect {
        /// Which.
        connection: Connection,
    },
    /// Join the master's group in place of any other, and hand in what comes for it; a failure is answered by
    /// [`Input::GroupFailed`].
    JoinGroup {
        /// Number of the membership.
        membership: Membership,
        /// The group.
        group: SocketAddr,
        /// Where the node is, as the connection says.
        local: SocketAddr,
        /// Where the master takes what the node has to say; nobody else speaks in the group.
        master: SocketAddr,
    },
    /// Leave the group and join it again, so that the network learns of it anew.
    RejoinGroup,
    /// Leave the group.
    LeaveGroup,
    /// Apply a frame to the table; answered by [`Input::Applied`].
    Apply {
        /// The frame.
        frame: Frame,
        /// Whether its roots must be the table's.
        checked: bool,
    },
    /// Make an empty table beside the one that answers.
    BeginLoad {
        /// Secret of the cluster's tables.
        table_key: [u8; 16],
        /// What was announced.
        begin: SnapshotBegin,
    },
    /// Put records into the new table.
    LoadRecords(Vec<Change>),
    /// Apply a frame to the new table.
    LoadFrame(Frame),
    /// Let the new table answer, if it has this content; answered by [`Input::Loaded`].
    FinishLoad(Position),
    /// Drop the new table.
    AbortLoad,
    /// Compare a partition by its memory, until it is proved or mended.
    Doubt {
        /// Which.
        partition: u16,
    },
    /// Compare the master's sums with the table's; answered by [`Input::Compared`].
    Compare {
        /// The group whose partitions they are of; `None` for those of the groups.
        group: Option<u8>,
        /// The sums.
        sums: Vec<Root>,
    },
    /// Compare, or repair, the records of a partition; answered by [`Input::Mended`].
    Mend {
        /// Which.
        partition: u16,
        /// All that the master holds in it.
        records: Vec<Change>,
        /// Whether to install what differs.
        repair: bool,
    },
    /// Read all memory again; answered by [`Input::Scrubbed`], sometime.
    Scrub,
    /// Look an address-of-record up in the table; answered by [`Input::Found`].
    Find {
        /// Number of the registration that needs it.
        ticket: u64,
        /// The address-of-record.
        aor: AddressOfRecord,
    },
}

/// A message and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// To the master.
    Master {
        /// Over which connection.
        connection: Connection,
        /// In which version of the wire.
        version: WireVersion,
        /// The message.
        message: Message,
    },
    /// To the master, beside the connection: a datagram.
    Group {
        /// By which membership.
        membership: Membership,
        /// As it is on the wire.
        datagram: Vec<u8>,
    },
    /// To a worker.
    Client {
        /// Which.
        client: Client,
        /// The message.
        message: Message,
    },
}
