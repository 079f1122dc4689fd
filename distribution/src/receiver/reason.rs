//! Why the node closes its connection, why its state changes, and what a master does wrong; it does neither.

use locus_proto::{Epoch, Level, ReloadReason};
use serde::{Deserialize, Serialize};

use super::{AUDIT_ANSWER_MAX, BEHIND_AFTER, Failure, GREETING_WAIT, SILENCE_MAX, STALE_AFTER};

/// Why the node closes its connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DisconnectReason {
    /// No Welcome in time.
    #[error("no welcome within {} s", GREETING_WAIT.as_secs())]
    NotWelcomed,
    /// Nothing was heard.
    #[error("silent for {} s", SILENCE_MAX.as_secs())]
    Silent,
    /// The table could not apply a frame.
    #[error("a frame could not be applied: {0}")]
    Apply(Failure),
    /// The table could not be loaded.
    #[error("the table could not be loaded: {0}")]
    Load(Failure),
    /// The table could not be compared with the master's, or repaired.
    #[error("the table could not be audited: {0}")]
    Audit(Failure),
    /// A question of an audit was not answered.
    #[error("no answer to an audit's question within {} s", AUDIT_ANSWER_MAX.as_secs())]
    Unanswered,
    /// So much differs, or goes on differing, that the table is loaded anew.
    #[error("the content differs too much from the master's to be repaired")]
    Unrepairable,
    /// The master was at fault; `handle_message` has returned how.
    #[error("the master's message was refused")]
    Refused,
}

/// Why the state of the table changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StateReason {
    /// A master has taken the node in; the changes it lacks follow.
    #[error("catching up")]
    CatchingUp,
    /// A master has taken the node in; the whole table follows.
    #[error("loading the table anew: {0}")]
    Reloading(ReloadReason),
    /// A whole table has been loaded.
    #[error("the table is loaded")]
    Loaded,
    /// A heartbeat has matched level and content.
    #[error("at the master's level")]
    Matched,
    /// No heartbeat has matched for a while.
    #[error("behind the master's level for {} s", BEHIND_AFTER.as_secs())]
    Behind,
    /// Nothing has been heard for a while.
    #[error("no word from the master for {} s", STALE_AFTER.as_secs())]
    Silent,
    /// The content contradicts the master's somewhere; it answers meanwhile.
    #[error("the content differs from the master's and is being audited")]
    Doubted,
    /// The content contradicts the master's, and cannot be repaired.
    #[error("the content differs from the master's")]
    RootMismatch,
    /// The table failed.
    #[error("the table failed")]
    Broken,
}

/// What the master did wrong, or why the node does not follow it. The receiver asks to disconnect;
/// count or log this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MasterError {
    /// It sent the node away.
    #[error("the master refuses this node: {0}")]
    Rejected(String),
    /// A message that a master must not send, or not at that point.
    #[error("unexpected {message}")]
    Unexpected {
        /// The message.
        message: &'static str,
    },
    /// Its newest epoch is not newer than the one this node follows, nor a successor of it.
    #[error(
        "the master is at epoch {theirs}, this node has followed epoch {ours}: another or an older \
         master's data; to follow it, stop the agent, empty its folders of table and snapshots and start it again"
    )]
    OtherMaster {
        /// Its newest epoch.
        theirs: Epoch,
        /// The newest epoch this node has followed.
        ours: Epoch,
    },
    /// Its lineage, head and plan contradict each other.
    #[error("the welcome contradicts itself")]
    Welcome,
    /// Changes are missing.
    #[error(
        "a gap: the node is at level {have} of epoch {epoch}, the master goes on at level {got}"
    )]
    Gap {
        /// The node's epoch.
        epoch: Epoch,
        /// The node's level.
        have: Level,
        /// The level at which the master goes on.
        got: Level,
    },
    /// The content at this level differs from the master's.
    #[error("the content at level {level} differs from the master's")]
    RootMismatch {
        /// The level.
        level: Level,
    },
    /// A snapshot that breaks its own announcement.
    #[error("a snapshot that breaks its announcement: {what}")]
    Snapshot {
        /// How.
        what: &'static str,
    },
    /// An answer to an audit's question that does not fit it.
    #[error("an answer that does not fit an audit's question: {what}")]
    Audit {
        /// How.
        what: &'static str,
    },
    /// A message was handed in while the table owed an answer: a bug of the caller.
    #[error("a message came while the table still owed an answer")]
    Busy,
}
