//! Where a node stands with the group, and what follows from what happens to it; it sends nothing.
//!
//! ```text
//! Offered ─heard─► Heard ─cut─► Cut ─lost, ended─► Left (or Silent) ─heard─► Heard …
//! ```

use locus_proto::v1::GroupLeftReason;

/// Where the node stands with the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It listens and has not heard the group.
    Offered,
    /// It has said that it hears the group; the stream still comes over the connection.
    Heard,
    /// The stream comes by the group.
    Cut,
    /// The stream comes over the connection again; it listens.
    Left,
    /// The same, and nothing is heard: it joins anew now and then.
    Silent,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The group is heard, without a hole for long enough.
    Heard,
    /// The master says that the stream goes on in the group.
    Cut,
    /// What comes by the group is of no use any more.
    Lost(GroupLeftReason),
    /// The master takes the node out.
    Ended,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// Say that the group is heard.
    Hear,
    /// Take what comes by the group.
    Deliver,
    /// Take nothing from the group, and say where the table stands.
    Leave(GroupLeftReason),
    /// Say so once more: the master had not heard it when it spoke.
    LeaveAgain,
}

impl Stage {
    /// Returns what becomes of it, and what to do.
    pub(super) fn judge(self, turn: Turn) -> (Self, Step) {
        let left = |reason: GroupLeftReason| match reason {
            GroupLeftReason::Silent => (Self::Silent, Step::Leave(reason)),
            GroupLeftReason::Gone
            | GroupLeftReason::Overrun
            | GroupLeftReason::Mistrusted
            | GroupLeftReason::Asked
            | GroupLeftReason::Unable => (Self::Left, Step::Leave(reason)),
        };
        match (self, turn) {
            (Self::Offered | Self::Left | Self::Silent, Turn::Heard) => (Self::Heard, Step::Hear),
            (Self::Heard, Turn::Cut) => (Self::Cut, Step::Deliver),
            (Self::Offered | Self::Left | Self::Silent, Turn::Cut) => (self, Step::LeaveAgain),
            (Self::Heard | Self::Cut, Turn::Lost(reason)) => left(reason),
            // Only that it is silent is news to the master.
            (Self::Offered | Self::Left, Turn::Lost(GroupLeftReason::Silent)) => {
                left(GroupLeftReason::Silent)
            }
            (Self::Cut, Turn::Ended) => left(GroupLeftReason::Asked),
            (Self::Heard | Self::Cut, Turn::Heard)
            | (Self::Cut, Turn::Cut)
            | (Self::Offered | Self::Left | Self::Silent, Turn::Lost(_))
            | (Self::Offered | Self::Heard | Self::Left | Self::Silent, Turn::Ended) => {
                (self, Step::Stay)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_of_a_place() {
        use Stage::{Cut, Heard, Left, Offered, Silent};
        let (stay, again) = (Step::Stay, Step::LeaveAgain);
        let silent = Turn::Lost(GroupLeftReason::Silent);
        let gone = Turn::Lost(GroupLeftReason::Gone);
        let leave = Step::Leave;
        // Columns: heard, cut, silent, gone, ended.
        let turns = [Turn::Heard, Turn::Cut, silent, gone, Turn::Ended];
        let is_silent = (Silent, leave(GroupLeftReason::Silent));
        let is_gone = (Left, leave(GroupLeftReason::Gone));
        let was_asked = (Left, leave(GroupLeftReason::Asked));
        for (stage, becomes) in [
            (
                Offered,
                [
                    (Heard, Step::Hear),
                    (Offered, again),
                    is_silent,
                    (Offered, stay),
                    (Offered, stay),
                ],
            ),
            (
                Heard,
                [
                    (Heard, stay),
                    (Cut, Step::Deliver),
                    is_silent,
                    is_gone,
                    (Heard, stay),
                ],
            ),
            (
                Cut,
                [(Cut, stay), (Cut, stay), is_silent, is_gone, was_asked],
            ),
            (
                Left,
                [
                    (Heard, Step::Hear),
                    (Left, again),
                    is_silent,
                    (Left, stay),
                    (Left, stay),
                ],
            ),
            (
                Silent,
                [
                    (Heard, Step::Hear),
                    (Silent, again),
                    (Silent, stay),
                    (Silent, stay),
                    (Silent, stay),
                ],
            ),
        ] {
            for (turn, expected) in turns.into_iter().zip(becomes) {
                assert_eq!(stage.judge(turn), expected, "{stage:?} at {turn:?}");
            }
        }
    }
}
