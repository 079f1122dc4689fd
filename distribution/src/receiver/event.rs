//! Inputs, outputs and limits of the receiver; it holds no state.

use std::net::SocketAddr;
use std::time::Duration;

use locus_proto::{
    BootId, Change, Frame, Level, MasterTime, NodeId, NodeName, NodeState, Position,
    RegistrationReply, Root, Transport, v1,
};

use serde::{Deserialize, Serialize};

use super::{DisconnectReason, StateReason};

/// Longest time from connection to Welcome: a master that is frozen is left as soon as one that falls silent.
pub const GREETING_WAIT: Duration = Duration::from_secs(3);
/// Silence after which the table is called stale: six heartbeats.
pub const STALE_AFTER: Duration = Duration::from_secs(3);
/// Time without a matching heartbeat after which the table is no longer called coherent.
pub const BEHIND_AFTER: Duration = Duration::from_secs(3);
/// Silence after which a connection is given up: six heartbeats. Another master may be the active one.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Time between reports.
pub const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Time between reports while level or state change: whoever waits for a level need not wait a second.
pub const STATUS_SOON: Duration = Duration::from_millis(200);
/// Shortest time before the next attempt to connect; doubles up to [`RECONNECT_MAX`].
pub const RECONNECT_MIN: Duration = Duration::from_millis(200);
/// Longest time before the next attempt to connect.
pub const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// Shortest time before the next attempt after a reload; doubles up to [`RELOAD_RETRY_MAX`].
pub const RELOAD_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest time before the next attempt after reloads in a row.
pub const RELOAD_RETRY_MAX: Duration = Duration::from_secs(60);
/// Time after which a loaded table that still matches the master's counts as proven.
pub const RELOAD_PROVEN: Duration = Duration::from_secs(60);
/// Records that a snapshot may hold beyond twice its announcement: the master grows while it is read.
pub const SNAPSHOT_RECORDS_SLACK: u64 = 1 << 20;
/// Time for which an estimate of the master's clock is kept.
pub const CLOCK_WINDOW: Duration = Duration::from_secs(2);
/// Most partitions that an audit repairs, one in twenty; with more the table is loaded anew.
pub const BAD_PARTITIONS_MAX: usize = 3_276;
/// Most rounds of an audit; what differs still is loaded anew.
pub const AUDIT_ROUNDS_MAX: u32 = 3;
/// Most answers in a row whose level the table has passed already; then the audit is given up.
pub const AUDIT_MISSES_MAX: u32 = 8;
/// Longest time in which a question brings no answer, or an answer's level comes no nearer.
pub const AUDIT_ANSWER_MAX: Duration = Duration::from_secs(30);
/// Shortest time after a refusal before a node in doubt asks again; up to half as much is added by chance.
pub const AUDIT_AGAIN: Duration = Duration::from_secs(30);
/// Time between two attempts to join a group anew that is not heard: a switch may have forgotten the node.
pub const REJOIN_EVERY: Duration = Duration::from_secs(60);
/// Longest time in which a node in the group gets no nearer to the heads that its connection names, or one that
/// was offered the group hears nothing of it; then the group is called silent.
pub const GROUP_BEHIND_MAX: Duration = Duration::from_secs(3);
/// Most bytes of messages that come by the group and wait while the table takes nothing; with more the node leaves.
pub const GROUP_HELD_MAX: usize = 16 * 1024 * 1024;
/// A timer that fires so much too late shows that this process stood still: what came meanwhile is heard first.
pub const STOOD_STILL: Duration = Duration::from_secs(1);

/// What a receiver is told once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverConfig {
    /// The cluster.
    pub cluster: NodeName,
    /// Number of this node.
    pub node: NodeId,
    /// Name of this node.
    pub name: NodeName,
    /// Life of this agent.
    pub boot: BootId,
    /// SIP URI at which other nodes reach this one, or empty.
    pub sip: String,
    /// Which way it wishes the changes to come.
    pub transport: Transport,
}

/// Where the node's table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Epoch, level and content.
    pub position: Position,
    /// Its records.
    pub records: u64,
}

/// The master's clock as an earlier agent on this machine knew it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recalled {
    /// Service time now, by that agent's offset.
    pub time: MasterTime,
    /// Service time until which the table was complete.
    pub complete_until: MasterTime,
}

/// Why the table could not apply or load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// The content would not be the master's; nothing was written.
    #[error("the content would differ from the master's")]
    RootMismatch,
    /// No room; nothing was written.
    #[error("no room in the table")]
    Full,
    /// The table or its file failed; what it holds is unknown.
    #[error("the table failed")]
    Broken,
}

