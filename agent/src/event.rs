//! Everything the agent writes into its log: one closed list, with level and text in one place.
//!
//! It decides nothing and counts nothing.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use locus_distribution::StateReason;
use locus_proto::{Level, NodeName, NodeState, Position, Timestamp};

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
        /// Addresses of locsvc.
        masters: Vec<SocketAddr>,
    },
    /// Connections are neither encrypted nor authenticated.
    Insecure,
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
    /// A table that no longer answers could not be removed.
    NotRemoved {
        /// Why.
        reason: String,
    },
    /// A master has taken the node in.
    MasterFound {
        /// Which.
        master: SocketAddr,
    },
    /// The master is out of reach, or the connection to it was given up.
    MasterLost {
        /// Which.
        master: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A master did something wrong, or this node does not follow it.
    MasterRefused {
        /// Which.
        master: SocketAddr,
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
                match position {
                    Some(position) => tracing::info!(
                        "locus-agent {version}: node {node}, table {folder} at {position}, locsvc {masters:?}"
                    ),
                    None => tracing::info!(
                        "locus-agent {version}: node {node}, no table in {folder} yet, locsvc {masters:?}"
                    ),
                }
            }
            Self::Insecure => tracing::warn!(
                "INSECURE: locsvc is reached without encryption or authentication (insecure = true); \
                 whoever can reach the network between can change every route"
            ),
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
            Self::NotTmpfs { folder } => tracing::warn!(
                "{} is not on a tmpfs: look-ups may wait for a disk, and after a power loss the table \
                 must not be trusted; mount one there (size=…,huge=advise)",
                folder.display()
            ),
            Self::SmallFolder { reason } => {
                tracing::warn!("the folder is too small for a reload: {reason}");
            }
            Self::NotRemoved { reason } => {
                tracing::error!("a table that no longer answers keeps its memory: {reason}");
            }
            Self::MasterFound { master } => tracing::info!("following locsvc at {master}"),
            Self::MasterLost { master, reason } => {
                tracing::warn!("no connection to locsvc at {master}, trying again: {reason}");
            }
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
            Self::DatagramsRefused { count, reason } => {
                tracing::warn!("{count} datagrams were no registrations, the last: {reason}");
            }
            Self::AnswerUndelivered { count, reason } => {
                tracing::warn!(
                    "{count} answers could not be delivered to their workers, the last: {reason}"
                );
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
