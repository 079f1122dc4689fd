//! Frames of the master's log, applied to the table; it judges no epoch.

use locus_distribution::{Failure, Standing};
use locus_proto::{Frame, Timestamp};
use locus_table::{ApplyError, OwnRegions, PrepareError};

use super::{Node, growth, standing};
use crate::edge::Populate;
use crate::event::with_causes;

impl<R: OwnRegions<Region: Populate>> Node<R> {
    /// Applies a frame; `checked`: only if its roots are the table's.
    pub(super) fn apply(
        &mut self,
        now: Timestamp,
        frame: &Frame,
        checked: bool,
    ) -> Result<Standing, Failure> {
        let mut outcome = self.try_apply(frame, checked);
        for _ in 0..growth::AT_ONCE_MAX {
            match outcome.as_ref().map_err(growth::short) {
                Err(Some(short)) if self.grow_at_once(now, short) => {
                    outcome = self.try_apply(frame, checked);
                }
                Ok(_) | Err(_) => break,
            }
        }
        match outcome {
            Ok(standing) => {
                self.said.clear();
                self.follow_growing(|growth| growth.follow(&frame.changes));
                if checked {
                    self.snapshots.handover.applied(frame);
                } else {
                    self.snapshots.handover.void("the content is in doubt");
                }
                Ok(standing)
            }
            Err(error) => {
                let failure = match &error {
                    // What the frame touches is not what it was made for: an audit finds out where.
                    ApplyError::RootBefore { .. }
                    | ApplyError::RootAfter { .. }
                    | ApplyError::Prepare(PrepareError::Corrupt(_))
                        if checked =>
                    {
                        self.doubt_keys(frame);
                        Failure::RootMismatch
                    }
                    ApplyError::RootBefore { .. }
                    | ApplyError::RootAfter { .. }
                    | ApplyError::LevelGap { .. } => Failure::RootMismatch,
                    ApplyError::Loading => Failure::Broken,
                    ApplyError::Prepare(error) => failure_of(error),
                };
                self.say("a batch", failure, with_causes(&error));
                Err(failure)
            }
        }
    }

    fn try_apply(&mut self, frame: &Frame, checked: bool) -> Result<Standing, ApplyError> {
        let table = self.table.as_mut().ok_or(ApplyError::Loading)?;
        if checked {
            table.apply(frame)?;
        } else {
            table.follow(frame)?;
        }
        Ok(standing(table))
    }
}

/// Returns what it means for the node that changes cannot be made.
pub(super) fn failure_of(error: &PrepareError) -> Failure {
    match error {
        PrepareError::IndexFull { .. } | PrepareError::ArenaFull { .. } => Failure::Full,
        PrepareError::Corrupt(_) => Failure::Broken,
        // The master made a batch that no table takes; nothing is wrong with this one.
        PrepareError::TooManyChanges { .. }
        | PrepareError::TooLarge { .. }
        | PrepareError::KeyTwice(_)
        | PrepareError::ValueTooLong { .. } => Failure::RootMismatch,
    }
}
