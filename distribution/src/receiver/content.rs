//! What is known of the content of the node's own table: good, in doubt, stuck or wrong; it asks nobody.

use locus_proto::{Level, Position};

use super::{MasterError, Receiver, StateReason};

/// What is known of the content of the node's own table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing against it.
    Good,
    /// What the master sent did not fit at this level: once may be the connection's fault.
    Suspect(Level),
    /// Not the master's somewhere. It answers, follows the log without comparing roots, and is audited.
    Doubted(Doubt),
    /// As good as it was, but nothing can follow: no room, or a gap twice at one level. It answers until
    /// another one is loaded.
    Stuck,
    /// Not the master's: the node does not answer from it.
    Wrong(StateReason),
}

/// The content is known to be another than the master's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt {
    /// Where the table stood, and with which content, when a heartbeat last showed that: the master can tell
    /// whether other nodes hold the same.
    pub(super) at: Position,
    /// Level at which even so something did not fit: once may be the connection's fault.
    pub(super) suspect: Option<Level>,
}

impl Receiver {
    /// Returns where the table stands if changes can follow: what is wrong or stuck is not presented, and
    /// the master sends the whole table.
    pub(super) fn presentable(&self) -> Option<Position> {
        match self.content {
            Content::Good | Content::Suspect(_) | Content::Doubted(_) => self.position(),
            Content::Stuck | Content::Wrong(_) => None,
        }
    }

    /// The content at this level is not the master's. The node goes on answering and follows the log, without
    /// comparing roots, until a heartbeat matches.
    pub(super) fn doubt(&mut self, mine: Position) {
        match self.content {
            Content::Good | Content::Suspect(_) => {
                self.content = Content::Doubted(Doubt {
                    at: mine,
                    suspect: None,
                });
                self.matched_at = None;
            }
            Content::Doubted(_) | Content::Stuck | Content::Wrong(_) => {}
        }
    }

    /// Takes where the table stands as what is in doubt: the master has just named what it holds there.
    pub(super) fn renew_doubt(&mut self) {
        if let (Content::Doubted(doubt), Some(standing)) = (&mut self.content, self.standing) {
            doubt.at = standing.position;
        }
    }

    /// Returns the doubt, if there is one.
    pub(super) fn doubted(&self) -> Option<Doubt> {
        match self.content {
            Content::Doubted(doubt) => Some(doubt),
            Content::Good | Content::Suspect(_) | Content::Stuck | Content::Wrong(_) => None,
        }
    }

    /// What came did not fit. Once may be the connection's fault and a new greeting mends it; returns whether
    /// it is the second time at one level, with no matching heartbeat in between.
    pub(super) fn suspect(&mut self) -> bool {
        let level = self.level();
        let again = self.is_suspect_at(level);
        match &mut self.content {
            Content::Good | Content::Suspect(_) => self.content = Content::Suspect(level),
            Content::Doubted(doubt) => doubt.suspect = Some(level),
            Content::Stuck | Content::Wrong(_) => {}
        }
        again
    }

    /// Returns whether something has not fitted at this level already.
    pub(super) fn is_suspect_at(&self, level: Level) -> bool {
        match self.content {
            Content::Suspect(before) => before == level,
            Content::Doubted(doubt) => doubt.suspect == Some(level),
            Content::Good | Content::Stuck | Content::Wrong(_) => false,
        }
    }

    pub(super) fn gap(&mut self, mine: Position, got: Level) -> MasterError {
        if self.suspect() {
            self.content = Content::Stuck;
        }
        MasterError::Gap {
            epoch: mine.epoch,
            have: mine.level,
            got,
        }
    }
}
