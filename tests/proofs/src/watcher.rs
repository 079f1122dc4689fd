//! A reader beside writers that die: it knows what each look-up may say at its moment, and says where one
//! does not. It neither writes nor waits.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use locus_agent::MappedFolder;
use locus_proto::Position;
use locus_table::{FolderReader, RecordBuffer};

use crate::expect::Model;
use crate::model::{Dice, LEVELS_PER_BATCH, Op, Seen, State, Universe, count, index};
use crate::plan;

/// A reader beside the writers, with a memory of what it saw.
pub(crate) struct Watcher<'a> {
    folder: FolderReader<MappedFolder>,
    universe: &'a Universe,
    seed: u64,
    dice: Dice,
    model: Model,
    /// The batch that changed what was seen last of a key.
    seen: Vec<u64>,
    /// Look-ups so far.
    pub(crate) lookups: u64,
    /// Of these, look-ups that found the content of a batch that was not done.
    pub(crate) ahead: u64,
}

impl<'a> Watcher<'a> {
    pub(crate) fn new(folder: &Path, universe: &'a Universe, seed: u64, number: u64) -> Self {
        Self {
            folder: MappedFolder::open_ro(folder),
            universe,
            seed,
            dice: Dice(seed ^ (number + 1)),
            model: Model::of_records(universe),
            seen: vec![0; universe.keys().len()],
            lookups: 0,
            ahead: 0,
        }
    }

    pub(crate) fn watch(&mut self, stop: &AtomicBool) -> Result<(), String> {
        let keys = count(self.universe.keys().len());
        let mut buffer = RecordBuffer::new();
        while !stop.load(Ordering::Relaxed) {
            let key = index(self.dice.roll(keys));
            let universe = self.universe;
            let looked = self.folder.with(|table| {
                let before = table.position();
                let seen = Seen::look(table, universe, key, &mut buffer);
                (before, seen, table.position())
            });
            let (before, seen, after) = looked.map_err(|reason| format!("a reader: {reason}"))?;
            self.judge(key, seen, batch_of(before)?, batch_of(after)?)?;
            self.lookups += 1;
        }
        Ok(())
    }

    /// Judges what was seen while the table stood at batches `before` to `after`, or was on its way to the
    /// next.
    fn judge(&mut self, key: usize, seen: Seen, before: u64, after: u64) -> Result<(), String> {
        if before < self.model.batch {
            return Err(format!(
                "a reader sees batch {before} after {}",
                self.model.batch
            ));
        }
        while self.model.batch < before {
            let ops = plan::kill_ops(self.seed, self.model.batch + 1);
            self.model.apply(self.universe, &ops);
        }
        let state = self.model.state(key);
        let from = if fits(seen, state, key) {
            state.batch
        } else {
            self.ahead += 1;
            let later = (before + 1..=after + 1).find_map(|batch| {
                let ops = plan::kill_ops(self.seed, batch);
                let op = ops.into_iter().find(|op| op.key == key)?;
                fits(seen, state_after(op, batch), key).then_some(batch)
            });
            later.ok_or_else(|| {
                format!("a reader sees {seen:?} of key {key} at batch {before}, not {state:?}")
            })?
        };
        if from < self.seen[key] {
            let last = self.seen[key];
            return Err(format!("key {key} went back from batch {last} to {from}"));
        }
        self.seen[key] = from;
        Ok(())
    }
}

/// Returns whether a look-up may say this of a key with that state: what rots, rots in one known way.
pub(crate) fn fits(seen: Seen, state: State, key: usize) -> bool {
    seen.is(state) || plan::may_rot(key) && seen == Seen::Rotten(state.level)
}

/// Returns what holds for a key after an operation of this batch.
pub(crate) fn state_after(op: Op, batch: u64) -> State {
    State {
        batch,
        level: if op.delete { 0 } else { op.level },
    }
}

/// Returns the batch after which a table stands.
pub(crate) fn batch_of(position: Position) -> Result<u64, String> {
    let level = position.level.0;
    if level.is_multiple_of(LEVELS_PER_BATCH) {
        Ok(level / LEVELS_PER_BATCH)
    } else {
        Err(format!("level {level} is the end of no batch"))
    }
}
