//! A master's log as plain as can be, and the table that it gives; nothing here is distributed.

use std::collections::HashMap;
use std::sync::Arc;

use locus_distribution::{Costs, LogFrame};
use locus_proto::{
    Change, ChangeOp, Epoch, EpochId, Frame, FrameHeader, FrameKind, Key, Level, Lineage,
    MasterTime, Message, Position, v1::SnapshotPart,
};

use crate::table::Table;

/// What a change does, before it has a level.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Put(Key, Vec<u8>),
    Delete(Key),
}

/// What a master keeps on its disk, and its table. Cloning it clones the disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) lineage: Lineage,
    pub(crate) table: Table,
    frames: Vec<LogFrame>,
    /// Index of the frame that follows a point of the log.
    next: HashMap<(Epoch, Level), usize>,
    bytes: Vec<u64>,
}

impl Log {
    pub(crate) fn head(&self) -> Position {
        self.table.position
    }

    /// Opens a new epoch: a start of the service as writer.
    pub(crate) fn open_epoch(&mut self, id: EpochId, time: MasterTime) {
        let head = self.head();
        let epoch = Epoch {
            counter: head.epoch.counter + 1,
            id,
        };
        self.lineage.push(epoch, head.level).unwrap();
        // What memory has become may have been logged; the epoch begins with what follows from the log.
        let said = self.frames.last().map(|frame| frame.header.root_after);
        let header = FrameHeader {
            kind: FrameKind::Epoch,
            shard: 0,
            epoch,
            from: head.level,
            to: head.level,
            root_before: said.unwrap_or(head.root),
            root_after: head.root,
            time,
        };
        self.append(Frame {
            header,
            changes: Vec::new(),
        });
    }

    /// Commits one batch.
    pub(crate) fn commit(&mut self, ops: &[Op], time: MasterTime) {
        let before = self.head();
        let change = |(op, n): (&Op, u64)| {
            let (key, op) = match op {
                Op::Put(key, value) => (key.clone(), ChangeOp::Put(value.clone())),
                Op::Delete(key) => (key.clone(), ChangeOp::Delete),
            };
            Change {
                key,
                level: before.level.plus(n),
                op,
            }
        };
        let changes: Vec<Change> = ops.iter().zip(1..).map(change).collect();
        let mut after = self.table.clone();
        after.load(&changes);
        let header = FrameHeader {
            kind: FrameKind::Changes,
            shard: 0,
            epoch: before.epoch,
            from: before.level,
            to: before.level.plus(u64::try_from(changes.len()).unwrap()),
            root_before: before.root,
            root_after: after.position.root,
            time,
        };
        self.append(Frame { header, changes });
    }

    fn append(&mut self, frame: Frame) {
        let head = self.head();
        self.next
            .insert((head.epoch, head.level), self.frames.len());
        self.table.apply(&frame, false).unwrap(); // what memory has become shows in the root
        let header = frame.header;
        let message: Arc<[u8]> = Message::Frame(frame).to_bytes().into();
        let before = self.bytes.last().copied().unwrap_or(0);
        self.bytes
            .push(before + u64::try_from(message.len()).unwrap());
        self.frames.push(LogFrame { header, message });
    }

    /// Makes the table anew from what is on the disk, as a start of the service does.
    pub(crate) fn reread(&mut self) {
        self.lose_tail(0);
    }

    /// Forgets the newest frames: the tail that had not reached the disk.
    pub(crate) fn lose_tail(&mut self, frames: usize) {
        let kept = self.frames.len().saturating_sub(frames).max(1);
        let old = std::mem::take(self);
        for LogFrame { header, message } in old.frames.iter().take(kept) {
            if header.kind == FrameKind::Epoch {
                self.lineage.push(header.epoch, header.from).unwrap();
            }
            let Message::Frame(frame) = Message::from_bytes(message).unwrap() else {
                unreachable!("only frames are logged");
            };
            self.append(frame);
        }
    }

    pub(crate) fn frames_after(&self, after: Position, bytes_max: usize) -> Vec<LogFrame> {
        let Some(first) = self.next.get(&(after.epoch, after.level)) else {
            return Vec::new();
        };
        let mut room = bytes_max;
        let mut fits = |(n, frame): &(usize, &LogFrame)| {
            let len = frame.message.len();
            let fits = *n == 0 || len <= room;
            room = room.saturating_sub(len);
            fits
        };
        let frames = self.frames[*first..].iter().enumerate();
        frames
            .take_while(|x| fits(x))
            .map(|(_, frame)| frame.clone())
            .collect()
    }

    /// Returns the level that the log had reached before `time`.
    pub(crate) fn level_before(&self, time: MasterTime) -> Level {
        let frames = self.frames.partition_point(|f| f.header.time < time);
        let last = frames.checked_sub(1).map(|i| self.frames[i].header.to);
        last.unwrap_or_default()
    }

    /// Returns the next `max` records after `cursor`, and where to go on; `None` at the end.
    pub(crate) fn records_after(
        &self,
        cursor: Option<&Key>,
        max: usize,
    ) -> (SnapshotPart, Option<Key>) {
        let record = |(key, (level, value)): (&Key, &(Level, Vec<u8>))| Change {
            key: key.clone(),
            level: *level,
            op: ChangeOp::Put(value.clone()),
        };
        let from = self.table.records.iter();
        let rest = from.filter(|(key, _)| cursor.is_none_or(|cursor| *key > cursor));
        let records: Vec<Change> = rest.take(max).map(record).collect();
        let full = records.len() == max;
        let last = records.last().map(|record| record.key.clone());
        (SnapshotPart { records }, last.filter(|_| full))
    }
}

impl Costs for Log {
    fn log_bytes_after(&self, level: Level) -> Option<u64> {
        let first = self.frames.partition_point(|f| f.header.to <= level);
        let before = first.checked_sub(1).map_or(0, |i| self.bytes[i]);
        Some(self.bytes.last().copied().unwrap_or(0) - before)
    }

    fn table_bytes(&self) -> u64 {
        let bytes =
            |(key, (_, value)): (&Key, &(Level, Vec<u8>))| key.as_bytes().len() + value.len();
        u64::try_from(self.table.records.iter().map(bytes).sum::<usize>()).unwrap()
    }

    fn table_records(&self) -> u64 {
        self.table.standing().records
    }
}
