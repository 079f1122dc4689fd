//! A master's log and the table that it gives, for many frames: no commit copies what there is already.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use locus_distribution::{Costs, LogFrame};
use locus_proto::{
    Change, ChangeOp, Epoch, EpochId, Frame, FrameHeader, FrameKind, Key, Level, Lineage,
    MasterTime, Message, Position, v1::SnapshotPart,
};

use crate::table::record_hash;

/// Bytes of values after which a part of a snapshot is closed.
const PART_BYTES: usize = 32 * 1024;

/// A change that has no level yet; `None` deletes.
pub(crate) type Op = (Key, Option<Vec<u8>>);

/// What a master keeps on its disk, and its table. Cloning it clones the disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) lineage: Lineage,
    head: Position,
    records: BTreeMap<Key, (Level, Arc<[u8]>)>,
    record_bytes: u64,
    frames: Vec<LogFrame>,
    /// Bytes of all frames up to each.
    bytes: Vec<u64>,
    /// Index of the frame that follows a point of the log.
    next: HashMap<(Epoch, Level), usize>,
}

impl Log {
    /// Returns an empty log whose numbers begin here.
    pub(crate) fn beginning(epoch: u64, level: Level) -> Self {
        Self {
            head: Position {
                epoch: Epoch {
                    counter: epoch,
                    ..Epoch::default()
                },
                level,
                ..Position::default()
            },
            ..Self::default()
        }
    }

    pub(crate) fn head(&self) -> Position {
        self.head
    }

    /// Returns the point before the first frame.
    pub(crate) fn origin(&self) -> Position {
        let first = self.frames.first().map(|frame| frame.header);
        let counter = first.map_or(0, |header| header.epoch.counter - 1);
        Self::beginning(counter, first.map_or(Level::ZERO, |header| header.from)).head
    }

    pub(crate) fn records(&self) -> usize {
        self.records.len()
    }

    /// Opens a new epoch: a start of the service as writer.
    pub(crate) fn open_epoch(&mut self, id: EpochId, time: MasterTime) {
        let head = self.head;
        let counter = head.epoch.counter + 1;
        let epoch = Epoch { counter, id };
        let header = FrameHeader {
            kind: FrameKind::Epoch,
            shard: 0,
            epoch,
            from: head.level,
            to: head.level,
            root_before: head.root,
            root_after: head.root,
            time,
        };
        let changes = Vec::new();
        self.append(&Frame { header, changes });
    }

    /// Commits one batch.
    pub(crate) fn commit(&mut self, ops: Vec<Op>, time: MasterTime) {
        let head = self.head;
        let change = |((key, value), n): (Op, u64)| Change {
            key,
            level: head.level.plus(n),
            op: value.map_or(ChangeOp::Delete, ChangeOp::Put),
        };
        let changes: Vec<Change> = ops.into_iter().zip(1..).map(change).collect();
        let mut root_after = head.root;
        for Change { key, level, op } in &changes {
            if let Some((level, value)) = self.records.get(key) {
                root_after = root_after.minus(record_hash(key, *level, value));
            }
            if let ChangeOp::Put(value) = op {
                root_after = root_after.plus(record_hash(key, *level, value));
            }
        }
        let header = FrameHeader {
            kind: FrameKind::Changes,
            shard: 0,
            epoch: head.epoch,
            from: head.level,
            to: head.level.plus(u64::try_from(changes.len()).unwrap()),
            root_before: head.root,
            root_after,
            time,
        };
        self.append(&Frame { header, changes });
    }

    fn append(&mut self, frame: &Frame) {
        let header = frame.header;
        if header.kind == FrameKind::Epoch {
            self.lineage.push(header.epoch, header.from).unwrap();
        }
        for Change { key, level, op } in &frame.changes {
            let old = match op {
                ChangeOp::Put(value) => {
                    self.record_bytes += size(key, value);
                    let record = (*level, value.as_slice().into());
                    self.records.insert(key.clone(), record)
                }
                ChangeOp::Delete => self.records.remove(key),
            };
            self.record_bytes -= old.map_or(0, |(_, value)| size(key, &value));
        }
        let at = (self.head.epoch, self.head.level);
        self.next.insert(at, self.frames.len());
        self.head = header.after();
        let message: Arc<[u8]> = Message::Frame(frame.clone()).to_bytes().into();
        let before = self.bytes.last().copied().unwrap_or(0);
        self.bytes
            .push(before + u64::try_from(message.len()).unwrap());
        self.frames.push(LogFrame { header, message });
    }

    /// Forgets the newest frames: the tail that had not reached the disk. The first frame of all stays.
    pub(crate) fn lose_tail(&mut self, frames: usize) {
        let kept = self.frames.len().saturating_sub(frames).max(1);
        let old = std::mem::take(self);
        if let Some(first) = old.frames.first() {
            let header = first.header;
            *self = Self::beginning(header.epoch.counter - 1, header.from);
        }
        for LogFrame { message, .. } in old.frames.iter().take(kept) {
            let Message::Frame(frame) = Message::from_bytes(message).unwrap() else {
                unreachable!("only frames are logged");
            };
            self.append(&frame);
        }
    }

    pub(crate) fn frames_after(&self, after: Position, bytes_max: usize) -> Vec<LogFrame> {
        let Some(first) = self.next.get(&(after.epoch, after.level)) else {
            return Vec::new();
        };
        let mut room = bytes_max;
        let mut out = Vec::new();
        for frame in &self.frames[*first..] {
            let len = frame.message.len();
            if !out.is_empty() && len > room {
                break;
            }
            room = room.saturating_sub(len);
            out.push(frame.clone());
        }
        out
    }

    /// Returns the level that the log had reached before `time`.
    pub(crate) fn level_before(&self, time: MasterTime) -> Level {
        let frames = self.frames.partition_point(|f| f.header.time < time);
        let last = frames.checked_sub(1).map(|i| self.frames[i].header.to);
        last.unwrap_or_default()
    }

    /// Returns the next records after `cursor`, and where to go on; `None` at the end.
    pub(crate) fn records_after(&self, cursor: Option<&Key>) -> (SnapshotPart, Option<Key>) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = (cursor.map_or(Unbounded, Excluded), Unbounded);
        let mut records = Vec::new();
        let mut bytes = 0;
        for (key, (level, value)) in self.records.range::<Key, _>(from) {
            if bytes >= PART_BYTES {
                let last = records.last().map(|record: &Change| record.key.clone());
                return (SnapshotPart { records }, last);
            }
            bytes += key.as_bytes().len() + value.len();
            records.push(Change {
                key: key.clone(),
                level: *level,
                op: ChangeOp::Put(value.to_vec()),
            });
        }
        (SnapshotPart { records }, None)
    }
}

impl Costs for Log {
    fn log_bytes_after(&self, level: Level) -> Option<u64> {
        let first = self.frames.partition_point(|f| f.header.to <= level);
        let before = first.checked_sub(1).map_or(0, |i| self.bytes[i]);
        Some(self.bytes.last().copied().unwrap_or(0) - before)
    }

    fn table_bytes(&self) -> u64 {
        self.record_bytes
    }

    fn table_records(&self) -> u64 {
        u64::try_from(self.records.len()).unwrap()
    }
}

fn size(key: &Key, value: &[u8]) -> u64 {
    u64::try_from(key.as_bytes().len() + value.len()).unwrap()
}
