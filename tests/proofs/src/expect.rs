//! What a table shall hold after each batch, with all of its sums; and whether one does.

use std::collections::HashMap;

use locus_proto::{Change, Key, Level, Position, Root};
use locus_table::{Memory, PARTITIONS, Reader, RecordBuffer, ScanCursor};

use crate::model::{EPOCH, LEVELS_PER_BATCH, Op, State, Universe};

/// What all records come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sums {
    /// The sum of each partition.
    pub(crate) partitions: Vec<Root>,
    /// Their sum.
    pub(crate) root: Root,
    /// Number of records.
    pub(crate) records: u64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
}

/// What a table shall hold.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// The last batch.
    pub(crate) batch: u64,
    states: Vec<State>,
    sums: Option<Sums>,
}

impl Model {
    /// Returns the model of an empty table, for look-ups only.
    pub(crate) fn of_records(universe: &Universe) -> Self {
        Self {
            batch: 0,
            states: vec![State::default(); universe.keys().len()],
            sums: None,
        }
    }

    /// Returns the model of an empty table that also knows all sums.
    pub(crate) fn with_sums(universe: &Universe) -> Self {
        let sums = Sums {
            partitions: vec![Root::EMPTY; PARTITIONS],
            root: Root::EMPTY,
            records: 0,
            bytes: 0,
        };
        Self {
            sums: Some(sums),
            ..Self::of_records(universe)
        }
    }

    /// Does the next batch.
    pub(crate) fn apply(&mut self, universe: &Universe, ops: &[Op]) {
        self.batch += 1;
        for op in ops {
            let level = if op.delete { 0 } else { op.level };
            self.set(universe, op.key, level);
        }
    }

    /// Sets what holds for a key, by the current batch.
    pub(crate) fn set(&mut self, universe: &Universe, key: usize, level: u64) {
        let batch = self.batch;
        let old = std::mem::replace(&mut self.states[key], State { batch, level });
        let Some(sums) = &mut self.sums else { return };
        let partition = &mut sums.partitions[usize::from(universe.partition(key))];
        if old.level != 0 {
            let (record, bytes) = universe.record(key, old.level);
            *partition = partition.minus(record);
            sums.root = sums.root.minus(record);
            sums.records -= 1;
            sums.bytes -= bytes;
        }
        if level != 0 {
            let (record, bytes) = universe.record(key, level);
            *partition = partition.plus(record);
            sums.root = sums.root.plus(record);
            sums.records += 1;
            sums.bytes += bytes;
        }
    }

    /// Returns what holds for a key.
    pub(crate) fn state(&self, key: usize) -> State {
        self.states[key]
    }

    /// Returns the sums.
    ///
    /// # Panics
    /// If it knows none.
    pub(crate) fn sums(&self) -> &Sums {
        self.sums.as_ref().expect("the model was made with sums")
    }

    /// Returns where a table with this content stands.
    pub(crate) fn position(&self) -> Position {
        Position {
            epoch: EPOCH,
            level: Level(self.batch * LEVELS_PER_BATCH),
            root: self.sums().root,
        }
    }

    /// Returns the complete content of a partition, as a master sends it.
    pub(crate) fn content(&self, universe: &Universe, partition: u16) -> Vec<Change> {
        (0..self.states.len())
            .filter(|key| universe.partition(*key) == partition && self.states[*key].level != 0)
            .map(|key| {
                universe.change(Op {
                    key,
                    level: self.states[key].level,
                    delete: false,
                })
            })
            .collect()
    }

    /// Checks where a table stands and all its sums and counts.
    ///
    /// # Errors
    /// The first difference.
    pub(crate) fn check_sums<M: Memory>(&self, reader: &Reader<M>) -> Result<(), String> {
        let sums = self.sums();
        let (have, want) = (reader.position(), self.position());
        if have != want {
            return Err(format!("it stands at {have:?}, not {want:?}"));
        }
        let (records, bytes) = (reader.records(), reader.payload_bytes());
        if (records, bytes) != (sums.records, sums.bytes) {
            return Err(format!(
                "{records} records of {bytes} bytes, not {} of {}",
                sums.records, sums.bytes
            ));
        }
        for (partition, want) in sums.partitions.iter().enumerate() {
            let have = reader.partition_sum(partition);
            if have != *want {
                return Err(format!("partition {partition}: sum {have}, not {want}"));
            }
        }
        Ok(())
    }

    /// Checks by a scan that a table holds all records and no others; a scan skips no rot but `excused`.
    ///
    /// # Errors
    /// The first difference.
    pub(crate) fn check_scan<M: Memory>(
        &self,
        reader: &Reader<M>,
        universe: &Universe,
        excused: impl Fn(usize) -> bool,
    ) -> Result<(), String> {
        let numbers: HashMap<&[u8], usize> =
            universe.keys().iter().map(Key::as_bytes).zip(0..).collect();
        let mut buffer = RecordBuffer::new();
        let (mut wrong, mut scanned) = (None, 0);
        let scan = reader.for_each(
            ScanCursor::START,
            usize::MAX,
            &mut buffer,
            |level, key, value| {
                scanned += 1;
                let fits = numbers.get(key).is_some_and(|number| {
                    let is_whole =
                        universe.is_value(*number, level.0, value, false) || excused(*number);
                    is_whole && self.states[*number].level == level.0
                });
                if !fits {
                    wrong = Some(format!("a scan finds {key:?} at {level}"));
                }
            },
        );
        scan.map_err(|error| error.to_string())?;
        match wrong {
            Some(wrong) => Err(wrong),
            None if scanned == self.sums().records => Ok(()),
            None => Err(format!("a scan finds {scanned} records")),
        }
    }
}
