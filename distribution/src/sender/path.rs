//! Where the stream to one node goes: over its connection, or through the group; it sends nothing.
//!
//! ```text
//! Own ─wanted─► Offered ─heard─► Heard ─met─► Group ─ended─► Ending
//!                  ▲ ◄────────────left────────┘ ◄─────left─────┘
//! ```

use std::fmt;

use locus_proto::v1::{GroupEndReason, GroupLeftReason};
use serde::{Deserialize, Serialize};

use super::{BusSide, Medium};

/// How the log comes to a node, as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// Over its own connection.
    Tcp,
    /// Over its own connection by bus A.
    BusA,
    /// Over its own connection by bus B.
    BusB,
    /// Through the group.
    Multicast,
}

impl Path {
    /// Returns the path of a node that is served over its connection.
    pub(super) fn of(medium: Medium) -> Self {
        match medium {
            Medium::Tcp => Self::Tcp,
            Medium::Bus(BusSide::A) => Self::BusA,
            Medium::Bus(BusSide::B) => Self::BusB,
        }
    }

    /// Returns the word that operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::BusA => "bus-a",
            Self::BusB => "bus-b",
            Self::Multicast => "multicast",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a node's path has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum PathReason {
    /// It hears the group, and its place in the log has met the group's.
    #[error("it hears the group")]
    Heard,
    /// The node has left the group.
    #[error("it left the group: {0}")]
    Left(GroupLeftReason),
    /// The master has taken it out of the group.
    #[error("taken out of the group: {0}")]
    Ended(GroupEndReason),
}

/// Where the master stands with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stage {
    /// The stream goes over the connection, and the group was not offered.
    #[default]
    Own,
    /// The stream goes over the connection; the node listens to the group, and does not hear it well.
    Offered,
    /// The stream goes over the connection until its place and the group's meet.
    Heard,
    /// The stream comes by the group.
    Group,
    /// Out of the group, and where the node stands is not known yet: there is no stream.
    Ending,
    /// The stream goes over the connection; the node can join no group.
    Unable,
}

/// What happens to a node's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is to be in the group.
    Wanted,
    /// It says that it hears the group.
    Heard,
    /// Its place in the log and the group's are the same.
    Met,
    /// It says that it takes nothing from the group any more.
    Left(GroupLeftReason),
    /// The master takes it out of the group.
    Ended(GroupEndReason),
}

/// What the sender has to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// Send it the keys.
    Offer,
    /// End its own stream, and count it in.
    Cut,
    /// Count it out, say so, and wait for its word.
    End(GroupEndReason),
    /// Count it out, if it is in, and go on over its connection from where it says it stands.
    Serve(GroupLeftReason),
}

impl Stage {
    /// Returns whether the stream goes over the node's own connection.
    pub(super) fn streams(self) -> bool {
        match self {
            Self::Own | Self::Offered | Self::Heard | Self::Unable => true,
            Self::Group | Self::Ending => false,
        }
    }

    /// Returns whether the node holds the group's keys.
    pub(super) fn holds_keys(self) -> bool {
        match self {
            Self::Own | Self::Unable => false,
            Self::Offered | Self::Heard | Self::Group | Self::Ending => true,
        }
    }

    /// Returns whether the node may speak of the group.
    pub(super) fn was_offered(self) -> bool {
        self != Self::Own
    }

    /// Takes a turn; returns what to do.
    pub(super) fn take(&mut self, turn: Turn) -> Step {
        let (next, step) = self.judge(turn);
        *self = next;
        step
    }

    fn judge(self, turn: Turn) -> (Self, Step) {
        match (self, turn) {
            (Self::Own, Turn::Wanted) => (Self::Offered, Step::Offer),
            (Self::Offered, Turn::Heard) => (Self::Heard, Step::Stay),
            (Self::Heard, Turn::Met) => (Self::Group, Step::Cut),
            (Self::Group, Turn::Ended(reason)) => (Self::Ending, Step::End(reason)),
            // What a node says of its place counts only where its stream has ended: it may say so twice.
            (Self::Offered | Self::Heard, Turn::Left(reason)) => (listening(reason), Step::Stay),
            (Self::Group | Self::Ending, Turn::Left(reason)) => {
                (listening(reason), Step::Serve(reason))
            }
            (Self::Own | Self::Unable, Turn::Left(_))
            | (
                Self::Offered | Self::Heard | Self::Group | Self::Ending | Self::Unable,
                Turn::Wanted,
            )
            | (Self::Own | Self::Heard | Self::Group | Self::Ending | Self::Unable, Turn::Heard)
            | (Self::Own | Self::Offered | Self::Group | Self::Ending | Self::Unable, Turn::Met)
            | (
                Self::Own | Self::Offered | Self::Heard | Self::Ending | Self::Unable,
                Turn::Ended(_),
            ) => (self, Step::Stay),
        }
    }
}

