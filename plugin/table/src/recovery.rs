//! Opening a table after any death of its writer; it decides nothing about what it shall hold.
//!
//! What is free in the arena follows from the index. What is done again, and in which order, stands in the
//! crate's documentation.

use locus_proto::{Change, ChangeOp, Position};

use crate::arena::Arena;
use crate::audit::{self, partition_of, rehash, set_account, total};
use crate::layout::{AT_STATE, BUCKET_WORDS, Layout, PROBE};
use crate::plan::{Step, What};
use crate::repair::Survey;
use crate::view::{Place, View, block_of};
use crate::writer::{STATE_LIVE, scratch};
use crate::{Memory, OpenTableError, Word, Writer, header, journal, publish};

/// What opening a table for writing found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Where the table stands now.
    pub position: Position,
    /// Whether a batch had died half-way and was completed.
    pub redone: bool,
}

impl<M: Memory> Writer<M> {
    /// Opens a table after any end of its last writer; completes the batch that was under way.
    ///
    /// # Errors
    /// [`OpenTableError::Loading`] if it was never completely loaded; other variants if it is none or
    /// contradicts itself. In each of these cases a full reload is the way on.
    pub fn open(memory: M) -> Result<(Self, Recovered), OpenTableError> {
        let words = memory.words();
        let layout = Layout::read(words)?;
        if words[AT_STATE].load() != STATE_LIVE {
            return Err(OpenTableError::Loading);
        }
        let (begin, done) = (header::begin(words), header::done(words));
        let arena = Arena::new(layout.arena_words());
        let mut writer = Self {
            mark: header::mark(words, begin),
            memory,
            layout,
            arena,
            sequence: begin,
            scratch: scratch(),
            loading: false,
        };
        let redo = begin == done.wrapping_add(1);
        if !redo && begin != done {
            return Err(OpenTableError::Corrupt { what: "sequence" });
        }
        let records = if redo {
            writer.redo()?
        } else {
            writer.rebuild_arena(&[])?
        };
        if records != writer.mark.records {
            return Err(OpenTableError::Corrupt { what: "count" });
        }
        if total(writer.accounts()) != writer.mark.account() {
            return Err(OpenTableError::Corrupt { what: "root" });
        }
        if redo {
            header::store_done(writer.memory.words(), begin);
        }
        let recovered = Recovered {
            position: writer.mark.position,
            redone: redo,
        };
        Ok((writer, recovered))
    }

    /// Marks the blocks that slots name as in use and returns the number of records.
    ///
    /// Strays are none; but what they name is not written to as long as they are there.
    fn rebuild_arena(&mut self, strays: &[Place]) -> Result<u64, OpenTableError> {
        let view = View::new(&self.memory, &self.layout);
        let mut records = 0;
        for (bucket, words) in (0..).zip(view.index.as_chunks::<BUCKET_WORDS>().0) {
            for (slot, word) in words[1..].iter().map(Word::load).enumerate() {
                if word == 0 || strays.contains(&Place { bucket, slot, word }) {
                    continue;
                }
                let (class, offset) = block_of(word);
                self.arena
                    .mark(class, offset)
                    .map_err(|_| OpenTableError::Corrupt { what: "index" })?;
                records += 1;
            }
        }
        for stray in strays {
            let (class, offset) = block_of(stray.word);
            let _names_no_block_of_its_own = self.arena.mark(class, offset);
        }
        self.arena.marked();
        Ok(records)
    }

    /// Applies the journal again and returns the number of records then.
    fn redo(&mut self) -> Result<u64, OpenTableError> {
        let words = self.memory.words();
        let changes = journal::read(words)?;
        let repairs = journal::repairs(words)?;
        self.void_copies(&changes, repairs);
        match repairs {
            None => {
                let records = self.rebuild_arena(&[])?;
                self.redo_batch(&changes, records)
            }
            Some(partition) => self.redo_repair(&changes, partition),
        }
    }

    /// Raises the version of each bucket that the batch may have changed.
    ///
    /// A slot may have been stored without its version: a reader that copied by the old one must not take
    /// what is written into the freed block now.
    fn void_copies(&self, changes: &[Change], repairs: Option<u16>) {
        let view = View::new(&self.memory, &self.layout);
        for change in changes {
            let home = view.home(view.hashes.key(change.key.as_bytes()));
            (home..=home + PROBE)
                .filter_map(|at| view.bucket(at))
                .for_each(publish::bump);
        }
        if let Some(partition) = repairs {
            let (start, end) = audit::range(&view, partition.into());
            (start..end)
                .filter_map(|at| view.bucket(at))
                .for_each(publish::bump);
        }
        M::Word::fence_release();
    }

    fn redo_batch(&mut self, changes: &[Change], records: u64) -> Result<u64, OpenTableError> {
        let mut records = records;
        let mut partitions = Vec::new();
        let hash = self.layout.hashes;
        for deletes in [false, true] {
            for change in changes {
                if (change.op == ChangeOp::Delete) != deletes {
                    continue;
                }
                let step = self
                    .plan_one(change, hash.key(change.key.as_bytes()))
                    .map_err(|_| OpenTableError::Corrupt { what: "journal" })?;
                records = count(records, &step);
                partitions.push(partition_of(step.hash));
                self.execute(change, &step);
            }
        }
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            self.account_for(partition)?;
        }
        Ok(records)
    }

    /// Applies a batch of a repair again: beside records that rotted, which go at its end.
    fn redo_repair(&mut self, changes: &[Change], partition: u16) -> Result<u64, OpenTableError> {
        let survey = Survey::before_arena(self, partition);
        let records = self.rebuild_arena(&survey.strays)?;
        let steps = self
            .plan_from(&survey, changes)
            .map_err(|_| OpenTableError::Corrupt { what: "journal" })?;
        self.execute_all(changes, &steps);
        self.purge(&survey.strays);
        self.account_for(partition.into())?;
        Ok(steps.iter().fold(records, count))
    }

    /// Sets what a partition comes to from what is in memory.
    fn account_for(&mut self, partition: usize) -> Result<(), OpenTableError> {
        let view = View::new(&self.memory, &self.layout);
        let account = rehash(
            self.memory.words(),
            &view,
            partition,
            self.scratch.get_mut(),
        )
        .map_err(|_| OpenTableError::Corrupt { what: "record" })?;
        set_account(self.accounts(), partition, account);
        Ok(())
    }
}

/// Returns the number of slots in use after one more step.
fn count(records: u64, step: &Step) -> u64 {
    match step.what {
        What::Nothing | What::Replace { .. } => records,
        What::Insert { .. } => records + 1,
        What::Remove { .. } => records - 1,
    }
}
