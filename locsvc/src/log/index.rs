//! Where in the log the frames after a place begin, to within 64 KiB; it holds no file and no frame.

use locus_proto::{FrameHeader, Level, Position};

/// A mark is set when this many bytes have passed since the last; what a reader may have to skip.
const STEP_BYTES: u64 = 64 * 1024;

/// A place in the log: every entry leads to a higher one. An epoch's first frame keeps the level and
/// raises the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    /// The level.
    pub level: Level,
    /// The counter of the epoch.
    pub epoch: u64,
}

impl Place {
    /// Returns the place to which a frame leads.
    pub(crate) fn after(header: &FrameHeader) -> Self {
        Self::from(header.after())
    }
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        Self {
            level: position.level,
            epoch: position.epoch.counter,
        }
    }
}

/// A sparse map from places to bytes of the whole log.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    /// Place before the byte, and the byte; ascending.
    marks: Vec<(Place, u64)>,
    last: Place,
    end: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            marks: vec![(Place::default(), 0)],
            last: Place::default(),
            end: 0,
        }
    }
}

impl Index {
    /// Notes that an entry of `bytes` bytes leads from the end to `after`.
    pub(crate) fn push(&mut self, after: Place, bytes: u64) {
        let marked = self.marks.last().map_or(0, |mark| mark.1);
        if self.end - marked >= STEP_BYTES {
            self.marks.push((self.last, self.end));
        }
        self.last = after;
        self.end += bytes;
    }

    /// Returns how many bytes the log holds.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Returns a byte at which an entry begins, at most 64 KiB and one entry before the end.
    pub(crate) fn last_mark(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.1)
    }

    /// Returns a byte at which an entry begins and behind which every frame after `place` lies.
    pub(crate) fn seek(&self, place: Place) -> u64 {
        let marks = self.marks.partition_point(|mark| mark.0 <= place);
        self.marks
            .get(marks.saturating_sub(1))
            .map_or(0, |mark| mark.1)
    }

    /// Returns how many bytes follow `level`, at most 64 KiB and one entry too many; zero at the end.
    pub(crate) fn bytes_after(&self, level: Level) -> u64 {
        if level >= self.last.level {
            return 0;
        }
        self.end
            - self.seek(Place {
                level,
                epoch: u64::MAX,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeks_to_at_most_a_step_before() {
        let mut index = Index::default();
        let place = |level| Place {
            level: Level(level),
            epoch: 1,
        };
        for level in 1..=1000 {
            index.push(place(level), 1000);
        }
        for level in 0..=1000 {
            let wanted = level * 1000; // the entry to level n begins at (n - 1) * 1000
            let found = index.seek(place(level));
            assert!(
                found <= wanted && wanted - found <= STEP_BYTES + 1000,
                "{level}: {found}"
            );
            let after = index.bytes_after(Level(level));
            let exact = 1_000_000 - wanted;
            assert!(
                after >= exact && after <= exact + STEP_BYTES + 1000,
                "{level}: {after}"
            );
        }
        assert_eq!(index.bytes_after(Level(1000)), 0);
    }
}