/// Returns where a node stands that has left: it goes on listening, if it can.
fn listening(reason: GroupLeftReason) -> Stage {
    match reason {
        GroupLeftReason::Unable => Stage::Unable,
        GroupLeftReason::Silent
        | GroupLeftReason::Gone
        | GroupLeftReason::Overrun
        | GroupLeftReason::Mistrusted
        | GroupLeftReason::Asked => Stage::Offered,
    }
}

/// Returns whether operators must know: the network between master and node carries no group, or what comes by
/// it is not the master's.
pub(super) fn is_alarming(reason: GroupLeftReason) -> bool {
    match reason {
        GroupLeftReason::Silent | GroupLeftReason::Mistrusted | GroupLeftReason::Unable => true,
        GroupLeftReason::Gone | GroupLeftReason::Overrun | GroupLeftReason::Asked => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_of_a_path() {
        use Stage::{Ending, Group, Heard, Offered, Own, Unable};
        let lagging = Turn::Ended(GroupEndReason::Lagging);
        let end = Step::End(GroupEndReason::Lagging);
        let silent = Turn::Left(GroupLeftReason::Silent);
        let unable = Turn::Left(GroupLeftReason::Unable);
        let serve = Step::Serve;
        let stay = Step::Stay;
        // Rows: the stage; columns: wanted, heard, met, left, left for good, ended.
        let turns = [
            Turn::Wanted,
            Turn::Heard,
            Turn::Met,
            silent,
            unable,
            lagging,
        ];
        for (stage, becomes) in [
            (
                Own,
                [
                    (Offered, Step::Offer),
                    (Own, stay),
                    (Own, stay),
                    (Own, stay),
                    (Own, stay),
                    (Own, stay),
                ],
            ),
            (
                Offered,
                [
                    (Offered, stay),
                    (Heard, stay),
                    (Offered, stay),
                    (Offered, stay),
                    (Unable, stay),
                    (Offered, stay),
                ],
            ),
            (
                Heard,
                [
                    (Heard, stay),
                    (Heard, stay),
                    (Group, Step::Cut),
                    (Offered, stay),
                    (Unable, stay),
                    (Heard, stay),
                ],
            ),
            (
                Group,
                [
                    (Group, stay),
                    (Group, stay),
                    (Group, stay),
                    (Offered, serve(GroupLeftReason::Silent)),
                    (Unable, serve(GroupLeftReason::Unable)),
                    (Ending, end),
                ],
            ),
            (
                Ending,
                [
                    (Ending, stay),
                    (Ending, stay),
                    (Ending, stay),
                    (Offered, serve(GroupLeftReason::Silent)),
                    (Unable, serve(GroupLeftReason::Unable)),
                    (Ending, stay),
                ],
            ),
            (
                Unable,
                [
                    (Unable, stay),
                    (Unable, stay),
                    (Unable, stay),
                    (Unable, stay),
                    (Unable, stay),
                    (Unable, stay),
                ],
            ),
        ] {
            for (turn, expected) in turns.into_iter().zip(becomes) {
                let mut now = stage;
                let step = now.take(turn);
                assert_eq!((now, step), expected, "{stage:?} at {turn:?}");
            }
        }
    }

    #[test]
    fn a_stream_has_one_way_at_a_time() {
        use Stage::{Ending, Group, Heard, Offered, Own, Unable};
        let streams = [Own, Offered, Heard, Group, Ending, Unable].map(Stage::streams);
        assert_eq!(streams, [true, true, true, false, false, true]);
        let keys = [Own, Offered, Heard, Group, Ending, Unable].map(Stage::holds_keys);
        assert_eq!(keys, [false, true, true, true, true, false]);
    }
}
