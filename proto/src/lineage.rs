//! The list of epochs that a log has lived through, and what it says of a replica; it moves no data.

use serde::{Deserialize, Serialize};

use crate::{DecodeError, Decoder, Encoder, Epoch, Level};

/// Newest epochs that are kept; a replica of an older one reloads.
pub const LINEAGE_MAX: usize = 1024;

/// An epoch and the level at which it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageEntry {
    /// The epoch.
    pub epoch: Epoch,
    /// The level of the log when it began: changes above it are the epoch's own.
    pub start: Level,
}

/// Epochs of one log, oldest first; counters rise, start levels never fall.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lineage {
    entries: Vec<LineageEntry>,
}

/// What a replica may do with this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Its content is a prefix of the log: the changes after its level suffice.
    Continue,
    /// It is not, or cannot be told: the whole table must be loaded anew.
    Reload(ReloadReason),
}

/// Why a replica must load the whole table anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ReloadReason {
    /// It presents no table: it has none, or none that changes can follow.
    #[error("the node presents no table")]
    Empty,
    /// Its epoch is not in the lineage.
    #[error("the node's epoch is not of this master's lineage")]
    UnknownEpoch,
    /// It holds changes that the following epoch does not know: a tail that was lost.
    #[error("the node is above the start of the epoch that followed its own")]
    LostTail,
    /// It is above the log's end.
    #[error("the node is above the master's level")]
    Ahead,
    /// The changes it lacks cost more than the table.
    #[error("the missing changes cost more than the table")]
    TooFar,
    /// The operator asked for it.
    #[error("asked for by the operator")]
    Asked,
}

impl ReloadReason {
    const ALL: [Self; 6] = [
        Self::Empty,
        Self::UnknownEpoch,
        Self::LostTail,
        Self::Ahead,
        Self::TooFar,
        Self::Asked,
    ];

    /// Returns the code of the reason on the wire: 1 to 5, or 7.
    pub fn code(self) -> u8 {
        match self {
            Self::Empty => 1,
            Self::UnknownEpoch => 2,
            Self::LostTail => 3,
            Self::Ahead => 4,
            Self::TooFar => 5,
            // 6 was "other content at an equal level": an audit mends that.
            Self::Asked => 7,
        }
    }

    /// Returns the reason with this code.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`].
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.code() == code)
            .ok_or_else(|| DecodeError::Unknown {
                what: "reload reason",
                value: code.into(),
            })
    }
}

/// Returned for an epoch that cannot follow the newest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {epoch} at level {start} cannot follow {newest} that began at level {newest_start}")]
pub struct LineageError {
    /// The epoch that was to be added.
    pub epoch: Epoch,
    /// Its start level.
    pub start: Level,
    /// The newest epoch.
    pub newest: Epoch,
    /// Its start level.
    pub newest_start: Level,
}

impl Lineage {
    /// Returns the epochs, oldest first.
    pub fn entries(&self) -> &[LineageEntry] {
        &self.entries
    }

    /// Returns the newest epoch.
    pub fn newest(&self) -> Option<LineageEntry> {
        self.entries.last().copied()
    }

    /// Adds an epoch; drops the oldest above [`LINEAGE_MAX`].
    ///
    /// # Errors
    /// [`LineageError`] if its counter does not rise or its start level falls.
    pub fn push(&mut self, epoch: Epoch, start: Level) -> Result<(), LineageError> {
        if let Some(newest) = self.newest()
            && (epoch.counter <= newest.epoch.counter || start < newest.start)
        {
            return Err(LineageError {
                epoch,
                start,
                newest: newest.epoch,
                newest_start: newest.start,
            });
        }
        if self.entries.len() == LINEAGE_MAX {
            self.entries.remove(0);
        }
        self.entries.push(LineageEntry { epoch, start });
        Ok(())
    }

    /// Returns whether a replica at (`epoch`, `level`) may go on with a log that ends at `head`.
    ///
    /// Rule 1.2: only if its epoch is in the lineage and its level is not above the start of the epoch
    /// that follows its own. Comparing with the newest start level only is the truncation bug that log
    /// replication has met before: a node two epochs behind with a lost tail would go on.
    pub fn judge(&self, epoch: Epoch, level: Level, head: Level) -> Verdict {
        let Some(index) = self.entries.iter().position(|entry| entry.epoch == epoch) else {
            return Verdict::Reload(ReloadReason::UnknownEpoch);
        };
        match self.entries.get(index + 1) {
            Some(next) if level > next.start => Verdict::Reload(ReloadReason::LostTail),
            _ if level > head => Verdict::Reload(ReloadReason::Ahead),
            _ => Verdict::Continue,
        }
    }

