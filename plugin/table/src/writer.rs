//! The side of a table that changes it: one at a time, a batch whole or not at all; it decides nothing.
//!
//! A batch is applied in this order, and may die at any store of it:
//! 1. the journal and the position after the batch are written, invisible to readers;
//! 2. `begin` takes the batch's number;
//! 3. records are put, then deleted, each by one store of its slot;
//! 4. `done` takes the number: the position switches.
//!
//! Whoever opens the table next and finds `begin` ahead of `done` applies the journal again; changes are
//! absolute, so what was done already stays as it is.

use std::fmt;

use locus_proto::{Change, ChangeOp, Frame, Position, Root};

use crate::arena::{Arena, RECORD_BYTES_MAX};
use crate::audit::{PARTITIONS, partition_of, rehash, set_sum, sum, total};
use crate::header::{self, Mark};
use crate::layout::{
    AT_ARENA_WORDS, AT_BUCKETS, AT_FORMAT, AT_KEY, AT_MAGIC, AT_STATE, AT_SUMS, BUCKET_WORDS,
    FORMAT, Layout, MAGIC, PROBE, SUMS_WORDS,
};
use crate::plan::{Planner, Prepared, Step, What, check_arena, check_batch, head_of};
use crate::view::{View, block_of, slot_word};
use crate::{
    ApplyError, Geometry, Memory, OpenTableError, PrepareError, Reader, TableKey, Word, Words,
    journal, prefix, publish,
};

/// States of a table, in its header.
pub(crate) const STATE_LOADING: u64 = 1;
pub(crate) const STATE_LIVE: u64 = 2;

/// What opening a table for writing found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Where the table stands now.
    pub position: Position,
    /// Whether a batch had died half-way and was completed.
    pub redone: bool,
}

/// Changes one table; there is at most one for a table at any time (its owner holds a lock on `ctl`).
pub struct Writer<M> {
    pub(crate) memory: M,
    pub(crate) layout: Layout,
    pub(crate) arena: Arena,
    /// Where the table stands.
    pub(crate) mark: Mark,
    /// Number of the last batch.
    pub(crate) sequence: u64,
    pub(crate) scratch: Box<[u8]>,
    /// It is being loaded: no journal, no position before the end.
    pub(crate) loading: bool,
}

