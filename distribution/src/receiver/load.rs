//! One reload as it comes in: checks that it keeps its announcement; it holds no record.

use locus_proto::{
    Frame, Level, Lineage, Position,
    v1::{SnapshotBegin, SnapshotEnd, SnapshotPart},
};

use super::follow::{self, Ruling};
use super::{MasterError, SNAPSHOT_RECORDS_SLACK};

/// A table that is being loaded.
///
/// Records first, each true at some level between begin and end; then the frames from begin to end,
/// without comparing roots; at end the root must be the announced one. Later frames go the usual way.
#[derive(Debug)]
pub(super) struct Load {
    /// Epoch and level up to which frames were loaded; its root counts for nothing.
    at: Position,
    begin: SnapshotBegin,
    end: Option<SnapshotEnd>,
    records: u64,
}

impl Load {
    /// Returns a load that has begun.
    ///
    /// `head` is the highest that the master has named on this connection. The node's own level is not
    /// above it unless the lineage disowned it; so a loaded table never goes below the old one, except
    /// when it must.
    ///
    /// An epoch that began while the node waited for its turn is entered into `lineage`.
    ///
    /// # Errors
    /// [`MasterError::Snapshot`] if it begins below `head`, or in an epoch that is not the newest.
    pub(super) fn new(
        begin: SnapshotBegin,
        head: Level,
        lineage: &mut Lineage,
    ) -> Result<Self, MasterError> {
        let Position { epoch, level, .. } = begin.position;
        let newest = lineage.newest().map(|entry| entry.epoch);
        // Where it began is not known, but counts for older tables only, and this one is in it.
        let known = newest == Some(epoch) || lineage.push(epoch, level).is_ok();
        if level < head || !known {
            return Err(refused("it begins before the welcome"));
        }
        Ok(Self {
            at: begin.position,
            begin,
            end: None,
            records: 0,
        })
    }

    /// Takes records.
    ///
    /// # Errors
    /// [`MasterError::Snapshot`] behind the end, or far more records than announced.
    pub(super) fn handle_part(&mut self, part: &SnapshotPart) -> Result<(), MasterError> {
        if self.end.is_some() {
            return Err(refused("records behind its end"));
        }
        let count = u64::try_from(part.records.len()).unwrap_or(u64::MAX);
        self.records = self.records.saturating_add(count);
        let announced = self.begin.records.saturating_mul(2);
        if self.records > announced.saturating_add(SNAPSHOT_RECORDS_SLACK) {
            return Err(refused("far more records than announced"));
        }
        Ok(())
    }

    /// Takes the end of the records.
    ///
    /// # Errors
    /// [`MasterError::Snapshot`] if it came before, or lies below the beginning.
    pub(super) fn handle_end(&mut self, end: SnapshotEnd) -> Result<(), MasterError> {
        if self.end.is_some() || end.level < self.at.level {
            return Err(refused("a second end, or one before its beginning"));
        }
        self.end = Some(end);
        Ok(())
    }

    /// Takes a frame made while the records were read; returns whether it has to be loaded.
    ///
    /// # Errors
    /// [`MasterError::Snapshot`] before the end of the records, at a gap, or across the end level.
    pub(super) fn handle_frame(
        &mut self,
        frame: &Frame,
        lineage: &mut Lineage,
    ) -> Result<bool, MasterError> {
        let Some(end) = self.end else {
            return Err(refused("a frame among its records"));
        };
        // Of the new table no root is known before the end: the frame's own is taken for it.
        self.at.root = frame.header.root_before;
        match follow::judge(self.at, lineage, frame) {
            Ruling::Apply if frame.header.to <= end.level => {
                self.at = frame.header.after();
                Ok(true)
            }
            Ruling::Apply => Err(refused("a frame across its end")),
            Ruling::Ignore => Ok(false),
            Ruling::Gap | Ruling::RootMismatch => Err(refused("a gap behind its records")),
        }
    }

    /// Returns where the table stands once it is whole.
    pub(super) fn whole(&self) -> Option<Position> {
        let end = self.end.filter(|end| end.level == self.at.level)?;
        Some(Position {
            root: end.root,
            ..self.at
        })
    }
}

fn refused(what: &'static str) -> MasterError {
    MasterError::Snapshot { what }
}
