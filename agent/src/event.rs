//! Everything the agent writes into its log: one closed list, with level and text in one place.
//!
//! It decides nothing and counts nothing.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use locus_distribution::{AuditCause, StateReason};
use locus_proto::v1::{AuditVerdict, DATAGRAM_BYTES_MAX, GroupEndReason, GroupLeftReason};
use locus_proto::{Level, NodeName, NodeState, Position, Timestamp};

use crate::core::Address;

/// Shortest time between two log lines about what strangers can cause.
pub const COMPLAINT_EVERY: Duration = Duration::from_secs(1);

/// Something an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent is up.
    Started {
        /// Version of the agent.
        version: &'static str,
        /// Name of the node.
        node: NodeName,
        /// The table's folder.
        folder: PathBuf,
        /// Where the table stands that was found.
        position: Option<Position>,
        /// Ways to locsvc, the best first.
        masters: Vec<Address>,
    },
    /// Connections are neither encrypted nor authenticated.
    Insecure,
    /// The identity's files were read again, since they have changed.
    IdentityChanged {
        /// The folder.
        path: PathBuf,
        /// Days for which the certificate is still valid.
        days: u64,
    },
    /// The identity's files have changed and cannot be used.
    IdentityRefused {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something about the identity is not as it should be, and does not hinder.
    IdentityWarning {
        /// What.
        text: String,
    },
    /// The certificate ends soon, or has ended.
    IdentityEnds {
        /// The folder.
        path: PathBuf,
        /// Days that are left; `None` if it has ended.
        days: Option<u64>,
    },
    /// An earlier agent died in the middle of a batch; it was applied to its end.
    Recovered {
        /// Where the table stands now.
        position: Position,
    },
    /// The table that was found cannot be used.
    TableRefused {
        /// Why.
        reason: String,
    },
    /// The table that was found was made before the machine was started.
    TableOfAnotherBoot {
        /// The folder.
        folder: PathBuf,
    },
    /// In which boot the table was made could not be noted.
    BootNotNoted {
        /// Why.
        reason: String,
    },
    /// The folder is not on a tmpfs.
    NotTmpfs {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder has no room for a table of the configured size and a reload beside it.
    SmallFolder {
        /// What it needs, what it has, what to change.
        reason: String,
    },
    /// The table does not lie in pages of 2 MiB.
    SmallPages {
        /// Its file.
        file: PathBuf,
        /// Where a tmpfs should be mounted.
        folder: PathBuf,
        /// Its bytes.
        bytes: u64,
        /// Those in pages of 2 MiB.
        huge_bytes: u64,
    },
    /// A table that no longer answers could not be removed.
    NotRemoved {
        /// Why.
        reason: String,
    },
    /// A master has taken the node in.
    MasterFound {
        /// Which.
        master: Address,
    },
    /// The master is out of reach, or the connection to it was given up.
    MasterLost {
        /// Which.
        master: Address,
        /// Why.
        reason: String,
    },
    /// A better way to a master is open again, and the node goes there.
    Returning {
        /// The way so far.
        from: Address,
        /// The better one.
        to: Address,
    },
    /// The master's group is listened to.
    GroupJoined {
        /// Which.
        group: SocketAddr,
        /// On which interface.
        interface: String,
    },
    /// The master's changes come by its group from now on.
    GroupFollowed,
    /// They come over the node's own connection again.
    GroupLeft {
        /// Why.
        reason: GroupLeftReason,
        /// What the master said, if it asked for it.
        asked: Option<GroupEndReason>,
    },
    /// The master's group cannot be joined.
    GroupFailed {
        /// Why, and what to change.
        reason: String,
    },
    /// The kernel gives the group's sockets a small buffer.
    GroupBufferSmall {
        /// What it gives.
        bytes: usize,
        /// What was asked for.
        wanted: usize,
    },
    /// Datagrams that came for the group, and not from the master, or longer than any of it.
    GroupDatagramsRefused {
        /// How many since the group was joined.
        count: u64,
        /// The group.
        group: SocketAddr,
        /// Where the last one came from.
        from: SocketAddr,
        /// Its bytes.
        len: usize,
        /// The master's address.
        master: IpAddr,
    },
    /// What the node has to say in the group did not leave it.
    GroupUnsent {
        /// How many datagrams since the start.
        count: u64,
        /// Where to.
        master: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A master did something wrong, or this node does not follow it.
    MasterRefused {
        /// Which.
        master: Address,
        /// Why.
        reason: String,
    },
    /// The state of the table has changed.
    StateChanged {
        /// What it was.
        from: NodeState,
        /// What it is.
        to: NodeState,
        /// Why.
        reason: StateReason,
        /// Where the table stands.
        level: Level,
    },
    /// A batch or a load failed as a whole; the table is as it was.
    TableFailed {
        /// What was tried.
        what: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// A partition's memory contradicts its sum.
    MemoryDoubted {
        /// How many since the start.
        count: u64,
        /// The last one.
        partition: u16,
    },
    /// A partition was compared with the master's records.
    Mended {
        /// How many since the start.
        count: u64,
        /// The last one.
        partition: u16,
        /// Level at which it was compared.
        level: Level,
        /// Records that differed.
        differing: u64,
        /// Of these, how many were repaired.
        repaired: u64,
    },
    /// An audit has ended.
    Audited {
        /// Why it began.
        cause: AuditCause,
        /// How it ended.
        verdict: AuditVerdict,
        /// Level of the last comparison.
        level: Level,
        /// Partitions that differed.
        partitions: u32,
        /// The same as text.
        ranges: String,
        /// Records that differed.
        differing: u64,
        /// Of these, how many were repaired.
        repaired: u64,
    },
    /// The table is getting full and is copied into a bigger one.
    GrowthBegun {
        /// Records in it.
        records: u64,
        /// Its bytes.
        from_bytes: u64,
        /// Bytes of the bigger one.
        bytes: u64,
    },
    /// The bigger table answers.
    GrowthDone {
        /// Its bytes.
        bytes: u64,
        /// How long it took.
        took: Duration,
        /// Attempts before it that came to nothing.
        failed: u64,
    },
    /// The table is getting full and did not grow.
    GrowthFailed {
        /// Why, and what to do.
        reason: String,
    },
    /// Datagrams on the registration socket that are none.
    DatagramsRefused {
        /// How many since the start.
        count: u64,
        /// Why the last one was.
        reason: String,
    },
    /// A worker could not be answered.
    AnswerUndelivered {
        /// How many since the start.
        count: u64,
        /// Why.
        reason: String,
    },
    /// The table was loaded from disk: there was none in memory.
    SnapshotLoaded {
        /// The snapshot.
        path: PathBuf,
        /// Where the table stands now.
        position: Position,
        /// Its records.
        records: u64,
        /// How long it took.
        took: Duration,
    },
    /// A snapshot on disk could not be used.
    SnapshotRefused {
        /// The snapshot.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A snapshot was written.
    SnapshotWritten {
        /// Where the table stood at its end.
        position: Position,
        /// Its bytes.
        bytes: u64,
        /// How long it took.
        took: Duration,
    },
    /// A snapshot was given up, since the table became another one meanwhile.
    SnapshotGivenUp {
        /// Why.
        reason: &'static str,
    },
    /// Snapshots cannot be written; logged once until one can.
    SnapshotsFailed {
        /// Why.
        reason: String,
    },
    /// Snapshots can be written again.
    SnapshotsResumed {
        /// How many could not since the start.
        failed: u64,
    },
    /// The recording could not be written.
    RecordingStopped {
        /// Why.
        reason: String,
    },
    /// The agent could not start, or a recording could not be replayed.
    Failed {
        /// Why.
        reason: String,
    },
    /// The agent ends.
    Stopped {
        /// Why.
        reason: &'static str,
        /// End state as JSON.
        summary: String,
    },
}

impl Event {
    /// Writes the event through `tracing`.
    pub fn log(&self) {
        match self {
            Self::Started {
                version,
                node,
                folder,
                position,
                masters,
            } => {
                let folder = folder.display();
                let masters: Vec<_> = masters.iter().map(ToString::to_string).collect();
                let masters = masters.join(", ");
                match position {
                    Some(position) => tracing::info!(
                        "locus-agent {version}: node {node}, table {folder} at {position}, locsvc {masters}"
                    ),
                    None => tracing::info!(
                        "locus-agent {version}: node {node}, no table in {folder} yet, locsvc {masters}"
                    ),
                }
            }
            Self::Insecure => tracing::warn!(
                "INSECURE: insecure = true in agent.toml. The connection to locsvc has no encryption and no \
                 authentication: whoever can reach the network between can read every registration and change \
                 every route. For a lab only; elsewhere remove the line and give this node an identity with \
                 locusctl ca node"
            ),
            Self::IdentityChanged { path, days } => tracing::info!(
                "the identity in {} has changed and counts from now on; its certificate is valid for {days} days",
                path.display()
            ),
            Self::IdentityRefused { path, reason } => tracing::error!(
                "the identity in {} has changed and is not used, the one read before goes on: {reason}",
                path.display()
            ),
            Self::IdentityWarning { text } => tracing::warn!("{text}"),
            Self::IdentityEnds { path, days } => match days {
                Some(days) => tracing::warn!(
                    "the certificate in {} ends in {days} days; renew it with locusctl ca node and put the new \
                     files there, no restart is needed",
                    path.display()
                ),
                None => tracing::error!(
                    "the certificate in {} has ended: the connection that stands goes on, and no new one can be \
                     made; renew it with locusctl ca node and put the new files there, no restart is needed",
                    path.display()
                ),
            },
            Self::Recovered { position } => {
                tracing::warn!(
                    "the table was left in the middle of a batch; it is at {position} now"
                );
            }
            Self::TableRefused { reason } => {
                tracing::warn!(
                    "the table found here cannot be used and will be loaded anew: {reason}"
                );
            }
            Self::TableOfAnotherBoot { folder } => tracing::warn!(
                "the table in {} was made before this machine was started: it does not answer, and the \
                 whole table is loaded anew",
                folder.display()
            ),
            Self::BootNotNoted { reason } => tracing::warn!(
                "the boot in which the table was made could not be noted, so after a restart the agent \
                 may load it anew: {reason}"
            ),
            Self::NotTmpfs { folder } => tracing::warn!(
                "{} is not on a tmpfs: look-ups may wait for a disk, and after each start of the machine \
                 the table is loaded anew; mount one there (size=…,huge=advise)",
                folder.display()
            ),
            Self::SmallFolder { reason } => {
                tracing::warn!("the folder is too small for a reload: {reason}");
            }
            Self::SmallPages {
                file,
                folder,
                bytes,
                huge_bytes,
            } => tracing::warn!(
                "{huge_bytes} of {bytes} bytes of {} lie in pages of 2 MiB: look-ups take longer. Mount a tmpfs \
                 with huge=advise at {} (packaging/systemd/run-locus-default.mount does), see that \
                 /sys/kernel/mm/transparent_hugepage/enabled is not never and shmem_enabled there not deny, and \
                 start the agent again",
                file.display(),
                folder.display()
            ),
            Self::NotRemoved { reason } => {
                tracing::error!("a table that no longer answers keeps its memory: {reason}");
            }
            Self::MasterFound { master } => tracing::info!("following locsvc at {master}"),
            Self::MasterLost { master, reason } => {
                tracing::warn!("no connection to locsvc at {master}, trying again: {reason}");
            }
            Self::Returning { from, to } => {
                tracing::info!("{to} is open again: going there from {from}");
            }
            Self::GroupJoined { group, interface } => {
                tracing::info!("listening to the group {group} on {interface}");
            }
            Self::GroupFollowed => tracing::info!("changes come by multicast from now on"),
            Self::GroupLeft { reason, asked } => match asked {
                Some(asked @ GroupEndReason::Unicast) => {
                    tracing::info!(
                        "changes come over the own connection from now on, as locsvc asks: {asked}"
                    )
                }
                Some(asked @ (GroupEndReason::Lagging | GroupEndReason::Rotated)) => {
                    tracing::warn!(
                        "changes come over the own connection from now on, as locsvc asks: {asked}"
                    )
                }
                None => tracing::warn!(
                    "changes come over the own connection from now on, not by multicast: {reason}"
                ),
            },
            Self::GroupFailed { reason } => tracing::error!(
                "no multicast for this node, changes come over its own connection: {reason}"
            ),
            Self::GroupBufferSmall { bytes, wanted } => tracing::warn!(
                "the kernel lets {bytes} bytes of the group's datagrams wait, not {wanted}: in a burst some are \
                 lost and asked for again. Set net.core.rmem_max={wanted} with sysctl, or give locus-agent \
                 CAP_NET_ADMIN"
            ),
            Self::GroupDatagramsRefused {
                count,
                group,
                from,
                len,
                master,
            } => tracing::warn!(
                "{count} datagrams for the group {group} were refused, the last of {len} bytes from {from}; only \
                 {master} speaks there, in at most {DATAGRAM_BYTES_MAX} bytes. If that was locsvc, its datagrams \
                 must leave from the address at which this node reaches it"
            ),
            Self::GroupUnsent {
                count,
                master,
                reason,
            } => tracing::warn!(
                "{count} datagrams to locsvc at {master} did not leave this node, the last: {reason}"
            ),
            Self::MasterRefused { master, reason } => {
                tracing::error!("not following locsvc at {master}: {reason}");
            }
            Self::StateChanged {
                from,
                to,
                reason,
                level,
            } => tracing::info!("{from} -> {to} at level {level}: {reason}"),
            Self::TableFailed { what, reason } => tracing::error!("{what} failed: {reason}"),
            Self::MemoryDoubted { count, partition } => tracing::error!(
                "memory contradicts its sum in partition {partition:04x} ({count} so far): a stray write into \
                 the table's file, or failing memory; it is compared with the master's records now"
            ),
            Self::Mended {
                count,
                partition,
                level,
                differing,
                repaired,
            } => match differing {
                0 => tracing::warn!(
                    "partition {partition:04x} holds the master's records at level {level}, but its sum was \
                     not theirs ({count} partitions so far)"
                ),
                _ => tracing::warn!(
                    "partition {partition:04x}: {differing} records were not the master's at level {level}, \
                     {repaired} are repaired ({count} partitions so far)"
                ),
            },
            Self::Audited {
                cause,
                verdict,
                level,
                partitions,
                ranges,
                differing,
                repaired,
            } => {
                let found = format!(
                    "audit ({cause}) at level {level}: {verdict}; {differing} records in {partitions} \
                     partitions differed, {repaired} are repaired"
                );
                let ranges = if ranges.is_empty() {
                    ranges.clone()
                } else {
                    format!(" (partitions {ranges})")
                };
                match verdict {
                    AuditVerdict::Equal => tracing::info!("{found}"),
                    AuditVerdict::Differs | AuditVerdict::Repaired => {
                        tracing::warn!("{found}{ranges}");
                    }
                    AuditVerdict::Reloading => {
                        tracing::error!("{found}{ranges}: the whole table is loaded anew");
                    }
                    AuditVerdict::Refused => {
                        tracing::error!("{found}: see the log of locsvc, which refused");
                    }
                    AuditVerdict::Busy => {
                        tracing::warn!(
                            "{found}: another audit is under way or the log is not followed"
                        );
                    }
                    AuditVerdict::Failed => tracing::error!("{found}{ranges}"),
                }
            }
            Self::GrowthBegun {
                records,
                from_bytes,
                bytes,
            } => tracing::info!(
                "the table is getting full ({records} records in {from_bytes} bytes): it is copied into \
                 one of {bytes} bytes while it answers"
            ),
            Self::GrowthDone {
                bytes,
                took,
                failed,
            } => tracing::info!(
                "the table has grown to {bytes} bytes in {} ms, after {failed} attempts that failed",
                took.as_millis()
            ),
            Self::GrowthFailed { reason } => tracing::error!(
                "the table is getting full and cannot grow; changes go on until one finds no room, and \
                 it is tried again each minute: {reason}"
            ),
            Self::DatagramsRefused { count, reason } => {
                tracing::warn!("{count} datagrams were no registrations, the last: {reason}");
            }
            Self::AnswerUndelivered { count, reason } => {
                tracing::warn!(
                    "{count} answers could not be delivered to their workers, the last: {reason}"
                );
            }
            Self::SnapshotLoaded {
                path,
                position,
                records,
                took,
            } => tracing::info!(
                "loaded {records} records from {} in {} ms: at {position}",
                path.display(),
                took.as_millis()
            ),
            Self::SnapshotRefused { path, reason } => {
                tracing::error!("the snapshot {} is not used: {reason}", path.display());
            }
            Self::SnapshotWritten {
                position,
                bytes,
                took,
            } => tracing::debug!(
                "wrote a snapshot of {bytes} bytes in {} ms: {position}",
                took.as_millis()
            ),
            Self::SnapshotGivenUp { reason } => {
                tracing::info!("a snapshot was given up, the next one follows: {reason}");
            }
            Self::SnapshotsFailed { reason } => tracing::error!(
                "no snapshots are written, each interval tries again; after a reboot the table comes from \
                 an older one or from the master: {reason}"
            ),
            Self::SnapshotsResumed { failed } => {
                tracing::info!("snapshots are written again, after {failed} that were not");
            }
            Self::RecordingStopped { reason } => {
                tracing::error!("the recording has ended: {reason}")
            }
            Self::Failed { reason } => tracing::error!("{reason}"),
            Self::Stopped { reason, summary } => tracing::info!("stopped by {reason}: {summary}"),
        }
    }
}

/// Returns an error's text with those of its causes behind it.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(error.to_string().trim_end());
        cause = error.source();
    }
    text
}

/// Counts what strangers cause and says when to speak of it: at once, then at most once a second.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    total: u64,
    last: Option<Timestamp>,
}

impl Complaints {
    /// Returns how many there were.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Counts one; returns the total if it is time for a log line.
    pub(crate) fn count(&mut self, now: Timestamp) -> Option<u64> {
        self.total += 1;
        let due = self
            .last
            .is_none_or(|last| now.since(last) >= COMPLAINT_EVERY);
        due.then(|| {
            self.last = Some(now);
            self.total
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complains_at_once_and_then_once_a_second() {
        let mut complaints = Complaints::default();
        let at = |ms: u64| Timestamp(ms * 1_000_000);
        assert_eq!(complaints.count(at(5)), Some(1));
        for ms in [6, 500, 1004] {
            assert_eq!(complaints.count(at(ms)), None);
        }
        assert_eq!(complaints.count(at(1005)), Some(5));
        assert_eq!(complaints.count(at(1006)), None);
    }
}