impl<M: Memory> Writer<M> {
    /// Makes an empty table in zeroed memory, to be loaded; readers cannot open it before
    /// [`Self::finish_load`].
    ///
    /// # Errors
    /// [`OpenTableError::Geometry`], or memory smaller than [`Geometry::file_bytes`].
    pub fn create(memory: M, geometry: Geometry, key: TableKey) -> Result<Self, OpenTableError> {
        let layout = Layout::new(geometry, key)?;
        let words = memory.words();
        layout.check(words.len())?;
        let arena_words = layout.arena_words();
        let [k0, k1] = key.to_words();
        for (at, value) in [
            (AT_FORMAT, FORMAT),
            (AT_BUCKETS, geometry.buckets),
            (AT_ARENA_WORDS, u64::try_from(arena_words).unwrap_or(0)),
            (AT_KEY, k0),
            (AT_KEY + 1, k1),
            (AT_STATE, STATE_LOADING),
        ] {
            words[at].store(value);
        }
        words[AT_MAGIC].store_release(MAGIC);
        Ok(Self {
            memory,
            layout,
            arena: Arena::new(arena_words),
            mark: Mark::default(),
            sequence: 0,
            scratch: vec![0; RECORD_BYTES_MAX].into_boxed_slice(),
            loading: true,
        })
    }

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
            scratch: vec![0; RECORD_BYTES_MAX].into_boxed_slice(),
            loading: false,
        };
        let redo = begin == done.wrapping_add(1);
        if !redo && begin != done {
            return Err(OpenTableError::Corrupt { what: "sequence" });
        }
        let mut records = writer.rebuild_arena()?;
        if redo {
            records = writer.redo(records)?;
        }
        if records != writer.mark.records {
            return Err(OpenTableError::Corrupt { what: "count" });
        }
        if total(writer.sums()) != writer.mark.position.root {
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
    fn rebuild_arena(&mut self) -> Result<u64, OpenTableError> {
        let view = View::new(&self.memory, &self.layout);
        let mut records = 0;
        for slot in view
            .index
            .chunks_exact(BUCKET_WORDS)
            .flat_map(|bucket| &bucket[1..])
        {
            let word = slot.load();
            if word == 0 {
                continue;
            }
            let (class, offset) = block_of(word);
            self.arena
                .mark(class, offset)
                .map_err(|_| OpenTableError::Corrupt { what: "index" })?;
            records += 1;
        }
        self.arena.marked();
        Ok(records)
    }

    /// Applies the journal again and returns the number of records then.
    fn redo(&mut self, mut records: u64) -> Result<u64, OpenTableError> {
        let changes = journal::read(self.memory.words())?;
        let view = View::new(&self.memory, &self.layout);
        // A slot may have been stored without its version: a reader that copied by the old one must not
        // take what is written into the freed block now.
        for change in &changes {
            let home = view.home(view.hashes.key(change.key.as_bytes()));
            (home..=home + PROBE)
                .filter_map(|at| view.bucket(at))
                .for_each(publish::bump);
        }
        M::Word::fence_release();
        let corrupt = OpenTableError::Corrupt { what: "journal" };
        let mut partitions = Vec::new();
        for change in puts(&changes).chain(deletes(&changes)) {
            let step = self.plan_one(change).map_err(|_| corrupt.clone())?;
            records = count(records, &step);
            partitions.push(partition_of(step.hash));
            self.execute(change, &step);
        }
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            let view = View::new(&self.memory, &self.layout);
            let sum = rehash(&view, partition, &mut self.scratch)
                .map_err(|_| OpenTableError::Corrupt { what: "record" })?;
            set_sum(self.sums(), partition, sum);
        }
        Ok(records)
    }

    /// Works out whether a batch fits and to which content it leads; writes nothing.
    ///
    /// Each key at most once. Memory is counted as if no record gave its place up before the end.
    ///
    /// # Errors
    /// [`PrepareError`] says what to do about it.
    pub fn prepare(&self, changes: &[Change]) -> Result<Prepared, PrepareError> {
        check_batch(changes)?;
        let mut scratch = vec![0; RECORD_BYTES_MAX];
        let view = View::new(&self.memory, &self.layout);
        let mut planner = Planner::of_batch(view, &mut scratch, self.mark.records);
        let steps: Vec<Step> = changes
            .iter()
            .map(|c| planner.step(c))
            .collect::<Result<_, _>>()?;
        check_arena(&self.arena, &steps)?;
        let (mut root_after, mut records, mut bytes) =
            (self.mark.position.root, self.mark.records, self.mark.bytes);
        for step in &steps {
            root_after = root_after.plus(step.plus).minus(step.minus);
            records = count(records, step);
            bytes = bytes.wrapping_add(step.bytes.1).wrapping_sub(step.bytes.0);
        }
        Ok(Prepared {
            sequence: self.sequence,
            steps,
            root_after,
            records_after: records,
            bytes_after: bytes,
        })
    }

    /// Applies a batch that was prepared from these changes; the table then stands at `to`.
    ///
    /// # Panics
    /// If the table has changed since, if `changes` are not those that were prepared, if `to` names
    /// other content, or while the table is being loaded: mistakes of the caller.
    pub fn commit(&mut self, prepared: Prepared, changes: &[Change], to: Position) {
        assert!(
            !self.loading,
            "a table that is being loaded takes no batches"
        );
        assert!(
            prepared.sequence == self.sequence && prepared.steps.len() == changes.len(),
            "a batch is committed to the table for which it was prepared"
        );
        assert_eq!(
            prepared.root_after, to.root,
            "a batch leads to the content it was prepared for"
        );
        let sequence = self.sequence.wrapping_add(1);
        self.mark = Mark {
            position: to,
            records: prepared.records_after,
            bytes: prepared.bytes_after,
        };
        let words = self.memory.words();
        journal::write(words, changes);
        header::store_mark(words, sequence, self.mark);
        header::store_begin(words, sequence);
        // Puts first: a batch that moves something from one key to another never hides both.
        let (deletes, puts): (Vec<_>, Vec<_>) = changes
            .iter()
            .zip(&prepared.steps)
            .partition(|(change, _)| change.op == ChangeOp::Delete);
        for (change, step) in puts.into_iter().chain(deletes) {
            self.execute(change, step);
        }
        header::store_done(self.memory.words(), sequence);
        self.sequence = sequence;
    }

    /// Applies a frame whose epoch the caller has approved, and returns the content it led to.
    ///
    /// # Errors
    /// [`ApplyError`] if it begins elsewhere, leads elsewhere or does not fit; nothing was changed then.
    pub fn apply(&mut self, frame: &Frame) -> Result<Root, ApplyError> {
        let (header, have) = (&frame.header, self.mark.position);
        if self.loading {
            return Err(ApplyError::Loading);
        }
        if header.from != have.level {
            return Err(ApplyError::LevelGap {
                have: have.level,
                got: header.from,
            });
        }
        if header.root_before != have.root {
            return Err(ApplyError::RootBefore {
                level: have.level,
                have: have.root,
                got: header.root_before,
            });
        }
        let prepared = self.prepare(&frame.changes)?;
        if prepared.root_after != header.root_after {
            return Err(ApplyError::RootAfter {
                have: prepared.root_after,
                got: header.root_after,
            });
        }
        self.commit(prepared, &frame.changes, header.after());
        Ok(header.root_after)
    }

    pub(crate) fn plan_one(&mut self, change: &Change) -> Result<Step, PrepareError> {
        let view = View::new(&self.memory, &self.layout);
        let step = Planner::of_one(view, &mut self.scratch, self.mark.records).step(change)?;
        check_arena(&self.arena, std::slice::from_ref(&step))?;
        Ok(step)
    }

    /// Does one step that was planned for the state the table is in.
    pub(crate) fn execute(&mut self, change: &Change, step: &Step) {
        let view = View::new(&self.memory, &self.layout);
        let old = match step.what {
            What::Nothing => return,
            What::Insert {
                place,
                distance,
                class,
            } => {
                prefix::note(self.memory.words(), change.key.as_bytes());
                let word = write(&view, &mut self.arena, change, step.hash, class);
                publish::raise_reach(bucket(&view, view.home(step.hash)), distance);
                publish::publish(bucket(&view, place.bucket), place.slot, word);
                None
            }
            What::Replace { place, class } => {
                let word = write(&view, &mut self.arena, change, step.hash, class);
                publish::publish(bucket(&view, place.bucket), place.slot, word);
                Some(place)
            }
            What::Remove { place } => {
                publish::publish(bucket(&view, place.bucket), place.slot, 0);
                Some(place)
            }
        };
        if let Some(old) = old {
            let (class, offset) = block_of(old.word);
            self.arena.release(class, offset);
        }
        let partition = partition_of(step.hash);
        let now = sum(self.sums(), partition)
            .plus(step.plus)
            .minus(step.minus);
        set_sum(self.sums(), partition, now);
    }

    /// Returns where the table stands.
    pub fn position(&self) -> Position {
        self.mark.position
    }

    /// Returns the number of records.
    pub fn records(&self) -> u64 {
        self.mark.records
    }

    /// Returns the bytes of all keys and values.
    pub fn payload_bytes(&self) -> u64 {
        self.mark.bytes
    }

    /// Returns the 64-KiB slabs without a record, of all that the table has.
    pub fn free_slabs(&self) -> u64 {
        self.arena.free_slabs()
    }

    /// Returns whether the table is still being loaded.
    pub fn is_loading(&self) -> bool {
        self.loading
    }

    /// Returns the stored sum of a partition, below [`PARTITIONS`].
    pub fn partition_sum(&self, partition: usize) -> Root {
        debug_assert!(partition < PARTITIONS, "partitions have sixteen bits");
        sum(self.sums(), partition)
    }

    /// Returns a reader of the same table, also while it is being loaded.
    pub fn reader(&self) -> Reader<Words<'_, M::Word>> {
        Reader {
            memory: Words(self.memory.words()),
            layout: self.layout,
        }
    }

    /// Returns the memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    pub(crate) fn sums(&self) -> &[M::Word] {
        &self.memory.words()[AT_SUMS..AT_SUMS + SUMS_WORDS]
    }
}