/// What became of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mended {
    /// Records that were missing, surplus or different.
    pub differing: u64,
    /// Of these, how many are the master's now; zero if none was to be repaired.
    pub repaired: u64,
    /// Where the table stands now: level and epoch as before, the root of what it holds.
    pub standing: Standing,
}

/// Why an audit began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AuditCause {
    /// The content at some level was not the master's.
    #[error("the content differs from the master's")]
    Divergence,
    /// Memory was found to hold something else than its sums say.
    #[error("memory contradicts its sums")]
    Memory,
    /// An operator ordered it.
    #[error("ordered by an operator")]
    Order,
}

/// What the caller of a [`crate::Receiver`] has to do.
///
/// [`Self::Apply`], [`Self::FinishLoad`], [`Self::Compare`] and [`Self::Mend`] are answered at once, before
/// the next message is handed in: the table is memory and never waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// Connect to a master. Answered by one `handle_closed` if it fails, else by `handle_connected`
    /// and, when the connection ends, one `handle_closed`.
    Connect,
    /// Close the connection and call `handle_closed`.
    Disconnect(DisconnectReason),
    /// Apply this frame and call `handle_applied`. An epoch's frame has no change: it moves the
    /// position alone.
    Apply {
        /// The frame.
        frame: Frame,
        /// Whether its roots must be the table's. Otherwise the content is in doubt: what is there follows
        /// the frame's changes, and the answer says which root that gives.
        checked: bool,
    },
    /// Make an empty table, beside the old one, which goes on answering.
    BeginLoad {
        /// Secret of the cluster's tables.
        table_key: [u8; 16],
        /// What was announced; for sizing.
        begin: v1::SnapshotBegin,
    },
    /// Put these records into the new table.
    LoadRecords(Vec<Change>),
    /// Apply the changes of this frame to the new table, without comparing roots.
    LoadFrame(Frame),
    /// Compare the new table's root, give it this position, let it replace the old one, and call
    /// `handle_loaded`.
    FinishLoad(Position),
    /// Drop the new table.
    AbortLoad,
    /// Compare these sums of the master, which are true at the table's level, with the table's own, and
    /// call `handle_compared` with the indexes of those that differ, ascending. A partition whose memory is
    /// in doubt differs also if what memory gives is not the master's; its stored sum may be wrong as well.
    Compare {
        /// The group whose 256 partitions these are; `None` for the sums of the 256 groups.
        group: Option<u8>,
        /// 256 sums.
        sums: Vec<Root>,
    },
    /// Compare all records of a partition, at the table's level, with what memory holds, and call
    /// `handle_mended`.
    Mend {
        /// The partition.
        partition: u16,
        /// All that the master holds in it, each a put at its own level.
        records: Vec<Change>,
        /// Whether to install what differs, at the unchanged level; else only count.
        repair: bool,
    },
    /// Read all memory again and compare it with its sums; partitions that contradict theirs are in doubt
    /// from then on. Answered by one `handle_scrubbed`, sometime, even if the table is replaced meanwhile.
    Scrub,
    /// An audit has ended.
    Audited {
        /// Why it began.
        cause: AuditCause,
        /// How it ended.
        verdict: v1::AuditVerdict,
        /// Level of the last comparison.
        level: Level,
        /// Partitions that differed.
        partitions: u32,
        /// Records in them that differed.
        differing: u64,
        /// Of these, how many were repaired.
        repaired: u64,
    },
    /// The master's answer to a registration.
    Registered {
        /// Ticket of the request.
        ticket: u64,
        /// The answer.
        reply: RegistrationReply,
    },
    /// Join this group and hand in what comes by it with `handle_datagrams`; what `poll_datagram` returns goes to
    /// this port of the master's address. If that cannot be done, call `handle_group_failed`.
    JoinGroup {
        /// Its address.
        group: SocketAddr,
        /// Port of the master.
        reply_port: u16,
    },
    /// Leave the group that was joined last.
    LeaveGroup,
    /// Leave that group and join it again at once: the network may have forgotten the node.
    RejoinGroup,
    /// The state of the table has changed.
    StateChanged {
        /// What it was.
        from: NodeState,
        /// What it is.
        to: NodeState,
        /// Why.
        reason: StateReason,
    },
}

/// What the workers must know beside the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pulse {
    /// State of the table.
    pub state: NodeState,
    /// Service time now; `None` until a master was heard.
    pub master_time: Option<MasterTime>,
    /// Service time until which the table is complete (rules 2.2); zero if it never was.
    pub complete_until: MasterTime,
    /// The master's level as last heard.
    pub master_level: Level,
}
