//! Judges one frame against the node's position; it applies nothing.

use locus_proto::{Frame, FrameHeader, FrameKind, Lineage, Position};

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It follows: apply it.
    Apply,
    /// It is known already, or of an epoch that is past.
    Ignore,
    /// Something is missing before it.
    Gap,
    /// It follows by number, but the content it was made for is another.
    RootMismatch,
}

/// Rules on a frame for a table at `mine` (rules 1.1, 1.3).
///
/// The first frame of an epoch that `lineage` does not know yet is entered there if it follows: that is
/// how a node goes over to a new epoch without a new greeting.
pub(super) fn judge(mine: Position, lineage: &mut Lineage, frame: &Frame) -> Ruling {
    let header = &frame.header;
    match header.kind {
        FrameKind::Changes => judge_changes(mine, header),
        FrameKind::Epoch => judge_epoch(mine, lineage, header),
    }
}

fn judge_changes(mine: Position, header: &FrameHeader) -> Ruling {
    if header.epoch.counter < mine.epoch.counter {
        return Ruling::Ignore;
    }
    if header.epoch != mine.epoch {
        return Ruling::Gap;
    }
    if header.to <= mine.level {
        return Ruling::Ignore;
    }
    if header.from != mine.level {
        return Ruling::Gap;
    }
    if header.root_before != mine.root {
        return Ruling::RootMismatch;
    }
    Ruling::Apply
}

fn judge_epoch(mine: Position, lineage: &mut Lineage, header: &FrameHeader) -> Ruling {
    if header.epoch.counter < mine.epoch.counter || header.epoch == mine.epoch {
        return Ruling::Ignore;
    }
    let newest = lineage.newest().map(|entry| entry.epoch);
    if newest == Some(mine.epoch)
        && header.from == mine.level
        && lineage.push(header.epoch, header.from).is_err()
    {
        return Ruling::Gap;
    }
    if header.from != mine.level || !lineage.follows(mine.epoch, mine.level, header.epoch) {
        return Ruling::Gap;
    }
    if header.root_before != mine.root || header.root_after != mine.root {
        return Ruling::RootMismatch;
    }
    Ruling::Apply
}

#[cfg(test)]
mod tests {
    use super::*;
    use locus_proto::{Epoch, EpochId, Level, MasterTime, Root};

    fn epoch(counter: u64, id: u8) -> Epoch {
        Epoch {
            counter,
            id: EpochId([id; 16]),
        }
    }

    fn frame(kind: FrameKind, epoch: Epoch, from: u64, to: u64, root: u64) -> Frame {
        let header = FrameHeader {
            kind,
            shard: 0,
            epoch,
            from: Level(from),
            to: Level(to),
            root_before: Root([root; 2]),
            root_after: Root([root; 2]),
            time: MasterTime(0),
        };
        Frame {
            header,
            changes: Vec::new(),
        }
    }

    #[test]
    fn every_frame_has_one_ruling() {
        use FrameKind::{Changes, Epoch as Start};
        use Ruling::{Apply, Gap, Ignore, RootMismatch};
        let mut lineage = Lineage::default();
        for (counter, start) in [(1, 0), (2, 50), (3, 100), (5, 100), (6, 120)] {
            lineage.push(epoch(counter, 1), Level(start)).unwrap();
        }
        let at = |counter, level| Position {
            epoch: epoch(counter, 1),
            level: Level(level),
            root: Root([7; 2]),
        };
        let mine = at(2, 80);
        for (mine, frame, expected) in [
            (mine, frame(Changes, epoch(2, 1), 80, 90, 7), Apply),
            (mine, frame(Changes, epoch(2, 1), 80, 90, 8), RootMismatch),
            (mine, frame(Changes, epoch(2, 1), 70, 80, 9), Ignore), // known
            (mine, frame(Changes, epoch(2, 1), 70, 81, 7), Gap),    // half known: never made
            (mine, frame(Changes, epoch(2, 1), 81, 90, 7), Gap),
            (mine, frame(Changes, epoch(1, 1), 80, 90, 7), Ignore), // past
            (mine, frame(Changes, epoch(2, 9), 80, 90, 7), Gap),    // a stranger's
            (mine, frame(Changes, epoch(3, 1), 80, 90, 7), Gap),    // its first frame is missing
            (mine, frame(Start, epoch(3, 1), 80, 80, 7), Gap),      // it began at 100
            (mine, frame(Start, epoch(3, 1), 100, 100, 7), Gap),
            (mine, frame(Start, epoch(2, 1), 50, 50, 7), Ignore),
            (mine, frame(Start, epoch(1, 1), 80, 80, 7), Ignore),
            (mine, frame(Start, epoch(4, 1), 80, 80, 7), Gap), // not of this lineage
            (at(2, 100), frame(Start, epoch(3, 1), 100, 100, 7), Apply),
            (
                at(2, 100),
                frame(Start, epoch(3, 1), 100, 100, 8),
                RootMismatch,
            ),
            (at(2, 100), frame(Start, epoch(5, 1), 100, 100, 7), Gap), // one is left out
            (at(3, 100), frame(Start, epoch(5, 1), 100, 100, 7), Apply),
            // Epochs that began after the greeting are learnt from their first frame.
            (at(6, 130), frame(Start, epoch(7, 1), 130, 130, 7), Apply),
            (at(7, 130), frame(Start, epoch(8, 1), 130, 130, 7), Apply),
            (at(8, 140), frame(Start, epoch(9, 1), 141, 141, 7), Gap),
        ] {
            let ruling = judge(mine, &mut lineage, &frame);
            assert_eq!(ruling, expected, "{mine}: {:?}", frame.header);
        }
        assert_eq!(lineage.newest().unwrap().epoch, epoch(8, 1));
    }
}