    /// Returns whether `next` follows `epoch` in this lineage for a replica that stands at `level`.
    pub fn follows(&self, epoch: Epoch, level: Level, next: Epoch) -> bool {
        self.entries
            .windows(2)
            .any(|pair| pair[0].epoch == epoch && pair[1].epoch == next && pair[1].start == level)
    }

    /// Appends `count u32` and the entries.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.len32(self.entries.len());
        for entry in &self.entries {
            entry.epoch.encode(out);
            out.u64(entry.start.0);
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Too many entries, entries out of order, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let len = usize::try_from(from.u32("lineage")?).unwrap_or(usize::MAX);
        if len > LINEAGE_MAX {
            return Err(DecodeError::TooLong {
                what: "lineage",
                len,
                max: LINEAGE_MAX,
            });
        }
        let mut lineage = Self::default();
        for _ in 0..len {
            let epoch = Epoch::decode(from)?;
            let start = Level(from.u64("epoch start")?);
            lineage
                .push(epoch, start)
                .map_err(|_| DecodeError::Malformed {
                    what: "lineage order",
                })?;
        }
        Ok(lineage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EpochId;

    fn epoch(counter: u64) -> Epoch {
        Epoch {
            counter,
            id: EpochId([u8::try_from(counter).unwrap(); 16]),
        }
    }

    #[test]
    fn judges_by_the_epoch_that_follows_the_nodes_own() {
        let mut lineage = Lineage::default();
        for (counter, start) in [(1, 0), (2, 100), (3, 100), (4, 150)] {
            lineage.push(epoch(counter), Level(start)).unwrap();
        }
        let head = Level(200);
        let stranger = Epoch {
            counter: 2,
            id: EpochId([9; 16]),
        };
        let reload = Verdict::Reload;
        for (node, level, expected) in [
            (epoch(1), 0, Verdict::Continue),
            (epoch(1), 100, Verdict::Continue),
            // Two epochs behind with a lost tail: above its own successor's start, below the newest's.
            (epoch(1), 101, reload(ReloadReason::LostTail)),
            (epoch(2), 100, Verdict::Continue),
            (epoch(2), 101, reload(ReloadReason::LostTail)),
            (epoch(3), 150, Verdict::Continue),
            (epoch(3), 151, reload(ReloadReason::LostTail)),
            (epoch(4), 200, Verdict::Continue),
            (epoch(4), 201, reload(ReloadReason::Ahead)),
            (stranger, 100, reload(ReloadReason::UnknownEpoch)),
            (epoch(5), 1, reload(ReloadReason::UnknownEpoch)),
        ] {
            assert_eq!(
                lineage.judge(node, Level(level), head),
                expected,
                "{node} at {level}"
            );
        }
        assert!(lineage.follows(epoch(1), Level(100), epoch(2)));
        assert!(!lineage.follows(epoch(1), Level(99), epoch(2)));
        assert!(!lineage.follows(epoch(1), Level(100), epoch(3)));
    }

    #[test]
    fn codes_of_reasons_are_read_as_written() {
        for reason in ReloadReason::ALL {
            assert_eq!(ReloadReason::from_code(reason.code()), Ok(reason));
        }
        for code in [0, 6, 8] {
            assert!(ReloadReason::from_code(code).is_err(), "{code}");
        }
    }

    #[test]
    fn keeps_order_and_length() {
        let mut lineage = Lineage::default();
        lineage.push(epoch(1), Level(5)).unwrap();
        assert!(lineage.push(epoch(1), Level(6)).is_err());
        assert!(lineage.push(epoch(2), Level(4)).is_err());
        for counter in 2..2000 {
            let epoch = Epoch {
                counter,
                id: EpochId([7; 16]),
            };
            lineage.push(epoch, Level(5)).unwrap();
        }
        assert_eq!(lineage.entries().len(), LINEAGE_MAX);
        let mut bytes = Vec::new();
        lineage.encode(&mut Encoder::new(&mut bytes));
        assert_eq!(Lineage::decode(&mut Decoder::new(&bytes)), Ok(lineage));
    }
}