/// Writes the record that a put makes into a block of the class, and returns the slot that names it.
fn write<W: Word>(
    view: &View<'_, W>,
    arena: &mut Arena,
    change: &Change,
    hash: u64,
    class: u8,
) -> u64 {
    let value = match &change.op {
        ChangeOp::Put(value) => value.as_slice(),
        ChangeOp::Delete => &[],
    };
    let word = arena
        .allocate(class)
        .map(|offset| slot_word(hash, class, offset))
        .expect("the batch was checked to fit");
    let block = view.block(word).expect("the arena allocates within itself");
    publish::write_record(block, head_of(change, value), change.key.as_bytes(), value);
    word
}

fn bucket<'a, W: Word>(view: &View<'a, W>, at: u64) -> &'a [W; BUCKET_WORDS] {
    view.bucket(at).expect("steps are planned within the index")
}

fn puts(changes: &[Change]) -> impl Iterator<Item = &Change> {
    changes
        .iter()
        .filter(|change| change.op != ChangeOp::Delete)
}

fn deletes(changes: &[Change]) -> impl Iterator<Item = &Change> {
    changes
        .iter()
        .filter(|change| change.op == ChangeOp::Delete)
}

/// Returns the number of records after one more step.
pub(crate) fn count(records: u64, step: &Step) -> u64 {
    match step.what {
        What::Nothing | What::Replace { .. } => records,
        What::Insert { .. } => records + 1,
        What::Remove { .. } => records - 1,
    }
}

impl<M> fmt::Debug for Writer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("mark", &self.mark)
            .field("sequence", &self.sequence)
            .field("loading", &self.loading)
            .finish_non_exhaustive()
    }
}
